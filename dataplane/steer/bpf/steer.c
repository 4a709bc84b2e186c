/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/* The steering program. It decides frame by frame whether the director or the kernel gets the frame, and
 * changes none. Packets that open flows it drops while a worker asks for that. decide.go says the same in Go; a test holds the two together. */
#include "headers.h"

/* Why a frame went where it went. Order and names are the counters' (reason.go). */
enum reason {
	/* to the director */
	REASON_SERVICE,
	REASON_SERVICE_ANY_PORT,
	REASON_FRAGMENT,
	REASON_ICMP,
	REASON_REPLY,
	REASON_REPLY_FRAGMENT,
	REASON_REPLY_ICMP,
	REASON_TUNNEL_ICMP,
	/* to the kernel */
	REASON_PASS_L2,
	REASON_PASS_NOT_IP,
	REASON_PASS_MALFORMED,
	REASON_PASS_EXTENSION,
	REASON_PASS_CONTROL,
	REASON_PASS_VIP_OTHER,
	REASON_PASS_LOCAL,
	REASON_PASS_OTHER,
	/* to nobody: would open a flow, and the worker cannot keep up */
	REASON_SHED,
	/* counted beside one of the director's reasons: its queue has no socket */
	REASON_NO_SOCKET,
	REASON_COUNT,
};

#define LAST_DIRECTOR_REASON REASON_TUNNEL_ICMP

/* What an address is known for. In `dests` the four ROLE_{TCP,UDP}_* bits speak of services of a VIP, in
 * `sources` of NAT backends. PORTS: look the port up; ANY_PORT: no need to. */
enum role {
	ROLE_TCP_PORTS = 1,
	ROLE_UDP_PORTS = 2,
	ROLE_TCP_ANY_PORT = 4,
	ROLE_UDP_ANY_PORT = 8,
	ROLE_LOCAL = 16,
	/* Beside other roles of a VIP: a prefix that it lies in has services on ports, too. */
	ROLE_PREFIX = 32,
	/* In `sources`: a backend that tunnels lead to. */
	ROLE_TUNNEL = 64,
};

#define ROLE_MATCHED (ROLE_TCP_PORTS | ROLE_UDP_PORTS | ROLE_TCP_ANY_PORT | ROLE_UDP_ANY_PORT)

struct endpoint {
	struct address addr;
	__be16 port;
	__u8 proto;
	__u8 zero;
};

/* Two small maps by address come first, so that a frame that is no business of the director's
 * costs two lookups and one of a service two. The sizes are table.MaxServices, twice, because new rules
 * go in before old ones leave, and table.MaxBackends. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, enum role);
} dests SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct endpoint);
	__type(value, enum role);
} services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1048576);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, enum role);
} sources SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1048576);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct endpoint);
	__type(value, enum role);
} replies SEC(".maps");

/* VIPs by prefix: `prefixes` says what an address is known for that `dests` does not have, by the longest prefix,
 * whose roles include those of the prefixes around it. `prefix_services` has the services on ports; its key puts
 * protocol and port first, so that a longest match is one among the services of that port. */
struct prefix {
	__u32 bits;
	struct address addr;
};

struct prefix_endpoint {
	__u32 bits;
	__be16 port;
	__u8 proto;
	__u8 zero;
	struct address addr;
};

#define PREFIX_BITS 128
#define PREFIX_ENDPOINT_BITS (32 + PREFIX_BITS)

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix);
	__type(value, enum role);
} prefixes SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct prefix_endpoint);
	__type(value, enum role);
} prefix_services SEC(".maps");

/* How often the rules have changed. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} generation SEC(".maps");

/* What the rules said last of a service's address and port, in a few places that they are hashed to: most packets are
 * of few services, and need no look-up in the maps above then. A place is good while the rules are those it was filled by. Each
 * CPU has its own, and a program runs to its end there before another begins. */
#define RECENTS_BITS 4

struct recent {
	struct endpoint dst;
	__u32 generation;
	__u32 reason;
};

struct recents {
	struct recent of[1 << RECENTS_BITS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct recents);
} recents SEC(".maps");

/* AF_XDP sockets of this interface, by queue. */
struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, __u32);
} sockets SEC(".maps");

/* What the program and the worker of a queue tell each other. The worker has it mapped, so that neither side makes
 * a call for it. A cache line each: queues are received on different cores. The program's numbers turn over. It adds to
 * them without a lock, because a queue is received on one core at a time; a frame that another core counts at
 * the same moment (a generic program with RPS) may be missed, which does not matter. */
struct meter {
	__u32 shed;    /* of 256 packets that would open a flow, so many are dropped; the worker's */
	__u32 frames;  /* that the queue has brought */
	__u32 opening; /* of these, such that would open a flow */
	__u32 zero[13];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 256);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct meter);
} meters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, REASON_COUNT);
	__type(key, enum reason);
	__type(value, __u64);
} counters SEC(".maps");

/* This interface's MAC address, first byte highest; 0 accepts every unicast address. */
volatile __u64 own_mac = 0;

/* What the decision needs of a packet. */
struct packet {
	struct endpoint src;
	struct endpoint dst;
	/* Destination of the packet that an ICMP error quotes; zero when there is none to be read. */
	struct endpoint quoted;
	__u8 v6;
	__u8 fragment;
	__u8 proto;
	__u8 icmp_type;
	/* a TCP segment that a client opens a connection with */
	__u8 opening;
};

static __always_inline void count(__u32 reason)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &reason);

	if (n)
		(*n)++;
}

/* Frames that a switch flooded, or that a promiscuous interface let in, are for another host;
 * IPVS leaves them alone too (pkt_type != PACKET_HOST in ip_vs_in_hook). */
static __always_inline int is_for_this_host(const struct eth_header *eth)
{
	const __u8 *d = eth->dst;
	__u64 own = own_mac;

	if (d[0] & 1)
		return 0;
	return own == 0 || own == ((__u64)d[0] << 40 | (__u64)d[1] << 32 | (__u64)d[2] << 24 |
				   (__u64)d[3] << 16 | (__u64)d[4] << 8 | (__u64)d[5]);
}

/* Errors alone belong to a flow: v4 types 3, 4, 11 and 12 (RFC 792), v6 types below 128 (RFC 4443, 2.1). */
static __always_inline int is_icmp_error(const struct packet *p)
{
	if (p->v6)
		return p->icmp_type < 128;
	return p->icmp_type == 3 || p->icmp_type == 4 || p->icmp_type == 11 || p->icmp_type == 12;
}

/* Walks the extension headers that a client's packet has, the header of a first fragment among them, up to the ports. Returns
 * the protocol that the ports are of; 0 for a later fragment, which has none, and for what is more or is not all there. */
static __always_inline __u8 walk_quoted(struct cursor *c, __u8 proto)
{
	struct ipv6_extension *ext;

#pragma unroll
	for (int i = 0; i < MAX_QUOTED_EXTENSIONS; i++) {
		if (proto != PROTO_HOPOPTS && proto != PROTO_ROUTING && proto != PROTO_DSTOPTS && proto != PROTO_FRAGMENT)
			return proto;
		ext = peek(c, sizeof(*ext));
		if (!ext)
			return 0;
		c->offset += 8;
		if (proto != PROTO_FRAGMENT)
			c->offset += 8 * (__u32)ext->length;
		else if (*(__be16 *)&ext->routing_type & be16(0xfff8))
			return 0;
		proto = ext->next_header;
	}
	return proto;
}

/* Reads what an ICMP error at the cursor quotes. Only what has 8 bytes behind its headers says which flow it is of (RFC 792). */
static __always_inline void read_quote(struct cursor *at, struct packet *p, __s64 length)
{
	struct cursor c = *at;
	struct ipv4_header *ip4;
	struct ipv6_header *ip6;
	__be16 *ports;
	__u32 header;
	__u8 proto;

	c.offset += 8;
	if (p->v6) {
		ip6 = peek(&c, sizeof(*ip6));
		if (!ip6 || *(__u8 *)ip6 >> 4 != 6)
			return;
		address_from_ipv6(&p->quoted.addr, ip6->dst);
		if (is_ipv4_mapped(&p->quoted.addr))
			p->quoted.addr.word[2] = 0;
		c.offset += sizeof(*ip6);
		proto = walk_quoted(&c, ip6->next_header);
	} else {
		ip4 = peek(&c, sizeof(*ip4));
		if (!ip4 || ip4->version_ihl >> 4 != 4 || (ip4->fragment & IPV4_OFFSET))
			return;
		address_from_ipv4(&p->quoted.addr, ip4->dst);
		proto = ip4->proto;
		header = (ip4->version_ihl & 0xf) * 4;
		if (header < sizeof(*ip4))
			return;
		c.offset += header;
	}
	ports = peek(&c, 8);
	if (!ports || length < (__s64)c.offset - at->offset + 8)
		return;
	p->quoted.port = ports[1];
	p->quoted.proto = proto;
}

/* Reads ports or the ICMP type. length is what the IP header leaves to the upper layer.
 * A packet that ends within its upper header is malformed: returns 0. */
static __always_inline int read_upper(struct cursor *c, struct packet *p, __s64 length)
{
	int icmp = p->proto == (p->v6 ? PROTO_ICMPV6 : PROTO_ICMP);
	__u8 *icmp_type, *tcp;
	__be16 *ports;

	if (icmp) {
		icmp_type = peek(c, 8);
		if (!icmp_type || length < 8)
			return 0;
		p->icmp_type = *icmp_type;
		if (is_icmp_error(p))
			read_quote(c, p, length);
		return 1;
	}
	if (p->proto != PROTO_TCP && p->proto != PROTO_UDP)
		return 1;
	ports = peek(c, 8);
	if (!ports || length < (p->proto == PROTO_TCP ? 20 : 8))
		return 0;
	p->src.port = ports[0];
	p->dst.port = ports[1];
	if (p->proto == PROTO_TCP) {
		tcp = peek(c, 20);
		p->opening = tcp && (tcp[13] & (TCP_SYN | TCP_ACK | TCP_RST)) == TCP_SYN;
	}
	return 1;
}

/* Returns REASON_COUNT when the packet was read and is to be decided on. */
static __always_inline enum reason read_ipv4(struct cursor *c, struct packet *p)
{
	struct ipv4_header *ip = peek(c, sizeof(*ip));
	__u32 header, total;

	if (!ip)
		return REASON_PASS_MALFORMED;
	header = (ip->version_ihl & 0xf) * 4;
	total = be16(ip->total_length);
	if (ip->version_ihl >> 4 != 4 || header < sizeof(*ip) || total < header || !holds(c, total))
		return REASON_PASS_MALFORMED;
	address_from_ipv4(&p->src.addr, ip->src);
	address_from_ipv4(&p->dst.addr, ip->dst);
	p->proto = ip->proto;
	p->fragment = (ip->fragment & IPV4_MF_OR_OFFSET) != 0;
	c->offset += header;
	if (!p->fragment && !read_upper(c, p, (__s64)total - header))
		return REASON_PASS_MALFORMED;
	return REASON_COUNT;
}

/* Walks the extension headers up to the first that is none, or to a fragment header, behind which a later
 * fragment has nothing to read (RFC 8200, 4.5). p->proto is what the walk ended at. */
static __always_inline enum reason walk_extensions(struct cursor *c, struct packet *p)
{
	struct ipv6_extension *ext;

#pragma unroll
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		if (p->proto != PROTO_HOPOPTS && p->proto != PROTO_ROUTING &&
		    p->proto != PROTO_DSTOPTS && p->proto != PROTO_FRAGMENT)
			return REASON_COUNT;
		ext = peek(c, sizeof(*ext));
		if (!ext)
			return REASON_PASS_MALFORMED;
		if (p->proto == PROTO_FRAGMENT) {
			p->fragment = 1;
			p->proto = ext->next_header;
			c->offset += sizeof(*ext);
			return REASON_COUNT;
		}
		/* With segments left, this address is a hop on the way, and forwarding is the kernel's. */
		if (p->proto == PROTO_ROUTING && ext->segments_left)
			return REASON_PASS_EXTENSION;
		p->proto = ext->next_header;
		c->offset += 8 + 8 * (__u32)ext->length;
	}
	if (p->proto == PROTO_HOPOPTS || p->proto == PROTO_ROUTING || p->proto == PROTO_DSTOPTS ||
	    p->proto == PROTO_FRAGMENT)
		return REASON_PASS_EXTENSION;
	return REASON_COUNT;
}

static __always_inline enum reason read_ipv6(struct cursor *c, struct packet *p)
{
	struct ipv6_header *ip = peek(c, sizeof(*ip));
	enum reason reason;
	__u32 end;

	if (!ip || *(__u8 *)ip >> 4 != 6)
		return REASON_PASS_MALFORMED;
	p->v6 = 1;
	address_from_ipv6(&p->src.addr, ip->src);
	address_from_ipv6(&p->dst.addr, ip->dst);
	p->proto = ip->next_header;
	c->offset += sizeof(*ip);
	end = c->offset + be16(ip->payload_length);
	if (!holds(c, be16(ip->payload_length)) || is_ipv4_mapped(&p->src.addr) || is_ipv4_mapped(&p->dst.addr))
		return REASON_PASS_MALFORMED;
	reason = walk_extensions(c, p);
	if (reason != REASON_COUNT)
		return reason;
	if (c->offset > end)
		return REASON_PASS_MALFORMED;
	if (!p->fragment && !read_upper(c, p, (__s64)end - c->offset))
		return REASON_PASS_MALFORMED;
	return REASON_COUNT;
}

static __always_inline __u32 ports_role(__u8 proto)
{
	return proto == PROTO_TCP ? ROLE_TCP_PORTS : proto == PROTO_UDP ? ROLE_UDP_PORTS : 0;
}

static __always_inline __u32 any_port_role(__u8 proto)
{
	return proto == PROTO_TCP ? ROLE_TCP_ANY_PORT : proto == PROTO_UDP ? ROLE_UDP_ANY_PORT : 0;
}

static __always_inline int is_icmp(const struct packet *p)
{
	return p->proto == (p->v6 ? PROTO_ICMPV6 : PROTO_ICMP);
}

/* A fragment goes to the director when its protocol is one that the address has rules for. The director
 * must see all fragments of a datagram; where an extension header hides the protocol of the later ones,
 * the roles cannot tell, so all of them go there. */
static __always_inline int fragment_matches(const struct packet *p, __u32 roles)
{
	if (roles & (ports_role(p->proto) | any_port_role(p->proto)))
		return 1;
	return p->v6 && (p->proto == PROTO_HOPOPTS || p->proto == PROTO_ROUTING || p->proto == PROTO_DSTOPTS);
}

/* Neighbour discovery (RFC 4861) and multicast listener discovery (RFC 2710, RFC 3810): whoever answers for
 * the VIP does so over the kernel. */
static __always_inline int is_control(const struct packet *p)
{
	return p->v6 && ((p->icmp_type >= 130 && p->icmp_type <= 137) || p->icmp_type == 143);
}

static __always_inline int is_prefix_service(const struct packet *p)
{
	struct prefix_endpoint key = {
		.bits = PREFIX_ENDPOINT_BITS,
		.port = p->dst.port,
		.proto = p->proto,
		.addr = p->dst.addr,
	};

	return bpf_map_lookup_elem(&prefix_services, &key) != 0;
}

static __always_inline enum reason decide_for_vip(struct packet *p, __u32 roles)
{
	if (p->fragment)
		return is_icmp(p) || fragment_matches(p, roles) ? REASON_FRAGMENT : REASON_PASS_VIP_OTHER;
	if (is_icmp(p))
		return is_control(p) ? REASON_PASS_CONTROL : REASON_ICMP;
	if ((roles & ports_role(p->proto)) && bpf_map_lookup_elem(&services, &p->dst))
		return REASON_SERVICE;
	if ((roles & ROLE_PREFIX) && (roles & ports_role(p->proto)) && is_prefix_service(p))
		return REASON_SERVICE;
	return roles & any_port_role(p->proto) ? REASON_SERVICE_ANY_PORT : REASON_PASS_VIP_OTHER;
}

/* An error about what a client sent to a NAT backend goes to the client, from the backend or from a router before it. What else
 * they send errors about is none of the director's. */
static __always_inline enum reason decide_for_error(const struct packet *p)
{
	__u8 proto = p->quoted.proto;
	__u32 *roles;

	if (proto != PROTO_TCP && proto != PROTO_UDP)
		return REASON_PASS_OTHER;
	roles = bpf_map_lookup_elem(&sources, &p->quoted.addr);
	if (!roles)
		return REASON_PASS_OTHER;
	if (*roles & any_port_role(proto))
		return REASON_REPLY_ICMP;
	if ((*roles & ports_role(proto)) && bpf_map_lookup_elem(&replies, &p->quoted))
		return REASON_REPLY_ICMP;
	return REASON_PASS_OTHER;
}

static __always_inline enum reason decide_for_backend(struct packet *p, __u32 roles)
{
	if (p->fragment)
		return fragment_matches(p, roles) ? REASON_REPLY_FRAGMENT : REASON_PASS_OTHER;
	if (is_icmp(p))
		return decide_for_error(p);
	if (roles & any_port_role(p->proto))
		return REASON_REPLY;
	p->src.proto = p->proto;
	if ((roles & ports_role(p->proto)) && bpf_map_lookup_elem(&replies, &p->src))
		return REASON_REPLY;
	return REASON_PASS_OTHER;
}

/* An error for one of the director's own addresses is the director's if it is about a tunnel to a backend. */
static __always_inline enum reason decide_for_local(const struct packet *p)
{
	__u32 *roles;

	switch (p->quoted.proto) {
	case PROTO_IPIP:
	case PROTO_IPV6:
	case PROTO_GRE:
	case PROTO_UDP: /* GUE */
		roles = bpf_map_lookup_elem(&sources, &p->quoted.addr);
		if (roles && (*roles & ROLE_TUNNEL))
			return REASON_TUNNEL_ICMP;
	}
	return REASON_PASS_LOCAL;
}

/* Can the director forward a reply to this address? Not to multicast, broadcast (255.255.255.255; a subnet's
 * is one of the locals), loopback, link-local or the unspecified address. */
static __always_inline int is_routable(const struct packet *p)
{
	const struct address *a = &p->dst.addr;
	__u32 first = be32(p->v6 ? a->word[0] : a->word[3]);

	if (!p->v6)
		return first >> 24 != 0 && first >> 24 != 127 && first >> 28 < 14 && first >> 16 != 0xa9fe;
	if (first >> 24 == 0xff || first >> 22 == 0xfe80 >> 6)
		return 0;
	return a->word[0] || a->word[1] || a->word[2] || be32(a->word[3]) > 1;
}

static __always_inline enum reason ask_rules(struct packet *p)
{
	struct prefix vip = { .bits = PREFIX_BITS };
	__u32 *roles = bpf_map_lookup_elem(&dests, &p->dst.addr);

	if (roles && (*roles & ROLE_MATCHED))
		return decide_for_vip(p, *roles);
	if (roles)
		return decide_for_local(p);
	vip.addr = p->dst.addr;
	roles = bpf_map_lookup_elem(&prefixes, &vip);
	if (roles)
		return decide_for_vip(p, *roles);
	roles = bpf_map_lookup_elem(&sources, &p->src.addr);
	if (!is_routable(p))
		return REASON_PASS_OTHER;
	if (roles && (*roles & ROLE_MATCHED))
		return decide_for_backend(p, *roles);
	return decide_for_error(p);
}

/* Where it would be kept what the rules say of dst. */
static __always_inline struct recent *recent_place(const struct endpoint *dst)
{
	__u32 key = 0;
	struct recents *r = bpf_map_lookup_elem(&recents, &key);

	if (!r)
		return 0;
	key = (dst->addr.word[3] ^ dst->addr.word[1] ^ dst->port) * 0x9e3779b1;
	return &r->of[key >> (32 - RECENTS_BITS)];
}

static __always_inline int same_endpoint(const struct endpoint *a, const struct endpoint *b)
{
	return a->addr.word[0] == b->addr.word[0] && a->addr.word[1] == b->addr.word[1] &&
	       a->addr.word[2] == b->addr.word[2] && a->addr.word[3] == b->addr.word[3] &&
	       a->port == b->port && a->proto == b->proto;
}

/* Whether a packet is a service's depends on nothing but where it goes, so that can be remembered. */
static __always_inline enum reason decide_packet(struct packet *p)
{
	struct recent *place;
	enum reason reason;
	__u32 *now, then, key = 0;

	if (p->fragment || (p->proto != PROTO_TCP && p->proto != PROTO_UDP))
		return ask_rules(p);
	p->dst.proto = p->proto;
	place = recent_place(&p->dst);
	now = bpf_map_lookup_elem(&generation, &key);
	if (!place || !now)
		return ask_rules(p);
	/* Before the rules are asked: if they change meanwhile, the answer counts as one of the old. */
	then = *(volatile __u32 *)now;
	if (place->generation == then && same_endpoint(&place->dst, &p->dst))
		return place->reason;
	reason = ask_rules(p);
	if (reason == REASON_SERVICE || reason == REASON_SERVICE_ANY_PORT) {
		place->dst = p->dst;
		place->generation = then;
		place->reason = reason;
	}
	return reason;
}

static __always_inline enum reason decide(struct cursor *c, struct packet *p)
{
	struct eth_header *eth = 0;
	enum reason reason;
	__be16 type;

	type = read_ethernet(c, &eth);
	if (!eth || type == 0)
		return REASON_PASS_NOT_IP;
	if (!is_for_this_host(eth))
		return REASON_PASS_L2;
	if (type == be16(ETH_P_IP))
		reason = read_ipv4(c, p);
	else if (type == be16(ETH_P_IPV6))
		reason = read_ipv6(c, p);
	else
		return REASON_PASS_NOT_IP;
	if (reason != REASON_COUNT)
		return reason;
	/* The compiler would read the ports late, where the verifier no longer knows that the frame reaches so far. */
	asm volatile("" ::: "memory");
	return decide_packet(p);
}

/* Does the worker of this queue want a packet that opens a flow dropped? Established flows come first: what they need of
 * a worker that cannot keep up, new ones must not take. Chance decides, so that a client whose SYN
 * was dropped has another chance with the next. */
static __always_inline int is_shed(const struct packet *p, enum reason reason, struct meter *meter)
{
	if (!p->opening || (reason != REASON_SERVICE && reason != REASON_SERVICE_ANY_PORT))
		return 0;
	meter->opening++;
	return (bpf_get_prandom_u32() & 0xff) < *(volatile __u32 *)&meter->shed;
}

SEC("xdp")
int steer(struct xdp_md *ctx)
{
	struct cursor c = {
		.data = (void *)(long)ctx->data,
		.data_end = (void *)(long)ctx->data_end,
	};
	struct packet p = {};
	enum reason reason = decide(&c, &p);
	__u32 queue = ctx->rx_queue_index;
	struct meter *meter = bpf_map_lookup_elem(&meters, &queue);
	int action;

	if (meter) {
		meter->frames++;
		if (is_shed(&p, reason, meter))
			reason = REASON_SHED;
	}
	count(reason);
	if (reason == REASON_SHED)
		return XDP_DROP;
	if (reason > LAST_DIRECTOR_REASON)
		return XDP_PASS;
	/* XDP_PASS in the flags is what the helper returns for a queue without a socket. */
	action = bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
	if (action != XDP_REDIRECT)
		count(REASON_NO_SOCKET);
	return action;
}

char _license[] SEC("license") = "GPL";
