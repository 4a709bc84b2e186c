/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/* A decapsulator for real servers whose kernel has no tunnels: strips the outer IP header (RFC 2003, RFC 2473, RFC 4213),
 * and a GUE or GRE header behind it, from frames of the director's TUN mode and gives the inner packet to the kernel. */
#include "headers.h"

enum decap_reason {
	DECAP_STRIPPED,
	DECAP_DROP_ECN,
	DECAP_DROP_ERROR,
	DECAP_PASS_OTHER,
	DECAP_PASS_FRAGMENT,
	DECAP_PASS_MALFORMED,
	DECAP_PASS_INNER,
	DECAP_COUNT,
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, __u32);
} decap_outers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, __u32);
} decap_vips SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DECAP_COUNT);
	__type(key, enum decap_reason);
	__type(value, __u64);
} decap_counters SEC(".maps");

/* The UDP port that GUE comes to, in network byte order; 0: UDP is left alone. */
volatile __be16 gue_port = 0;

struct udp_header {
	__be16 src;
	__be16 dst;
	__be16 length;
	__u16 checksum;
};

/* draft-ietf-intarea-gue, 3.2: version(2) control(1) hlen(5), in units of 4 bytes. */
struct gue_header {
	__u8 version_control_hlen;
	__u8 proto;
	__be16 flags;
};

/* RFC 2784, 2: C(1) reserved(12) version(3). With C, checksum and reserved1 follow. */
struct gre_header {
	__be16 flags;
	__be16 proto;
};

#define GRE_CHECKSUM be16(0x8000)

#define ECN_MASK 3
#define ECN_NOT_ECT 0
#define ECN_ECT_1 1
#define ECN_ECT_0 2
#define ECN_CE 3
#define ECN_DROP 0xff

static __always_inline int finish(__u32 reason, int action)
{
	__u64 *n = bpf_map_lookup_elem(&decap_counters, &reason);

	if (n)
		(*n)++;
	return action;
}

/* The table of RFC 6040, 4.2: the inner packet's codepoint after decapsulation, or ECN_DROP. */
static __always_inline __u8 decapsulated_ecn(__u8 inner, __u8 outer)
{
	if (inner == ECN_NOT_ECT)
		return outer == ECN_CE ? ECN_DROP : ECN_NOT_ECT;
	if (inner == ECN_CE || outer == ECN_CE)
		return ECN_CE;
	return outer == ECN_ECT_1 ? ECN_ECT_1 : inner;
}

/* RFC 1624, equation 3: HC' = ~(~HC + ~m + m'), for the 16-bit word that holds version, IHL and TOS. */
static __always_inline void set_ipv4_ecn(struct ipv4_header *ip, __u8 ecn)
{
	__u16 old = (__u16)ip->version_ihl << 8 | ip->tos;
	__u16 new = (old & ~ECN_MASK) | ecn;
	__u32 sum;

	if (new == old)
		return;
	sum = (__u16)~be16(ip->checksum) + (__u32)(__u16)~old + new;
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	ip->checksum = be16((__u16)~sum);
	ip->tos = new;
}

/* The traffic class straddles the first two bytes; ECN is its lower half's lower half (RFC 8200, 3). */
static __always_inline __u8 ipv6_ecn(const struct ipv6_header *ip)
{
	return ((const __u8 *)ip)[1] >> 4 & ECN_MASK;
}

static __always_inline void set_ipv6_ecn(struct ipv6_header *ip, __u8 ecn)
{
	__u8 *second = (__u8 *)ip + 1;

	*second = (*second & ~(ECN_MASK << 4)) | ecn << 4;
}

struct tunnel {
	struct address outer;
	__u8 inner_proto;
	__u8 ecn;
	__u32 length; /* of what the outer header carries */
};

static __always_inline int has_inner(__u8 proto)
{
	return proto == PROTO_IPIP || proto == PROTO_IPV6;
}

/* Can an outer header with this protocol be a tunnel's? */
static __always_inline int may_have_inner(__u8 proto)
{
	return has_inner(proto) || proto == PROTO_GRE || (proto == PROTO_UDP && gue_port);
}

/* Reads past the UDP header and the GUE header of variant 0. The checksum is not verified: the inner packet has its
 * own. A control message, or a header with flags or fields, is none that the director sends, and the kernel's. */
static __always_inline enum decap_reason read_gue(struct cursor *c, struct tunnel *t)
{
	struct udp_header *udp = peek(c, sizeof(*udp));
	struct gue_header *gue;
	__u32 length;

	if (!udp || t->length < sizeof(*udp))
		return DECAP_PASS_MALFORMED;
	if (udp->dst != gue_port)
		return DECAP_PASS_OTHER;
	length = be16(udp->length);
	if (length > t->length || length < sizeof(*udp) + sizeof(*gue))
		return DECAP_PASS_MALFORMED;
	c->offset += sizeof(*udp);
	gue = peek(c, sizeof(*gue));
	if (!gue)
		return DECAP_PASS_MALFORMED;
	if (gue->version_control_hlen || gue->flags || !has_inner(gue->proto))
		return DECAP_PASS_OTHER;
	t->inner_proto = gue->proto;
	t->length = length - sizeof(*udp) - sizeof(*gue);
	c->offset += sizeof(*gue);
	return DECAP_COUNT;
}

/* Reads past a GRE header without key and sequence number. */
static __always_inline enum decap_reason read_gre(struct cursor *c, struct tunnel *t)
{
	struct gre_header *gre = peek(c, sizeof(*gre));
	__u32 size = sizeof(*gre);

	if (!gre || t->length < sizeof(*gre))
		return DECAP_PASS_MALFORMED;
	if (gre->flags & ~GRE_CHECKSUM)
		return DECAP_PASS_OTHER;
	if (gre->proto == be16(ETH_P_IP))
		t->inner_proto = PROTO_IPIP;
	else if (gre->proto == be16(ETH_P_IPV6))
		t->inner_proto = PROTO_IPV6;
	else
		return DECAP_PASS_OTHER;
	if (gre->flags)
		size += 4;
	if (size > t->length)
		return DECAP_PASS_MALFORMED;
	t->length -= size;
	c->offset += size;
	return DECAP_COUNT;
}

/* Reads what lies between the outer header and the inner one. */
static __always_inline enum decap_reason read_shim(struct cursor *c, struct tunnel *t)
{
	if (t->inner_proto == PROTO_UDP)
		return read_gue(c, t);
	if (t->inner_proto == PROTO_GRE)
		return read_gre(c, t);
	return DECAP_COUNT;
}

/* The readers of the outer header leave the cursor at the inner one and return DECAP_COUNT, or why not. */
static __always_inline enum decap_reason read_outer_ipv4(struct cursor *c, struct tunnel *t)
{
	struct ipv4_header *ip = peek(c, sizeof(*ip));
	__u32 header, total;

	if (!ip)
		return DECAP_PASS_MALFORMED;
	header = (ip->version_ihl & 0xf) * 4;
	total = be16(ip->total_length);
	if (ip->version_ihl >> 4 != 4 || header < sizeof(*ip) || total < header || !holds(c, total))
		return DECAP_PASS_MALFORMED;
	if (!may_have_inner(ip->proto))
		return DECAP_PASS_OTHER;
	address_from_ipv4(&t->outer, ip->dst);
	if (!bpf_map_lookup_elem(&decap_outers, &t->outer))
		return DECAP_PASS_OTHER;
	if (ip->fragment & IPV4_MF_OR_OFFSET)
		return DECAP_PASS_FRAGMENT;
	t->inner_proto = ip->proto;
	t->ecn = ip->tos & ECN_MASK;
	t->length = total - header;
	c->offset += header;
	return DECAP_COUNT;
}

static __always_inline enum decap_reason read_outer_ipv6(struct cursor *c, struct tunnel *t)
{
	struct ipv6_header *ip = peek(c, sizeof(*ip));
	struct ipv6_extension *options;
	__u32 length, size;
	__u8 proto;

	if (!ip || *(__u8 *)ip >> 4 != 6 || !holds(c, sizeof(*ip) + be16(ip->payload_length)))
		return DECAP_PASS_MALFORMED;
	proto = ip->next_header;
	if (!may_have_inner(proto) && proto != PROTO_DSTOPTS && proto != PROTO_FRAGMENT)
		return DECAP_PASS_OTHER;
	address_from_ipv6(&t->outer, ip->dst);
	if (is_ipv4_mapped(&t->outer) || !bpf_map_lookup_elem(&decap_outers, &t->outer))
		return DECAP_PASS_OTHER;
	if (proto == PROTO_FRAGMENT)
		return DECAP_PASS_FRAGMENT;
	t->ecn = ipv6_ecn(ip);
	length = be16(ip->payload_length);
	c->offset += sizeof(*ip);
	/* Linux's ip6tnl puts the tunnel encapsulation limit here unless told not to (RFC 2473, 4.1.1). */
	if (proto == PROTO_DSTOPTS) {
		options = peek(c, sizeof(*options));
		if (!options)
			return DECAP_PASS_MALFORMED;
		size = 8 + 8 * (__u32)options->length;
		if (size > length)
			return DECAP_PASS_MALFORMED;
		proto = options->next_header;
		length -= size;
		c->offset += size;
	}
	if (!may_have_inner(proto))
		return proto == PROTO_FRAGMENT ? DECAP_PASS_FRAGMENT : DECAP_PASS_OTHER;
	t->inner_proto = proto;
	t->length = length;
	return DECAP_COUNT;
}

/* Checks the inner IPv4 header and settles its ECN field. Whatever is not to be stripped stays as it was. */
static __always_inline enum decap_reason settle_inner_ipv4(struct cursor *c, const struct tunnel *t)
{
	struct ipv4_header *ip = peek(c, sizeof(*ip));
	struct address vip;
	__u8 ecn;

	if (!ip || t->length < sizeof(*ip) || ip->version_ihl >> 4 != 4 || be16(ip->total_length) > t->length)
		return DECAP_PASS_MALFORMED;
	address_from_ipv4(&vip, ip->dst);
	if (!bpf_map_lookup_elem(&decap_vips, &vip))
		return DECAP_PASS_INNER;
	ecn = decapsulated_ecn(ip->tos & ECN_MASK, t->ecn);
	if (ecn == ECN_DROP)
		return DECAP_DROP_ECN;
	set_ipv4_ecn(ip, ecn);
	return DECAP_STRIPPED;
}

static __always_inline enum decap_reason settle_inner_ipv6(struct cursor *c, const struct tunnel *t)
{
	struct ipv6_header *ip = peek(c, sizeof(*ip));
	struct address vip;
	__u8 ecn;

	if (!ip || t->length < sizeof(*ip) || *(__u8 *)ip >> 4 != 6 ||
	    be16(ip->payload_length) + sizeof(*ip) > t->length)
		return DECAP_PASS_MALFORMED;
	address_from_ipv6(&vip, ip->dst);
	if (is_ipv4_mapped(&vip) || !bpf_map_lookup_elem(&decap_vips, &vip))
		return DECAP_PASS_INNER;
	ecn = decapsulated_ecn(ipv6_ecn(ip), t->ecn);
	if (ecn == ECN_DROP)
		return DECAP_DROP_ECN;
	set_ipv6_ecn(ip, ecn);
	return DECAP_STRIPPED;
}

/* Moves the Ethernet header, VLAN tags included, up to the inner packet and cuts off what is before it. l2 is how long the header is
 * with its tags, of which read_ethernet passes no more than two. */
static __always_inline int strip(struct xdp_md *ctx, __u32 l2, __u32 outer, __be16 type)
{
	struct {
		struct eth_header eth;
		struct vlan_tag tag[2];
	} saved;
	void *data = (void *)(long)ctx->data;

	/* A frame with an IP header in it is longer than this in any case. */
	if (data + sizeof(saved) > (void *)(long)ctx->data_end)
		return -1;
	__builtin_memcpy(&saved, data, sizeof(saved));
	if (l2 == sizeof(saved))
		saved.tag[1].type = type;
	else if (l2 == sizeof(saved.eth) + sizeof(saved.tag[0]))
		saved.tag[0].type = type;
	else
		saved.eth.type = type;
	if (bpf_xdp_adjust_head(ctx, outer))
		return -1;
	data = (void *)(long)ctx->data;
	if (data + sizeof(saved) > (void *)(long)ctx->data_end)
		return -1;
	if (l2 == sizeof(saved))
		__builtin_memcpy(data, &saved, sizeof(saved));
	else if (l2 == sizeof(saved.eth) + sizeof(saved.tag[0]))
		__builtin_memcpy(data, &saved, sizeof(saved.eth) + sizeof(saved.tag[0]));
	else
		__builtin_memcpy(data, &saved.eth, sizeof(saved.eth));
	return 0;
}

SEC("xdp")
int decap(struct xdp_md *ctx)
{
	struct cursor c = {
		.data = (void *)(long)ctx->data,
		.data_end = (void *)(long)ctx->data_end,
	};
	struct eth_header *eth = 0;
	struct tunnel t = {};
	enum decap_reason reason;
	__be16 type = read_ethernet(&c, &eth);
	__u32 l2 = c.offset;

	if (type == be16(ETH_P_IP))
		reason = read_outer_ipv4(&c, &t);
	else if (type == be16(ETH_P_IPV6))
		reason = read_outer_ipv6(&c, &t);
	else
		return finish(DECAP_PASS_OTHER, XDP_PASS);
	if (reason == DECAP_COUNT)
		reason = read_shim(&c, &t);
	if (reason != DECAP_COUNT)
		return finish(reason, XDP_PASS);

	if (t.inner_proto == PROTO_IPIP)
		reason = settle_inner_ipv4(&c, &t);
	else
		reason = settle_inner_ipv6(&c, &t);
	if (reason == DECAP_DROP_ECN)
		return finish(reason, XDP_DROP);
	if (reason != DECAP_STRIPPED)
		return finish(reason, XDP_PASS);
	type = t.inner_proto == PROTO_IPIP ? be16(ETH_P_IP) : be16(ETH_P_IPV6);
	if (strip(ctx, l2, c.offset - l2, type))
		return finish(DECAP_DROP_ERROR, XDP_ABORTED);
	return finish(DECAP_STRIPPED, XDP_PASS);
}

char _license[] SEC("license") = "GPL";
