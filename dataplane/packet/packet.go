// Package packet reads frames: it finds the headers, validates every length before it is
// used, and knows the Internet checksum. It never copies a frame and never allocates.
package packet

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
)

// Addr is an IPv6 address, or an IPv4 address as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2), as two
// little-endian loads of its 16 bytes. Two words stay in registers where an array of bytes would not.
type Addr struct{ A, B uint64 }

const v4Prefix = 0xffff0000 // bytes 8–11 of ::ffff:0:0/96, loaded little-endian

// FromNetip converts any valid address; a zone is lost.
func FromNetip(a netip.Addr) Addr {
	b := a.As16()
	return Addr16(b[:])
}

// Addr16 loads the 16 bytes of an IPv6 address.
func Addr16(b []byte) Addr {
	_ = b[15]
	return Addr{binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])}
}

// Addr4 makes an Addr of an IPv4 address given as the little-endian load of its four bytes.
func Addr4(le uint32) Addr { return Addr{0, v4Prefix | uint64(le)<<32} }

// Is4 reports whether a is an IPv4 address.
func (a Addr) Is4() bool { return a.A == 0 && uint32(a.B) == v4Prefix }

// V4 returns the IPv4 address's four bytes as a little-endian load.
func (a Addr) V4() uint32 { return uint32(a.B >> 32) }

// And keeps the bits of a that mask has.
func (a Addr) And(mask Addr) Addr { return Addr{a.A & mask.A, a.B & mask.B} }

// Put16 stores the 16 bytes of an IPv6 address.
func (a Addr) Put16(b []byte) {
	_ = b[15]
	binary.LittleEndian.PutUint64(b, a.A)
	binary.LittleEndian.PutUint64(b[8:], a.B)
}

// Put4 stores the four bytes of an IPv4 address.
func (a Addr) Put4(b []byte) { binary.LittleEndian.PutUint32(b, a.V4()) }

// Netip converts back; IPv4 comes out as IPv4.
func (a Addr) Netip() netip.Addr {
	var b [16]byte
	a.Put16(b[:])
	return netip.AddrFrom16(b).Unmap()
}

// Ports holds a TCP or UDP header's first four bytes as a little-endian load: the source
// port's two bytes, in wire order, below the destination port's.
type Ports uint32

// MakePorts builds Ports from two port numbers.
func MakePorts(src, dst uint16) Ports {
	return Ports(uint32(bits.ReverseBytes16(src)) | uint32(bits.ReverseBytes16(dst))<<16)
}

// Src and Dst return the port numbers.
func (p Ports) Src() uint16 { return bits.ReverseBytes16(uint16(p)) }

// Dst returns the destination port's number.
func (p Ports) Dst() uint16 { return bits.ReverseBytes16(uint16(p >> 16)) }

// Swap exchanges source and destination.
func (p Ports) Swap() Ports { return p<<16 | p>>16 }

// Offsets and numbers of the headers that a director meets.
//
//	Ethernet   0 dst(6)  6 src(6)  12 type(2)            IEEE 802.3; +4 for each 802.1Q tag
//	IPv4       0 ver/ihl  1 tos  2 len(2)  4 id(2)  6 flags/frag(2)  8 ttl  9 proto  10 csum(2)  12 src(4)  16 dst(4)   RFC 791
//	IPv6       0 ver/class/label(4)  4 payload len(2)  6 next  7 hop limit  8 src(16)  24 dst(16)                       RFC 8200
//	TCP        0 sport(2)  2 dport(2)  4 seq(4)  8 ack(4)  12 offset  13 flags  14 window(2)  16 csum(2)  18 urg(2)      RFC 9293
//	UDP        0 sport(2)  2 dport(2)  4 len(2)  6 csum(2)                                                              RFC 768
const (
	EthLen   = 14
	VLANLen  = 4
	IPv4Len  = 20
	IPv6Len  = 40
	TCPLen   = 20
	UDPLen   = 8
	ICMPLen  = 8
	MaxL2Len = EthLen + 2*VLANLen // with an 802.1ad and an 802.1Q tag

	EtherIPv4 = 0x0800
	EtherIPv6 = 0x86dd
	EtherVLAN = 0x8100
	EtherQinQ = 0x88a8

	ProtoHopByHop = 0
	ProtoICMP     = 1
	ProtoIPIP     = 4
	ProtoTCP      = 6
	ProtoUDP      = 17
	ProtoIPv6     = 41
	ProtoRouting  = 43
	ProtoFragment = 44
	ProtoICMPv6   = 58
	ProtoDstOpts  = 60

	FlagFIN = 0x01
	FlagSYN = 0x02
	FlagRST = 0x04
	FlagACK = 0x10

	tcpCsumOff = 16
	udpCsumOff = 6
)

// Kind says what Parse found.
type Kind uint8

// What a frame can be. From KindMalformed on, only Kind is valid.
const (
	KindTCP      Kind = iota // Ports, TCPFlags valid
	KindUDP                  // Ports valid
	KindICMP                 // ICMP or ICMPv6 message of at least 8 bytes at L4
	KindFragment             // any fragment, first or later: L4 is the start of the fragment's data
	KindOther                // IP with another protocol
	KindMalformed
	KindNotIP
)

// A Packet is what Parse found in a frame. Offsets count from the frame's first byte.
type Packet struct {
	Src, Dst Addr
	Ports    Ports
	L4       uint16 // start of the transport header
	End      uint16 // end of the IP packet: what follows is padding
	L3       uint8  // start of the IP header: 14, and 4 more for each of at most two VLAN tags
	Proto    uint8  // protocol after any extension headers
	TCPFlags uint8  // 0 for UDP
	Kind     Kind
	V6       bool
	TTL      uint8 // or hop limit

	// Unfinished says that the transport checksum holds the pseudo-header's sum alone: the sender left the
	// rest to hardware. Finish completes it.
	Unfinished bool

	// Plain says that this is TCP or UDP with neither tags nor options nor extension headers, its checksum
	// finished: its headers are where they nearly always are.
	Plain bool
}

// L4Len returns the length of the transport header and payload in bytes.
func (p *Packet) L4Len() int { return int(p.End) - int(p.L4) }

// Parse reads frame b into p, which it overwrites. Lengths are checked against the
// frame: everything p points at is inside b.
func Parse(b []byte, p *Packet) { new(Hasher).Parse(b, p) }

// parseShort reads what is too short for TCP over IPv4. The last fragment of a datagram can be a byte
// long, and not every link pads.
func (h *Hasher) parseShort(b []byte, p *Packet) uint64 {
	if len(b) < EthLen+IPv4Len {
		p.Kind = shortKind(b)
		return 0
	}
	return h.parseOther(b, p)
}

func (h *Hasher) parseOther(b []byte, p *Packet) uint64 {
	switch binary.BigEndian.Uint16(b[12:]) {
	case EtherIPv4:
		parse4(b, EthLen, p)
	case EtherIPv6:
		if hash, ok := h.plain6(b, p); ok {
			return hash
		}
		parse6(b, EthLen, p)
	default:
		parseTagged(b, p)
	}
	if p.Kind > KindUDP {
		return 0
	}
	return h.Flow(p)
}

// shortKind tells a truncated IP frame from a short frame of another protocol.
func shortKind(b []byte) Kind {
	if len(b) < EthLen {
		return KindMalformed
	}
	switch binary.BigEndian.Uint16(b[12:]) {
	case EtherIPv4, EtherIPv6, EtherVLAN, EtherQinQ:
		return KindMalformed
	}
	return KindNotIP
}

// parseTagged reads a frame with one VLAN tag or two (QinQ). A third makes it another's.
func parseTagged(b []byte, p *Packet) {
	p.Kind = KindNotIP
	for l3 := EthLen; isTag(binary.BigEndian.Uint16(b[l3-2:])) && l3 < MaxL2Len; {
		l3 += VLANLen // b is long enough for the shortest packet without a tag, and so for the type behind two
		switch binary.BigEndian.Uint16(b[l3-2:]) {
		case EtherIPv4:
			parse4(b, l3, p)
			return
		case EtherIPv6:
			parse6(b, l3, p)
			return
		}
	}
}

func isTag(etherType uint16) bool { return etherType == EtherVLAN || etherType == EtherQinQ }

func parse4(b []byte, l3 int, p *Packet) {
	p.Kind = KindMalformed
	if len(b) < l3+IPv4Len {
		return
	}
	h := b[l3 : l3+IPv4Len : len(b)]
	ihl := int(h[0]&15) * 4
	end := l3 + int(binary.BigEndian.Uint16(h[2:]))
	if h[0]>>4 != 4 || ihl < IPv4Len || end > len(b) || end < l3+ihl {
		return
	}
	p.L3, p.V6, p.Unfinished, p.Plain = uint8(l3), false, false, false
	p.L4, p.End = uint16(l3+ihl), uint16(end)
	p.Src = Addr4(binary.LittleEndian.Uint32(h[12:]))
	p.Dst = Addr4(binary.LittleEndian.Uint32(h[16:]))
	p.Proto, p.TTL = h[9], h[8]
	if binary.LittleEndian.Uint16(h[6:])&fragmented != 0 {
		p.Kind = KindFragment
		return
	}
	parseL4(b, p)
}

func parse6(b []byte, l3 int, p *Packet) {
	p.Kind = KindMalformed
	if len(b) < l3+IPv6Len {
		return
	}
	h := b[l3 : l3+IPv6Len : len(b)]
	end := l3 + IPv6Len + int(binary.BigEndian.Uint16(h[4:]))
	if h[0]>>4 != 6 || end > len(b) {
		return
	}
	p.L3, p.V6, p.Unfinished, p.Plain = uint8(l3), true, false, false
	p.L4, p.End = uint16(l3+IPv6Len), uint16(end)
	p.Src = Addr16(h[8:])
	p.Dst = Addr16(h[24:])
	if p.Src.Is4() || p.Dst.Is4() {
		return // an IPv4-mapped address on the wire (RFC 4942, 2.2) would pass for the IPv4 address itself
	}
	p.Proto, p.TTL = h[6], h[7]
	if p.Proto != ProtoTCP && p.Proto != ProtoUDP {
		if !skipExtensions(b, p) {
			return
		}
	}
	parseL4(b, p)
}

// maxExtensions bounds the walk over IPv6 extension headers, as the steering program does.
const maxExtensions = 6

// skipExtensions moves L4 and Proto past extension headers (RFC 8200, 4). It returns false
// when the packet needs no further parsing: a fragment, or one that runs past its end or the bound.
func skipExtensions(b []byte, p *Packet) bool {
	for range maxExtensions {
		l4 := int(p.L4)
		switch p.Proto {
		case ProtoHopByHop, ProtoRouting, ProtoDstOpts:
			if l4+8 > int(p.End) {
				return false
			}
			next := l4 + 8 + int(b[l4+1])*8
			if next > int(p.End) {
				return false
			}
			p.Proto, p.L4 = b[l4], uint16(next)
		case ProtoFragment:
			if l4+8 > int(p.End) {
				return false
			}
			p.Kind = KindFragment
			p.Proto, p.L4 = b[l4], uint16(l4+8)
			return false
		default:
			return true
		}
	}
	switch p.Proto {
	case ProtoHopByHop, ProtoRouting, ProtoDstOpts, ProtoFragment:
		return false
	}
	return true
}

// parseL4 fills in what the transport header says; p.Kind is KindMalformed on entry.
func parseL4(b []byte, p *Packet) {
	l4, n := int(p.L4), p.L4Len()
	switch p.Proto {
	case ProtoTCP:
		if n < TCPLen {
			return
		}
		h := b[l4 : l4+TCPLen]
		if off := int(h[12]>>4) * 4; off < TCPLen || off > n {
			return
		}
		p.Ports = Ports(binary.LittleEndian.Uint32(h))
		p.TCPFlags = h[13]
		p.Kind = KindTCP
		p.Unfinished = unfinished(binary.LittleEndian.Uint16(h[tcpCsumOff:]), PseudoSum(p.Src, p.Dst, ProtoTCP, n))
	case ProtoUDP:
		if n < UDPLen {
			return
		}
		h := b[l4 : l4+UDPLen]
		l := int(binary.BigEndian.Uint16(h[4:]))
		if l < UDPLen || l > n {
			return
		}
		p.Ports = Ports(binary.LittleEndian.Uint32(h))
		p.TCPFlags = 0
		p.Kind = KindUDP
		p.Unfinished = unfinished(binary.LittleEndian.Uint16(h[udpCsumOff:]), PseudoSum(p.Src, p.Dst, ProtoUDP, l))
	case ProtoICMP, ProtoICMPv6:
		if n < ICMPLen || (p.Proto == ProtoICMPv6) != p.V6 {
			return
		}
		p.Kind = KindICMP
	default:
		p.Kind = KindOther
	}
}
