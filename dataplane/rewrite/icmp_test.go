package rewrite_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"xlvs/dataplane/frametest"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/rewrite"
)

// icmpErrors are the errors with what they must look like in each family.
var icmpErrors = []struct {
	name                       string
	e                          rewrite.Error
	type4, code4, type6, code6 uint8
	mtu                        int
}{
	{"time exceeded", rewrite.TimeExceeded(), 11, 0, 3, 0, 0},
	{"too big", rewrite.TooBig(1480), 3, 4, 2, 0, 1480},
	{"port unreachable", rewrite.PortUnreachable(), 3, 3, 1, 4, 0},
}

func icmpOf(f []byte, e rewrite.Error) ([]byte, bool) {
	var p packet.Packet
	packet.Parse(f, &p)
	c := chunk(f)
	src := own4
	if p.V6 {
		src = own6
	}
	start, n, ok := rewrite.ICMP(c, off, &p, packet.FromNetip(src), e)
	if !ok {
		return nil, false
	}
	return c[start : start+n], true
}

// An error goes back to the sender, quotes the packet as far as RFC 1812 and RFC 4443 let it, and verifies; a checksum
// that the sender left unfinished is finished in the quotation.
func TestICMPErrors(t *testing.T) {
	for _, tc := range icmpErrors {
		t.Run(tc.name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				s := drawSpec(t)
				s.Src = spec(s.V6(), false).Src
				got, ok := icmpOf(s.Build(), tc.e)
				if !ok {
					t.Fatalf("no error about %+v", s)
				}
				finished := s
				finished.Unfinished, finished.Pad = false, 0
				quoted, limit := finished.Build()[14:], 576-28
				if s.VLAN != 0 {
					quoted = quoted[4:]
				}
				src, want := own4, frametest.ICMPError{Type: tc.type4, Code: tc.code4, MTU: tc.mtu}
				if s.V6() {
					src, limit = own6, 1280-48
					want.Type, want.Code = tc.type6, tc.code6
				}
				want.Quote = quoted[:min(len(quoted), limit)]
				d, err := frametest.Decode(got)
				if err != nil {
					t.Fatal(err)
				}
				e, err := d.IP.ICMPError()
				if err != nil {
					t.Fatal(err)
				}
				if d.Dst != s.SrcMAC || d.Src != s.DstMAC || d.VLAN != int(s.VLAN) && s.VLAN != 0 || d.IP.Src != src || d.IP.Dst != s.Src.Addr() {
					t.Fatalf("error from %x %v to %x %v", d.Src, d.IP.Src, d.Dst, d.IP.Dst)
				}
				if e.Type != want.Type || e.Code != want.Code || e.MTU != want.MTU || !bytes.Equal(e.Quote, want.Quote) {
					t.Fatalf("error %d/%d MTU %d\n got % x\nwant % x", e.Type, e.Code, e.MTU, e.Quote, want.Quote)
				}
			})
		})
	}
}

// Nobody is told who cannot be told, or who would make many answer (RFC 1122, 3.2.2; RFC 4443, 2.4 e).
func TestICMPIsNotSent(t *testing.T) {
	for _, tc := range []struct {
		name string
		v6   bool
		src  string
		mac  [6]byte
	}{
		{name: "from nobody", src: "0.0.0.0"},
		{name: "from this network", src: "0.1.2.3"},
		{name: "from loopback", src: "127.0.0.1"},
		{name: "from a group", src: "224.0.0.1"},
		{name: "from the last group", src: "239.255.255.255"},
		{name: "from everybody", src: "255.255.255.255"},
		{name: "from nobody", v6: true, src: "::"},
		{name: "from a group", v6: true, src: "ff02::1"},
		{name: "from loopback", v6: true, src: "::1"},
		{name: "to everybody's MAC", src: "198.51.100.7", mac: [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
		{name: "to a group's MAC", v6: true, src: "2001:db8::7", mac: [6]byte{0x33, 0x33, 0, 0, 0, 1}},
	} {
		t.Run(fmt.Sprintf("%s/v6=%v", tc.name, tc.v6), func(t *testing.T) {
			s := spec(tc.v6, true)
			s.Src = netip.AddrPortFrom(netip.MustParseAddr(tc.src), 5)
			if tc.mac != [6]byte{} {
				s.DstMAC = tc.mac
			}
			if got, ok := icmpOf(s.Build(), rewrite.TimeExceeded()); ok {
				t.Errorf("sent % x", got)
			}
			c := s.Echo(false, 1, 1)
			var p packet.Packet
			packet.Parse(c, &p)
			if rewrite.IsEcho(c, &p) {
				t.Error("its echo request would be answered")
			}
		})
	}
}

// Without room for its headers an error is not sent, and nothing in front of the chunk is touched.
func TestICMPWithoutHeadroom(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		need := map[bool]int{false: 28, true: 48}[v6]
		f := spec(v6, false).Build()
		var p packet.Packet
		packet.Parse(f, &p)
		for room := range need + 2 {
			c := append(make([]byte, room), f...)
			start, n, ok := rewrite.ICMP(c, room, &p, p.Dst, rewrite.TimeExceeded())
			if ok != (room >= need) {
				t.Fatalf("%d bytes of headroom: %v", room, ok)
			}
			if !ok {
				if !bytes.Equal(c[room:], f) {
					t.Error("the frame was changed though nothing is sent")
				}
				continue
			}
			if _, err := frametest.Decode(c[start : start+n]); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestEchoProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSpec(t)
		s.Src = spec(s.V6(), false).Src
		id, seq := rapid.Uint16().Draw(t, "id"), rapid.Uint16().Draw(t, "seq")
		f := s.Echo(false, id, seq)
		var p packet.Packet
		packet.Parse(f, &p)
		if p.Kind != packet.KindICMP || !rewrite.IsEcho(f, &p) {
			t.Fatalf("kind %d is no echo request: % x", p.Kind, f)
		}
		rewrite.Echo(f, &p)
		want := s
		want.Src, want.Dst, want.DstMAC, want.SrcMAC, want.TTL = s.Dst, s.Src, s.SrcMAC, s.DstMAC, 64
		if w := want.Echo(true, id, seq); !bytes.Equal(f, w) {
			t.Fatalf("\n got % x\nwant % x", f, w)
		}
		packet.Parse(f, &p)
		if rewrite.IsEcho(f, &p) {
			t.Fatal("the reply is a request")
		}
	})
}

func TestNoAllocations(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		f := spec(v6, false).Build()
		c, pristine := chunk(f), chunk(f)
		p := parse(t, f)
		b, other := backend(v6), backend(!v6)
		for name, do := range map[string]func(){
			"DR":         func() { rewrite.DR(c[off:], p, &b.Eth) },
			"NATRequest": func() { rewrite.NATRequest(c[off:], p, b) },
			"NATReply":   func() { rewrite.NATReply(c[off:], p, p.Dst, 80, &eth) },
			"TUN":        func() { rewrite.TUN(c, off, p, b, hash) },
			"TUN other":  func() { rewrite.TUN(c, off, p, other, hash) },
			"ICMP":       func() { rewrite.ICMP(c, off, p, p.Dst, rewrite.TimeExceeded()) },
		} {
			if n := testing.AllocsPerRun(50, func() { copy(c, pristine); do() }); n != 0 {
				t.Errorf("%s allocates %v times", name, n)
			}
		}
	}
}
