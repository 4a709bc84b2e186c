package packet_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"xlvs/dataplane/frametest"
	"xlvs/dataplane/packet"
)

var (
	a4 = netip.MustParseAddrPort("198.51.100.7:40000")
	b4 = netip.MustParseAddrPort("203.0.113.10:80")
	a6 = netip.MustParseAddrPort("[2001:db8:c::7]:40000")
	b6 = netip.MustParseAddrPort("[2001:db8:f::10]:80")
)

func spec(v6, udp bool) frametest.Spec {
	s := frametest.Spec{DstMAC: [6]byte{2, 0, 0, 0, 0, 1}, SrcMAC: [6]byte{2, 0, 0, 0, 0, 2}, Src: a4, Dst: b4, UDP: udp,
		Flags: frametest.SYN | frametest.PSH, TTL: 61, Payload: []byte("hello")}
	if v6 {
		s.Src, s.Dst = a6, b6
	}
	return s
}

// insert puts bytes into a frame at an offset.
func insert(f []byte, at int, x ...byte) []byte {
	return append(append(append([]byte{}, f[:at]...), x...), f[at:]...)
}

// extended puts extension headers between an IPv6 header and what follows; each is its type and bytes.
func extended(f []byte, types []uint8, bodies ...[]byte) []byte {
	next := f[20]
	at := 54
	for i, b := range bodies {
		b = append([]byte{}, b...)
		b[0] = next
		if i+1 < len(bodies) {
			b[0] = types[i+1]
		}
		f = insert(f, at, b...)
		at += len(b)
	}
	if len(types) > 0 {
		f[20] = types[0]
	}
	binary.BigEndian.PutUint16(f[18:], uint16(len(f)-54))
	return f
}

func set(f []byte, at int, b ...byte) []byte {
	f = append([]byte{}, f...)
	copy(f[at:], b)
	return f
}

func TestParse(t *testing.T) {
	tcp4, udp4, tcp6, udp6 := spec(false, false), spec(false, true), spec(true, false), spec(true, true)
	with := func(s frametest.Spec, edit func(*frametest.Spec)) []byte {
		edit(&s)
		return s.Build()
	}
	vlan := func(s *frametest.Spec) { s.VLAN = 5 }
	options := func(s *frametest.Spec) { s.IPOptions, s.TCPOptions = make([]byte, 12), make([]byte, 8) }
	hop8, dst16 := make([]byte, 8), append([]byte{0, 1}, make([]byte, 14)...)
	first6, later6 := []byte{0, 0, 0, 1, 0, 0, 0, 9}, []byte{0, 0, 0, 8, 0, 0, 0, 9}
	eight := [][]byte{hop8, hop8, hop8, hop8, hop8, hop8, hop8}
	for _, tc := range []struct {
		name         string
		f            []byte
		kind         packet.Kind
		l3, l4, trim int // trim: bytes behind the IP packet
	}{
		{name: "TCP/IPv4", f: tcp4.Build(), kind: packet.KindTCP, l3: 14, l4: 34},
		{name: "UDP/IPv4", f: udp4.Build(), kind: packet.KindUDP, l3: 14, l4: 34},
		{name: "UDP/IPv4 without data", f: with(udp4, func(s *frametest.Spec) { s.Payload = nil }), kind: packet.KindUDP, l3: 14, l4: 34},
		{name: "TCP/IPv6", f: tcp6.Build(), kind: packet.KindTCP, l3: 14, l4: 54},
		{name: "UDP/IPv6", f: udp6.Build(), kind: packet.KindUDP, l3: 14, l4: 54},
		{name: "VLAN, IPv4", f: with(tcp4, vlan), kind: packet.KindTCP, l3: 18, l4: 38},
		{name: "VLAN, IPv6", f: with(udp6, vlan), kind: packet.KindUDP, l3: 18, l4: 58},
		{name: "service tag alone", f: set(with(tcp4, vlan), 12, 0x88, 0xa8), kind: packet.KindTCP, l3: 18, l4: 38},
		{name: "two tags", f: insert(with(tcp4, vlan), 12, 0x88, 0xa8, 0, 7), kind: packet.KindTCP, l3: 22, l4: 42},
		{name: "two tags, IPv6", f: insert(with(udp6, vlan), 12, 0x81, 0, 0, 7), kind: packet.KindUDP, l3: 22, l4: 62},
		{name: "three tags", f: insert(insert(with(tcp4, vlan), 12, 0x88, 0xa8, 0, 7), 12, 0x88, 0xa8, 0, 7), kind: packet.KindNotIP},
		{name: "options", f: with(tcp4, options), kind: packet.KindTCP, l3: 14, l4: 46},
		{name: "options, padded", f: with(tcp4, func(s *frametest.Spec) { options(s); s.Pad = 9 }), kind: packet.KindTCP, l3: 14, l4: 46, trim: 9},
		{name: "padded", f: with(udp4, func(s *frametest.Spec) { s.Pad = 13 }), kind: packet.KindUDP, l3: 14, l4: 34, trim: 13},
		{name: "padded IPv6", f: with(tcp6, func(s *frametest.Spec) { s.Pad = 6 }), kind: packet.KindTCP, l3: 14, l4: 54, trim: 6},
		{name: "fragment, first", f: set(tcp4.Build(), 20, 0x20, 0), kind: packet.KindFragment, l3: 14, l4: 34},
		{name: "fragment, later", f: set(tcp4.Build(), 20, 0x20, 9), kind: packet.KindFragment, l3: 14, l4: 34},
		{name: "fragment, last", f: set(tcp4.Build(), 20, 0x1f, 0xff), kind: packet.KindFragment, l3: 14, l4: 34},
		{name: "DF and reserved bit are no fragment", f: set(tcp4.Build(), 20, 0xc0, 0), kind: packet.KindTCP, l3: 14, l4: 34},
		{name: "fragment IPv6, first", f: extended(tcp6.Build(), []uint8{44}, first6), kind: packet.KindFragment, l3: 14, l4: 62},
		{name: "fragment IPv6, later", f: extended(udp6.Build(), []uint8{44}, later6), kind: packet.KindFragment, l3: 14, l4: 62},
		{name: "atomic fragment", f: extended(udp6.Build(), []uint8{44}, hop8), kind: packet.KindFragment, l3: 14, l4: 62},
		{name: "hop-by-hop", f: extended(tcp6.Build(), []uint8{0}, hop8), kind: packet.KindTCP, l3: 14, l4: 62},
		{name: "routing and destination options", f: extended(udp6.Build(), []uint8{43, 60}, hop8, dst16), kind: packet.KindUDP, l3: 14, l4: 78},
		{name: "fragment behind options", f: extended(tcp6.Build(), []uint8{60, 44}, dst16, first6), kind: packet.KindFragment, l3: 14, l4: 78},
		{name: "five extension headers", f: extended(tcp6.Build(), []uint8{0, 60, 60, 60, 60}, eight[:5]...), kind: packet.KindTCP, l3: 14, l4: 94},
		{name: "six extension headers", f: extended(tcp6.Build(), []uint8{0, 60, 60, 60, 60, 60}, eight[:6]...), kind: packet.KindTCP, l3: 14, l4: 102},
		{name: "seven extension headers", f: extended(tcp6.Build(), []uint8{0, 60, 60, 60, 60, 60, 60}, eight...), kind: packet.KindMalformed},
		{name: "extension header past the end", f: set(extended(tcp6.Build(), []uint8{0}, hop8), 55, 200), kind: packet.KindMalformed},
		{name: "ICMP", f: tcp4.Echo(false, 1, 2), kind: packet.KindICMP, l3: 14, l4: 34},
		{name: "ICMPv6", f: tcp6.Echo(false, 1, 2), kind: packet.KindICMP, l3: 14, l4: 54},
		{name: "ICMPv6 in IPv4", f: set(tcp4.Echo(false, 1, 2), 23, 58), kind: packet.KindMalformed},
		{name: "ICMP in IPv6", f: set(tcp6.Echo(false, 1, 2), 20, 1), kind: packet.KindMalformed},
		{name: "GRE", f: set(tcp4.Build(), 23, 47), kind: packet.KindOther, l3: 14, l4: 34},
		{name: "no next header", f: set(tcp6.Build(), 20, 59), kind: packet.KindOther, l3: 14, l4: 54},
		{name: "ARP", f: set(tcp4.Build(), 12, 8, 6), kind: packet.KindNotIP},
		{name: "IPv6 says 4", f: set(tcp6.Build(), 14, 0x45), kind: packet.KindMalformed},
		{name: "IPv4 says 6", f: set(tcp4.Build(), 14, 0x65), kind: packet.KindMalformed},
		{name: "IPv4 header of 16 bytes", f: set(tcp4.Build(), 14, 0x44), kind: packet.KindMalformed},
		{name: "IPv4 header longer than the packet", f: set(with(udp4, func(s *frametest.Spec) { s.Payload = nil }), 14, 0x4f), kind: packet.KindMalformed},
		{name: "IPv4 length beyond the frame", f: set(tcp4.Build(), 16, 0, 46), kind: packet.KindMalformed},
		{name: "IPv4 length 65535", f: set(tcp4.Build(), 16, 0xff, 0xff), kind: packet.KindMalformed},
		{name: "IPv4 length below its header", f: set(tcp4.Build(), 16, 0, 19), kind: packet.KindMalformed},
		{name: "IPv4 length cuts TCP", f: set(tcp4.Build(), 16, 0, 39), kind: packet.KindMalformed},
		{name: "IPv4 length cuts UDP", f: set(udp4.Build(), 16, 0, 27), kind: packet.KindMalformed},
		{name: "IPv6 length beyond the frame", f: set(tcp6.Build(), 18, 0, 26), kind: packet.KindMalformed},
		{name: "IPv6 length 0", f: set(tcp6.Build(), 18, 0, 0), kind: packet.KindMalformed},
		{name: "TCP data offset 4", f: set(tcp4.Build(), 46, 0x40), kind: packet.KindMalformed},
		{name: "TCP data offset beyond the segment", f: set(tcp4.Build(), 46, 0x70), kind: packet.KindMalformed},
		{name: "TCP/IPv6 data offset 15", f: set(tcp6.Build(), 66, 0xf0), kind: packet.KindMalformed},
		{name: "UDP length 7", f: set(udp4.Build(), 38, 0, 7), kind: packet.KindMalformed},
		{name: "UDP length beyond the packet", f: set(udp4.Build(), 38, 0, 14), kind: packet.KindMalformed},
		{name: "UDP length below the packet's", f: set(udp4.Build(), 38, 0, 10), kind: packet.KindUDP, l3: 14, l4: 34},
		{name: "UDP/IPv6 length beyond the packet", f: set(udp6.Build(), 58, 0, 14), kind: packet.KindMalformed},
		{name: "mapped source", f: set(tcp6.Build(), 22, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff), kind: packet.KindMalformed},
		{name: "mapped destination", f: set(tcp6.Build(), 38, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff), kind: packet.KindMalformed},
		{name: "nothing", kind: packet.KindMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var p packet.Packet
			packet.Parse(tc.f, &p)
			if p.Kind != tc.kind {
				t.Fatalf("kind %d, want %d: % x", p.Kind, tc.kind, tc.f)
			}
			invariants(t, tc.f, &p)
			if p.Kind >= packet.KindMalformed {
				return
			}
			if int(p.L3) != tc.l3 || int(p.L4) != tc.l4 || int(p.End) != len(tc.f)-tc.trim {
				t.Errorf("L3 %d L4 %d end %d, want %d %d %d", p.L3, p.L4, p.End, tc.l3, tc.l4, len(tc.f)-tc.trim)
			}
			src, dst := a4, b4
			if p.V6 {
				src, dst = a6, b6
			}
			if p.Src.Netip() != src.Addr() || p.Dst.Netip() != dst.Addr() {
				t.Errorf("from %v to %v", p.Src.Netip(), p.Dst.Netip())
			}
			if p.Kind <= packet.KindUDP && (p.Ports.Src() != src.Port() || p.Ports.Dst() != dst.Port() || p.TTL != 61) {
				t.Errorf("ports %d and %d, TTL %d", p.Ports.Src(), p.Ports.Dst(), p.TTL)
			}
			if want := map[packet.Kind]uint8{packet.KindTCP: frametest.SYN | frametest.PSH}[p.Kind]; p.Kind <= packet.KindUDP && p.TCPFlags != want {
				t.Errorf("flags %#x", p.TCPFlags)
			}
		})
	}
}

// invariants must hold for whatever Parse says of a frame.
func invariants(t interface{ Fatalf(string, ...any) }, f []byte, p *packet.Packet) {
	if p.Kind > packet.KindNotIP {
		t.Fatalf("kind %d", p.Kind)
	}
	if p.Kind >= packet.KindMalformed {
		return
	}
	head := map[packet.Kind]int{packet.KindTCP: 20, packet.KindUDP: 8, packet.KindICMP: 8}[p.Kind]
	ip := map[bool]int{false: 20, true: 40}[p.V6]
	if p.L3 != 14 && p.L3 != 18 && p.L3 != 22 || int(p.L4) < int(p.L3)+ip || int(p.L4)+head > int(p.End) || int(p.End) > len(f) || p.L4Len() < head {
		t.Fatalf("L3 %d L4 %d end %d in a frame of %d bytes, kind %d", p.L3, p.L4, p.End, len(f), p.Kind)
	}
	if p.V6 == p.Src.Is4() || p.V6 == p.Dst.Is4() {
		t.Fatalf("an IPv6=%v packet from %v to %v", p.V6, p.Src.Netip(), p.Dst.Netip())
	}
	want := map[packet.Kind][]uint8{packet.KindTCP: {6}, packet.KindUDP: {17}, packet.KindICMP: {1, 58}}[p.Kind]
	if want != nil && p.Proto != want[0] && p.Proto != want[len(want)-1] {
		t.Fatalf("kind %d of protocol %d", p.Kind, p.Proto)
	}
	l4 := f[p.L4:p.End]
	if p.Kind <= packet.KindUDP && (p.Ports.Src() != binary.BigEndian.Uint16(l4) || p.Ports.Dst() != binary.BigEndian.Uint16(l4[2:])) {
		t.Fatalf("ports %d %d: % x", p.Ports.Src(), p.Ports.Dst(), l4)
	}
	if p.Kind == packet.KindTCP && (p.TCPFlags != l4[13] || int(l4[12]>>4)*4 > len(l4)) {
		t.Fatalf("flags %#x: % x", p.TCPFlags, l4)
	}
	if p.Kind == packet.KindUDP && p.TCPFlags != 0 {
		t.Fatalf("a datagram with flags %#x", p.TCPFlags)
	}
}

// Every frame cut off at every byte is malformed, but for padding: nothing is read that is not there. The slice's
// capacity ends with it, so that reading on would panic.
func TestTruncated(t *testing.T) {
	for _, s := range []frametest.Spec{spec(false, false), spec(false, true), spec(true, false), spec(true, true)} {
		for _, f := range [][]byte{s.Build(), s.Echo(false, 1, 1), vlanOf(s), optionsOf(s)} {
			for n := range f {
				var p packet.Packet
				cut := append([]byte{}, f[:n]...)[:n:n]
				packet.Parse(cut, &p)
				if p.Kind < packet.KindMalformed {
					t.Fatalf("%d of %d bytes parse as kind %d", n, len(f), p.Kind)
				}
			}
		}
	}
	f := extended(spec(true, true).Build(), []uint8{43, 60}, make([]byte, 8), append([]byte{0, 1}, make([]byte, 14)...))
	for n := range f { // the header believes that the packet ends where the frame does
		cut := append([]byte{}, f[:n]...)[:n:n]
		if n >= 54 {
			binary.BigEndian.PutUint16(cut[18:], uint16(n-54))
		}
		var p packet.Packet
		packet.Parse(cut, &p)
		invariants(t, cut, &p)
	}
}

func vlanOf(s frametest.Spec) []byte {
	s.VLAN = 3
	return s.Build()
}

func optionsOf(s frametest.Spec) []byte {
	s.IPOptions, s.TCPOptions = make([]byte, 40), make([]byte, 40)
	return s.Build()
}

// What an earlier frame left in the Packet does not shine through.
func TestParseOverwrites(t *testing.T) {
	frames := [][]byte{spec(false, false).Build(), spec(false, true).Build(), spec(true, false).Build(), vlanOf(spec(true, true)), optionsOf(spec(false, false))}
	for _, f := range frames {
		var want packet.Packet
		packet.Parse(f, &want)
		for _, before := range frames {
			var p packet.Packet
			packet.Parse(before, &p)
			packet.Parse(f, &p)
			if p != want {
				t.Errorf("%+v after another frame, %+v alone", p, want)
			}
		}
	}
}

// An unfinished checksum is recognized in every shape of frame, and a finished one is not, but for the rare equal one.
func TestUnfinished(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := spec(rapid.Bool().Draw(t, "v6"), rapid.Bool().Draw(t, "udp"))
		s.Payload = rapid.SliceOf(rapid.Byte()).Draw(t, "payload")
		s.Pad = rapid.IntRange(0, 9).Draw(t, "pad")
		if rapid.Bool().Draw(t, "options") {
			s.IPOptions = make([]byte, 8)
		}
		if rapid.Bool().Draw(t, "vlan") {
			s.VLAN = 77
		}
		whole := s.Build()
		s.Unfinished = true
		f := s.Build()
		var p, q packet.Packet
		packet.Parse(f, &p)
		packet.Parse(whole, &q)
		if !p.Unfinished || q.Unfinished && string(f) != string(whole) {
			t.Fatalf("unfinished: %v; finished: %v", p.Unfinished, q.Unfinished)
		}
		p.Finish(f, p.Src, p.Dst)
		if string(f) != string(whole) {
			t.Fatalf("finished as\n     % x\nwant % x", f, whole)
		}
	})
}

// The hash that Parse returns is the tuple's, whichever way the frame was read.
func TestParseHashes(t *testing.T) {
	h := packet.NewHasher("seed")
	for _, v6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			s := spec(v6, udp)
			for _, f := range [][]byte{s.Build(), vlanOf(s), optionsOf(s)} {
				var p packet.Packet
				got := h.Parse(f, &p)
				proto := uint8(6)
				if udp {
					proto = 17
				}
				want := h.Tuple(packet.FromNetip(s.Src.Addr()), packet.FromNetip(s.Dst.Addr()), packet.MakePorts(s.Src.Port(), s.Dst.Port()), proto)
				if got != want || h.Flow(&p) != want {
					t.Errorf("v6=%v udp=%v: Parse hashes %#x, Flow %#x, Tuple %#x", v6, udp, got, h.Flow(&p), want)
				}
			}
		}
	}
}

func TestParseDoesNotAllocate(t *testing.T) {
	h := packet.NewHasher("")
	var p packet.Packet
	for _, f := range [][]byte{spec(false, false).Build(), vlanOf(spec(true, true)), optionsOf(spec(false, false)), {1}} {
		if n := testing.AllocsPerRun(100, func() { h.Parse(f, &p); packet.Parse(f, &p) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []frametest.Spec{spec(false, false), spec(false, true), spec(true, false), spec(true, true)} {
		f.Add(s.Build())
		f.Add(vlanOf(s))
		f.Add(optionsOf(s))
		f.Add(s.Echo(false, 1, 2))
	}
	f.Add(extended(spec(true, false).Build(), []uint8{0, 43, 44}, make([]byte, 8), make([]byte, 8), make([]byte, 8)))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 65535 {
			return // longer than a Frame can be
		}
		b = append([]byte{}, b...)[:len(b):len(b)]
		var p packet.Packet
		packet.Parse(b, &p)
		invariants(t, b, &p)
		want, err := frametest.Decode(b)
		if err == nil && p.Kind < packet.KindMalformed {
			if want.IP.Src != p.Src.Netip() || want.IP.Dst != p.Dst.Netip() || want.IP.TTL != p.TTL || want.IP.V6 != p.V6 ||
				p.Kind != packet.KindFragment && want.IP.Proto != p.Proto {
				t.Fatalf("%+v, but %+v", p, want.IP)
			}
		}
		if p.Kind <= packet.KindUDP {
			p.Finish(b, p.Src, p.Dst)
			if !p.V6 {
				packet.SetIPv4Sum(b[p.L3:p.L4])
			}
			if _, err := frametest.Decode(b); err != nil {
				t.Fatalf("after Finish: %v", err)
			}
		}
	})
}
