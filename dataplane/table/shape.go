package table

import (
	"fmt"
	"slices"

	"xlvs/dataplane/packet"
)

// MaxPrefixBits is how many bits the addresses of one service may differ in: flow entries keep 16 for it, so that
// a service has at most 65,536 addresses.
const MaxPrefixBits = 16

// MaskBits returns the mask whose first n bits of 128 are set. For an IPv4 prefix of length l, n is 96+l.
func MaskBits(n int) packet.Addr {
	var b [16]byte
	for i := range b {
		b[i] = byte(uint(0xff00) >> min(max(n-8*i, 0), 8))
	}
	return packet.Addr16(b[:])
}

// Offset tells the addresses of a service apart: 0 for its only one. What it returns has a meaning for At alone.
func (v *Service) Offset(dst packet.Addr) uint16 { return uint16((dst.B ^ v.Addr.B) >> 48) }

// At returns the address with an offset.
func (v *Service) At(offset uint16) packet.Addr {
	return packet.Addr{A: v.Addr.A, B: v.Addr.B ^ uint64(offset)<<48}
}

// Masked returns what of a client's address the service goes by.
func (v *Service) Masked(client packet.Addr) packet.Addr { return client.And(v.Mask) }

func (v *Service) checkShape() error {
	if v.Bits != 0 && (v.Bits < 128-MaxPrefixBits || v.Bits > 128) {
		return fmt.Errorf("snapshot: service %s is on a prefix of %d bits; %d to 128 are possible", v.Name, v.Bits, 128-MaxPrefixBits)
	}
	if v.Bits != 0 && v.Addr.And(MaskBits(int(v.Bits))) != v.Addr {
		return fmt.Errorf("snapshot: service %s: %s is not the first address of its prefix", v.Name, v.Addr.Netip())
	}
	if v.Proto != packet.ProtoUDP && (v.OnePacket || v.QUIC != nil) {
		return fmt.Errorf("snapshot: service %s: one-packet scheduling and QUIC are for UDP", v.Name)
	}
	if v.OnePacket && v.Mode == NAT {
		return fmt.Errorf("snapshot: service %s: without flows the replies of NAT find no way back", v.Name)
	}
	return nil
}

// prefixes are the services whose prefixes have one length.
type prefixes struct {
	bits     uint8
	mask     packet.Addr
	services index // by first address, port, protocol
	vips     index // by first address
}

// makeLevels makes an empty index for each length that occurs, the longest first.
func (s *Snapshot) makeLevels() {
	count := map[uint8]int{}
	for i := range s.Services {
		if v := &s.Services[i]; v.Live && v.Bits != 0 {
			count[v.Bits]++
		}
	}
	for bits, n := range count {
		s.prefixes = append(s.prefixes, prefixes{bits, MaskBits(int(bits)), newIndex(n), newIndex(n)})
	}
	slices.SortFunc(s.prefixes, func(a, b prefixes) int { return int(b.bits) - int(a.bits) })
}

func (s *Snapshot) level(bits uint8) *prefixes {
	for i := range s.prefixes {
		if s.prefixes[i].bits == bits {
			return &s.prefixes[i]
		}
	}
	return nil
}

func (s *Snapshot) lookupPrefix(dst packet.Addr, port uint16, proto uint8) int32 {
	for i := range s.prefixes {
		l := &s.prefixes[i]
		first := dst.And(l.mask)
		slot := l.services.get(first, cellKey(port, proto))
		if slot < 0 {
			slot = l.services.get(first, cellKey(0, proto))
		}
		if slot >= 0 {
			return slot
		}
	}
	return -1
}

// Encap is how TUN puts a packet into another.
type Encap uint8

// The encapsulations.
const (
	IPIP Encap = iota // nothing between the IP headers (RFC 2003, RFC 2473, RFC 4213)
	GUE               // a UDP and a GUE header of variant 0 (draft-ietf-intarea-gue)
	GRE               // a GRE header without key and sequence number (RFC 2784)
)

func (e Encap) String() string { return [...]string{"ipip", "gue", "gre"}[e] }

// Lengths of what GUE and GRE put before the inner packet.
const (
	GUELen    = 4
	GRELen    = 4
	GRESumLen = 4 // more, with a checksum
)

// Overhead returns how many bytes TUN adds to a packet for this backend.
func (b *Backend) Overhead() int {
	n := packet.IPv4Len
	if b.V6 {
		n = packet.IPv6Len
	}
	switch b.Encap {
	case GUE:
		n += packet.UDPLen + GUELen
	case GRE:
		n += GRELen
		if b.EncapSum {
			n += GRESumLen
		}
	}
	return n
}
