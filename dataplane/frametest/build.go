// Package frametest builds and checks frames for tests, with gopacket and with sums written out as
// RFC 1071 words them: nothing here shares code with what it tests. Only tests import it.
package frametest

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// TCP flags (RFC 9293, 3.1).
const (
	FIN = 1 << iota
	SYN
	RST
	PSH
	ACK
)

// A Spec describes a frame with one TCP segment or UDP datagram. The zero TTL stands for 64.
type Spec struct {
	DstMAC, SrcMAC [6]byte
	VLAN           uint16 // 0: no tag
	Src, Dst       netip.AddrPort
	UDP            bool
	Flags          uint8 // TCP
	TTL, TOS       uint8
	DF             bool
	ID             uint16
	IPOptions      []byte // IPv4, a multiple of 4 bytes
	TCPOptions     []byte // a multiple of 4 bytes
	RawOptions     []byte // TCP, instead of TCPOptions: as they stand, a multiple of 4 bytes
	Payload        []byte
	Unfinished     bool // the transport checksum holds only the folded pseudo-header sum
	NoSum          bool // UDP: checksum 0
	Pad            int  // bytes after the IP packet
}

// V6 reports whether the packet is IPv6.
func (s Spec) V6() bool { return s.Dst.Addr().Is6() }

// Build serializes the frame.
func (s Spec) Build() []byte {
	l := []gopacket.SerializableLayer{}
	ip := s.network()
	l = append(l, s.link(ip.LayerType())...)
	l = append(l, ip.(gopacket.SerializableLayer))
	l = append(l, s.transport(ip), gopacket.Payload(s.Payload))
	b := serialize(l...)
	s.checksum(b)
	return append(b, make([]byte, s.Pad)...)
}

func (s Spec) link(next gopacket.LayerType) []gopacket.SerializableLayer {
	eth := &layers.Ethernet{DstMAC: s.DstMAC[:], SrcMAC: s.SrcMAC[:], EthernetType: etherType(next)}
	if s.VLAN == 0 {
		return []gopacket.SerializableLayer{eth}
	}
	tag := &layers.Dot1Q{VLANIdentifier: s.VLAN, Type: eth.EthernetType}
	eth.EthernetType = layers.EthernetTypeDot1Q
	return []gopacket.SerializableLayer{eth, tag}
}

func etherType(t gopacket.LayerType) layers.EthernetType {
	if t == layers.LayerTypeIPv6 {
		return layers.EthernetTypeIPv6
	}
	return layers.EthernetTypeIPv4
}

func (s Spec) ttl() uint8 {
	if s.TTL == 0 {
		return 64
	}
	return s.TTL
}

func (s Spec) network() gopacket.NetworkLayer {
	proto := layers.IPProtocolTCP
	if s.UDP {
		proto = layers.IPProtocolUDP
	}
	if s.V6() {
		return &layers.IPv6{Version: 6, TrafficClass: s.TOS, HopLimit: s.ttl(), NextHeader: proto,
			SrcIP: s.Src.Addr().AsSlice(), DstIP: s.Dst.Addr().AsSlice()}
	}
	ip := &layers.IPv4{Version: 4, IHL: 5, TOS: s.TOS, Id: s.ID, TTL: s.ttl(), Protocol: proto,
		SrcIP: s.Src.Addr().AsSlice(), DstIP: s.Dst.Addr().AsSlice()}
	if s.DF {
		ip.Flags = layers.IPv4DontFragment
	}
	for i := 0; i+4 <= len(s.IPOptions); i += 4 {
		o := s.IPOptions[i : i+4]
		ip.Options = append(ip.Options, layers.IPv4Option{OptionType: o[0] | 2, OptionLength: 4, OptionData: o[2:4]})
	}
	return ip
}

func (s Spec) transport(ip gopacket.NetworkLayer) gopacket.SerializableLayer {
	if s.UDP {
		u := &layers.UDP{SrcPort: layers.UDPPort(s.Src.Port()), DstPort: layers.UDPPort(s.Dst.Port())}
		must(u.SetNetworkLayerForChecksum(ip))
		return u
	}
	t := &layers.TCP{SrcPort: layers.TCPPort(s.Src.Port()), DstPort: layers.TCPPort(s.Dst.Port()), Seq: 0x01020304, Window: 502,
		FIN: s.Flags&FIN != 0, SYN: s.Flags&SYN != 0, RST: s.Flags&RST != 0, PSH: s.Flags&PSH != 0, ACK: s.Flags&ACK != 0}
	for i := 0; i+4 <= len(s.TCPOptions); i += 4 {
		o := s.TCPOptions[i : i+4]
		t.Options = append(t.Options, layers.TCPOption{OptionType: 253, OptionLength: 4, OptionData: o[2:4]}) // RFC 4727
	}
	for at := 0; at < len(s.RawOptions); {
		o := layers.TCPOption{OptionType: layers.TCPOptionKind(s.RawOptions[at]), OptionLength: 1}
		if o.OptionType > 1 {
			o.OptionLength = s.RawOptions[at+1]
			o.OptionData = s.RawOptions[at+2 : at+int(o.OptionLength)]
		}
		t.Options = append(t.Options, o)
		at += int(o.OptionLength)
	}
	must(t.SetNetworkLayerForChecksum(ip))
	return t
}

// checksum overwrites the transport checksum where the Spec wants another than the right one.
func (s Spec) checksum(b []byte) {
	switch {
	case s.UDP && s.NoSum:
		binary.BigEndian.PutUint16(b[s.l4()+6:], 0)
	case s.Unfinished:
		l4, off, proto := s.l4(), 16, uint8(6)
		if s.UDP {
			off, proto = 6, 17
		}
		sum := Sum(pseudo(s.Src.Addr(), s.Dst.Addr(), proto, len(b)-l4))
		binary.BigEndian.PutUint16(b[l4+off:], sum)
	}
}

func (s Spec) l3() int {
	if s.VLAN != 0 {
		return 18
	}
	return 14
}

func (s Spec) l4() int {
	if s.V6() {
		return s.l3() + 40
	}
	return s.l3() + 20 + len(s.IPOptions)/4*4
}

// A Tunnel describes the outer header around a packet.
type Tunnel struct {
	DstMAC, SrcMAC [6]byte
	Src, Dst       netip.Addr
	ID             uint16 // IPv4
	Label          uint32 // IPv6
	DF             bool
	Shim           []byte // what stands between the headers: UDP and GUE, or GRE
	Proto          uint8  // of Shim
}

// Wrap builds the frame of s, its padding cut off, inside the outer header, which copies TTL and TOS.
func (s Spec) Wrap(t Tunnel) []byte {
	s.Pad = 0
	inner := s.Build()[s.l3():]
	s.DstMAC, s.SrcMAC = t.DstMAC, t.SrcMAC
	proto := layers.IPProtocolIPv4
	if s.V6() {
		proto = layers.IPProtocolIPv6
	}
	if t.Shim != nil {
		proto, inner = layers.IPProtocol(t.Proto), append(append([]byte{}, t.Shim...), inner...)
	}
	var ip gopacket.NetworkLayer
	if t.Dst.Is6() {
		ip = &layers.IPv6{Version: 6, TrafficClass: s.TOS, FlowLabel: t.Label, HopLimit: s.ttl(), NextHeader: proto,
			SrcIP: t.Src.AsSlice(), DstIP: t.Dst.AsSlice()}
	} else {
		o := &layers.IPv4{Version: 4, IHL: 5, TOS: s.TOS, Id: t.ID, TTL: s.ttl(), Protocol: proto,
			SrcIP: t.Src.AsSlice(), DstIP: t.Dst.AsSlice()}
		if t.DF {
			o.Flags = layers.IPv4DontFragment
		}
		ip = o
	}
	l := append(s.link(ip.LayerType()), ip.(gopacket.SerializableLayer), gopacket.Payload(inner))
	return serialize(l...)
}

// Echo builds an ICMP or ICMPv6 echo message from src to dst.
func (s Spec) Echo(reply bool, id, seq uint16) []byte {
	ip := s.network()
	var icmp []gopacket.SerializableLayer
	switch ip := ip.(type) {
	case *layers.IPv4:
		ip.Protocol = layers.IPProtocolICMPv4
		t := layers.ICMPv4TypeEchoRequest
		if reply {
			t = layers.ICMPv4TypeEchoReply
		}
		icmp = append(icmp, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(uint8(t), 0), Id: id, Seq: seq})
	case *layers.IPv6:
		ip.NextHeader = layers.IPProtocolICMPv6
		t := layers.ICMPv6TypeEchoRequest
		if reply {
			t = layers.ICMPv6TypeEchoReply
		}
		h := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(uint8(t), 0)}
		must(h.SetNetworkLayerForChecksum(ip))
		icmp = append(icmp, h, &layers.ICMPv6Echo{Identifier: id, SeqNumber: seq})
	}
	l := append(s.link(ip.LayerType()), ip.(gopacket.SerializableLayer))
	l = append(append(l, icmp...), gopacket.Payload(s.Payload))
	return append(serialize(l...), make([]byte, s.Pad)...)
}

func serialize(l ...gopacket.SerializableLayer) []byte {
	buf := gopacket.NewSerializeBuffer()
	must(gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, l...))
	return unpad(append([]byte(nil), buf.Bytes()...))
}

// unpad cuts off what gopacket adds to reach the 60 bytes of a shortest Ethernet frame.
func unpad(b []byte) []byte {
	l3 := 14
	if binary.BigEndian.Uint16(b[12:]) == uint16(layers.EthernetTypeDot1Q) {
		l3 = 18
	}
	if b[l3]>>4 == 6 {
		return b[:l3+40+int(binary.BigEndian.Uint16(b[l3+4:]))]
	}
	return b[:l3+int(binary.BigEndian.Uint16(b[l3+2:]))]
}

func must(err error) {
	if err != nil {
		panic(fmt.Sprintf("frametest: %v", err))
	}
}
