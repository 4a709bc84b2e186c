package rewrite

import (
	"encoding/binary"
	"math/bits"

	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// TunOverhead returns how many bytes the outer headers to be take.
func TunOverhead(be *table.Backend) int { return be.Overhead() }

// TUN wraps the packet for the backend in an outer IPv4 (RFC 2003, RFC 4213) or IPv6 header (RFC 2473), with what the
// backend's encapsulation puts between. chunk is the frame's whole chunk, off where the frame starts in it: the outer
// headers go into the headroom, which must hold TunOverhead bytes. It returns where the frame starts and how long it is
// now, any padding cut off. hash gives IPv6 its flow label, IPv4 its identification and GUE its source port.
//
//	before                | eth [tag] | inner IP | …
//	after | eth [tag] | outer IP | [UDP GUE or GRE] | inner IP | …
func TUN(chunk []byte, off int, p *packet.Packet, be *table.Backend, hash uint64) (start, length int) {
	if p.L3 == packet.EthLen && !p.V6 && !be.V6 && be.Encap == table.IPIP && !p.Unfinished && p.Kind != packet.KindFragment {
		return tun44(chunk, off, p, be, hash)
	}
	b := chunk[off:]
	decTTL(b, p)
	if p.Unfinished {
		p.Finish(b, p.Src, p.Dst)
	}
	over := TunOverhead(be)
	start, l3 := off-over, int(p.L3)
	out := chunk[start:]
	// Only bytes 12 to L3-2 of the old Ethernet header are needed: VLAN tags, which move down.
	if l3 > packet.EthLen {
		copy(out[12:l3], b[12:l3])
	}
	*(*[12]byte)(out) = be.Eth
	inner := int(p.End) - l3
	proto := uint8(packet.ProtoIPIP)
	if p.V6 {
		proto = packet.ProtoIPv6
	}
	if be.Encap != table.IPIP {
		shim := over - packet.IPv4Len
		if be.V6 {
			shim = over - packet.IPv6Len
		}
		inner += shim
		proto = encapsulate(out[l3+over-shim:l3+over-shim+inner], be, proto, hash)
	}
	if be.V6 {
		binary.BigEndian.PutUint16(out[l3-2:], packet.EtherIPv6)
		outer6(out[l3:l3+packet.IPv6Len], b[l3:], p, be, inner, proto, hash)
		return start, l3 + packet.IPv6Len + inner
	}
	binary.BigEndian.PutUint16(out[l3-2:], packet.EtherIPv4)
	outer4(out[l3:l3+packet.IPv4Len], b[l3:], p, be, inner, proto, hash)
	return start, l3 + packet.IPv4Len + inner
}

// tun44 is TUN for the plainest case, IPv4 in IPv4, in a straight line. The inner packet is no fragment.
func tun44(chunk []byte, off int, p *packet.Packet, be *table.Backend, hash uint64) (start, length int) {
	in := chunk[off+packet.EthLen : off+packet.EthLen+packet.IPv4Len]
	out := chunk[off-packet.IPv4Len : off+packet.EthLen]
	decTTL4(in)
	n := int(p.End) - packet.EthLen + packet.IPv4Len
	inner := binary.LittleEndian.Uint64(in)
	id := uint64(bits.ReverseBytes16(uint16(hash))) << 32
	first := 0x45 | inner&(0xff<<8|0xffff<<32|0x40<<48) ^ id | uint64(bits.ReverseBytes16(uint16(n)))<<16
	second := uint64(in[8]) | packet.ProtoIPIP<<8
	src, dst := uint64(be.TunSrc.V4()), uint64(be.Addr.V4())
	second |= uint64(^packet.Fold(first>>32+first&0xffffffff+second+src+dst))<<16 | src<<32
	*(*[12]byte)(out) = be.Eth
	binary.LittleEndian.PutUint16(out[12:], 0x0008) // EtherIPv4
	binary.LittleEndian.PutUint64(out[14:], first)
	binary.LittleEndian.PutUint64(out[22:], second)
	binary.LittleEndian.PutUint32(out[30:], uint32(dst))
	return off - packet.IPv4Len, packet.EthLen + n
}

// innerTOS returns the inner packet's DSCP and ECN, which the outer header copies (RFC 2983 uniform model,
// RFC 6040 normal mode), and its TTL.
func innerTOS(in []byte, p *packet.Packet) (tos, ttl uint8) {
	if p.V6 {
		return uint8(binary.BigEndian.Uint16(in) >> 4), in[7]
	}
	return in[1], in[8]
}

// outer4 writes the outer IPv4 header h for n bytes of protocol next; in is the inner packet. DF is as the inner packet has it, and
// off over IPv6 (RFC 4213, 3.2). The identification matters only where the packet may be fragmented (RFC 6864). It is the
// flow's hash, mixed with the inner packet's own, so that it is as unique as that one, and with the inner offset, so that
// fragments of one packet have different ones; where the inner packet is IPv6, with what differs from packet to packet there.
func outer4(h, in []byte, p *packet.Packet, be *table.Backend, n int, next uint8, hash uint64) {
	tos, ttl := innerTOS(in, p)
	id, frag := uint64(bits.ReverseBytes16(uint16(hash))), uint64(0)
	if !p.V6 {
		id ^= uint64(binary.LittleEndian.Uint16(in[4:])) ^ uint64(binary.LittleEndian.Uint16(in[6:])&offsetBits)
		frag = uint64(in[6] & 0x40)
	} else {
		id ^= uint64(varying(in, p))
	}
	// The header as two little-endian words and the destination.
	first := 0x45 | uint64(tos)<<8 | uint64(bits.ReverseBytes16(uint16(packet.IPv4Len+n)))<<16 | id<<32 | frag<<48
	second := uint64(ttl) | uint64(next)<<8
	src, dst := uint64(be.TunSrc.V4()), uint64(be.Addr.V4())
	sum := first>>32 + first&0xffffffff + second + src + dst
	second |= uint64(^packet.Fold(sum))<<16 | src<<32
	binary.LittleEndian.PutUint64(h, first)
	binary.LittleEndian.PutUint64(h[8:], second)
	binary.LittleEndian.PutUint32(h[16:], uint32(dst))
}

// varying returns 16 bits in which IPv6 packet in differs from others of its flow: of its checksum, which all of the packet
// went into, so that packets with the same ones are mostly the same packet; of a fragment's identification and offset.
func varying(in []byte, p *packet.Packet) uint16 {
	l4 := int(p.L4) - int(p.L3)
	switch p.Kind {
	case packet.KindTCP:
		return binary.LittleEndian.Uint16(in[l4+16:])
	case packet.KindUDP:
		return binary.LittleEndian.Uint16(in[l4+6:])
	case packet.KindICMP:
		return binary.LittleEndian.Uint16(in[l4+2:])
	case packet.KindFragment:
		return binary.LittleEndian.Uint16(in[l4-2:]) ^ binary.LittleEndian.Uint16(in[l4-6:])
	}
	return 0
}

const offsetBits = 0xff1f // of IPv4's fragment field, loaded little-endian

// outer6 writes the outer IPv6 header h for n bytes of protocol next (RFC 2473; flow label as in RFC 6438).
func outer6(h, in []byte, p *packet.Packet, be *table.Backend, n int, next uint8, hash uint64) {
	tos, ttl := innerTOS(in, p)
	binary.BigEndian.PutUint32(h, 6<<28|uint32(tos)<<20|uint32(hash>>20)&0xfffff)
	binary.BigEndian.PutUint16(h[4:], uint16(n))
	h[6], h[7] = next, ttl
	be.TunSrc.Put16(h[8:])
	be.Addr.Put16(h[24:])
}
