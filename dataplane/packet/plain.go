package packet

import (
	"encoding/binary"
	"math/bits"
)

// Parse is the function of the same name, and returns the hash of the flow that p belongs to; of
// neither TCP nor UDP the hash means nothing. Plain TCP and UDP over IPv4, without options, tags or
// fragments, is read in a straight line here; all else goes the slower way.
func (h *Hasher) Parse(b []byte, p *Packet) uint64 {
	if len(b) < EthLen+IPv4Len+TCPLen {
		return h.parseShort(b, p)
	}
	b = b[:len(b):len(b)]
	first := binary.LittleEndian.Uint64(b[12:])  // type, version, header length, TOS, total length, identification
	second := binary.LittleEndian.Uint32(b[20:]) // flags and fragment offset, TTL, protocol
	n := int(bits.ReverseBytes16(uint16(first >> 32)))
	if uint32(first)&0xffffff != plain4 || second&fragmented != 0 || EthLen+n > len(b) {
		return h.parseOther(b, p)
	}
	addrs := binary.LittleEndian.Uint64(b[26:])
	sum := addrs>>32 + addrs&0xffffffff
	proto := second >> 24
	switch proto {
	case ProtoTCP:
		if off := int(b[46]>>4) * 4; off < TCPLen || IPv4Len+off > n {
			p.Kind = KindMalformed
			return 0
		}
		p.Kind, p.TCPFlags = KindTCP, b[47]
		p.Unfinished = unfinished(binary.LittleEndian.Uint16(b[50:]), sum+ProtoTCP<<8+uint64(bits.ReverseBytes16(uint16(n-IPv4Len))))
	case ProtoUDP:
		l := binary.LittleEndian.Uint16(b[38:])
		if l := int(bits.ReverseBytes16(l)); l < UDPLen || IPv4Len+l > n {
			p.Kind = KindMalformed
			return 0
		}
		p.Kind, p.TCPFlags = KindUDP, 0
		p.Unfinished = unfinished(binary.LittleEndian.Uint16(b[40:]), sum+ProtoUDP<<8+uint64(l))
	default:
		return h.parseOther(b, p)
	}
	ports := binary.LittleEndian.Uint32(b[34:])
	p.Src = Addr{0, v4Prefix | addrs<<32}
	p.Dst = Addr{0, v4Prefix | addrs&^0xffffffff}
	p.Ports = Ports(ports)
	p.L3, p.L4, p.End = EthLen, EthLen+IPv4Len, uint16(EthLen+n)
	p.Proto, p.TTL, p.V6, p.Plain = uint8(proto), uint8(second>>16), false, !p.Unfinished
	return h.four(addrs, uint64(ports)|uint64(proto)<<32)
}

const (
	plain4     = 0x450008 // bytes 12 to 14 of a frame, loaded little-endian: IPv4, a header of 20 bytes
	fragmented = 0xff3f   // MF and the fragment offset, loaded little-endian
)

// plain6 is Parse for plain TCP and UDP over IPv6. It returns false, and has left p alone, for all else.
func (h *Hasher) plain6(b []byte, p *Packet) (hash uint64, ok bool) {
	if len(b) < EthLen+IPv6Len+TCPLen {
		return 0, false
	}
	b = b[:len(b):len(b)]
	first := binary.LittleEndian.Uint64(b[14:]) // version, class, flow label, payload length, next header, hop limit
	src, dst := Addr16(b[22:]), Addr16(b[38:])
	n := int(bits.ReverseBytes16(uint16(first >> 32)))
	if first&0xf0 != 0x60 || EthLen+IPv6Len+n > len(b) || src.Is4() || dst.Is4() {
		return 0, false
	}
	sum, c := bits.Add64(src.A, src.B, 0)
	sum, c = bits.Add64(sum, dst.A, c)
	sum, c = bits.Add64(sum, dst.B, c)
	proto := first >> 48 & 0xff
	var field uint16
	var flags uint8
	kind, l := KindTCP, n
	switch proto {
	case ProtoTCP:
		if off := int(b[66]>>4) * 4; off < TCPLen || off > n {
			return 0, false
		}
		field, flags = binary.LittleEndian.Uint16(b[70:]), b[67]
	case ProtoUDP:
		if l = int(binary.BigEndian.Uint16(b[58:])); l < UDPLen || l > n {
			return 0, false
		}
		field, kind = binary.LittleEndian.Uint16(b[60:]), KindUDP
	default:
		return 0, false
	}
	sum, c = bits.Add64(sum, proto<<8+uint64(bits.ReverseBytes16(uint16(l))), c)
	ports := binary.LittleEndian.Uint32(b[54:])
	p.Src, p.Dst, p.Ports = src, dst, Ports(ports)
	p.Kind, p.TCPFlags = kind, flags
	p.L3, p.L4, p.End = EthLen, EthLen+IPv6Len, uint16(EthLen+IPv6Len+n)
	p.Proto, p.TTL, p.V6 = uint8(proto), uint8(first>>56), true
	p.Unfinished = unfinished(field, sum+c)
	p.Plain = !p.Unfinished
	return h.six(src, dst, uint64(ports)|proto<<32), true
}
