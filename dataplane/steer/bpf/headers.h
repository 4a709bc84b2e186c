/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */

/* Wire formats, and reading them out of a frame. Frames are not aligned beyond two bytes, which
 * the BPF back end and the kernel's interpreters allow for. */
#pragma once

#include "kernel.h"

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define ETH_P_8021Q 0x8100
#define ETH_P_8021AD 0x88a8

#define PROTO_HOPOPTS 0
#define PROTO_ICMP 1
#define PROTO_IPIP 4
#define PROTO_TCP 6
#define PROTO_UDP 17
#define PROTO_IPV6 41
#define PROTO_ROUTING 43
#define PROTO_FRAGMENT 44
#define PROTO_GRE 47
#define PROTO_ICMPV6 58
#define PROTO_DSTOPTS 60

/* Flags of the TCP header's byte 13. */
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

/* Extension headers that are walked before giving the packet up to the kernel. */
#define MAX_EXTENSIONS 6
/* And of those that a packet has which an ICMP error quotes. */
#define MAX_QUOTED_EXTENSIONS 3

struct eth_header {
	__u8 dst[6];
	__u8 src[6];
	__be16 type;
};

struct vlan_tag {
	__be16 tci;
	__be16 type;
};

struct ipv4_header {
	__u8 version_ihl;
	__u8 tos;
	__be16 total_length;
	__be16 id;
	__be16 fragment; /* reserved, DF, MF, 13 bits of offset */
	__u8 ttl;
	__u8 proto;
	__u16 checksum;
	__be32 src;
	__be32 dst;
};

#define IPV4_MF_OR_OFFSET be16(0x3fff)
#define IPV4_OFFSET be16(0x1fff)

struct ipv6_header {
	__be32 version_class_label;
	__be16 payload_length;
	__u8 next_header;
	__u8 hop_limit;
	__be32 src[4];
	__be32 dst[4];
};

/* The first 8 bytes that hop-by-hop, routing and destination options headers share (RFC 8200, 4.3-4.6). */
struct ipv6_extension {
	__u8 next_header;
	__u8 length; /* in units of 8 bytes, the first 8 not counted */
	__u8 routing_type;
	__u8 segments_left;
	__u8 rest[4];
};

/* An address in 16 bytes: IPv4 as ::ffff:a.b.c.d, so that one map serves both families. */
struct address {
	__be32 word[4];
};

static __always_inline void address_from_ipv4(struct address *a, __be32 v4)
{
	a->word[0] = 0;
	a->word[1] = 0;
	a->word[2] = be32(0xffff);
	a->word[3] = v4;
}

static __always_inline void address_from_ipv6(struct address *a, const __be32 *v6)
{
	a->word[0] = v6[0];
	a->word[1] = v6[1];
	a->word[2] = v6[2];
	a->word[3] = v6[3];
}

/* On the wire an IPv4-mapped address is a forgery (RFC 4942, 2.2), and would match IPv4 rules. */
static __always_inline int is_ipv4_mapped(const struct address *a)
{
	return a->word[0] == 0 && a->word[1] == 0 && a->word[2] == be32(0xffff);
}

/* A frame, and how far it has been read. */
struct cursor {
	void *data;
	void *data_end;
	__u32 offset;
};

/* Offsets stay below this; it is larger than any frame that XDP sees, and lets the verifier bound the sums. */
#define MAX_OFFSET 0x3fff

/* Returns size readable bytes at the cursor, or NULL when the frame ends before. Does not advance. */
static __always_inline void *peek(struct cursor *c, __u32 size)
{
	__u32 offset = c->offset;
	void *p;

	if (offset > MAX_OFFSET)
		return 0;
	p = c->data + offset;
	if (p + size > c->data_end)
		return 0;
	return p;
}

/* Does the frame go on for length bytes from the cursor? */
static __always_inline int holds(const struct cursor *c, __u32 length)
{
	__u32 offset = c->offset;

	if (offset > MAX_OFFSET || length > 0xffff)
		return 0;
	/* The compiler drops a comparison that a 16-bit length cannot fail. Verifiers before Linux 6.18 forget the
	 * bounds of a number whose bytes are swapped, and refuse the sum. */
	asm volatile("%0 &= 0xffff" : "+r"(length));
	return c->data + offset + length <= c->data_end;
}

/* Reads the Ethernet header and up to two VLAN tags, 802.1Q or 802.1ad (QinQ). Returns the network-order
 * EtherType of what follows; 0, which is no EtherType, when the frame ends before. */
static __always_inline __be16 read_ethernet(struct cursor *c, struct eth_header **header)
{
	struct eth_header *eth = peek(c, sizeof(*eth));
	struct vlan_tag *tag;
	__be16 type;

	if (!eth)
		return 0;
	*header = eth;
	c->offset += sizeof(*eth);
	type = eth->type;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		if (type != be16(ETH_P_8021Q) && type != be16(ETH_P_8021AD))
			return type;
		tag = peek(c, sizeof(*tag));
		if (!tag)
			return 0;
		c->offset += sizeof(*tag);
		type = tag->type;
	}
	return type;
}
