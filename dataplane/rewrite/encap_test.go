package rewrite_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"xlvs/dataplane/frametest"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/rewrite"
	"xlvs/dataplane/table"
)

// encaps are GUE and GRE with and without a checksum, over both families.
func encaps() (all []table.Backend) {
	for _, v6 := range []bool{false, true} {
		for _, e := range []table.Encap{table.GUE, table.GRE} {
			for _, sum := range []bool{false, true} {
				b := *backend(v6)
				b.Encap, b.EncapSum, b.EncapTo = e, sum, 6080
				all = append(all, b)
			}
		}
	}
	return all
}

// shim writes out what the drafts and RFCs show between outer header and inner packet. port is GUE's source port.
func shim(b *table.Backend, inner []byte, port uint16) (proto uint8, s []byte) {
	v6 := inner[0]>>4 == 6
	if b.Encap == table.GRE {
		s = []byte{0, 0, 0x08, 0x00}
		if v6 {
			s[2], s[3] = 0x86, 0xdd
		}
		if b.EncapSum {
			s = append(s, 0, 0, 0, 0)
			s[0] = 0x80
			binary.BigEndian.PutUint16(s[4:], ^frametest.Sum(append(append([]byte{}, s...), inner...)))
		}
		return 47, s
	}
	s = binary.BigEndian.AppendUint16(nil, port)
	s = binary.BigEndian.AppendUint16(s, 6080)
	s = binary.BigEndian.AppendUint16(s, uint16(12+len(inner)))
	s = append(s, 0, 0, 0, 4, 0, 0)
	if v6 {
		s[9] = 41
	}
	return 17, s
}

// Whatever comes, GUE and GRE wrap it as their documents show, to the byte, padding cut off, tags kept.
func TestEncapsulationProperty(t *testing.T) {
	for _, b := range encaps() {
		t.Run(fmt.Sprintf("%v, sum %v, outer v6=%v", b.Encap, b.EncapSum, b.V6), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { checkEncapsulation(t, drawSpec(t), &b) })
		})
	}
}

func checkEncapsulation(t interface{ Fatalf(string, ...any) }, s frametest.Spec, b *table.Backend) {
	f := s.Build()
	c := chunk(f)
	start, n := rewrite.TUN(c, off, parse(t, f), b, hash)
	out := c[start : start+n]
	if off-start != b.Overhead() {
		t.Fatalf("%d bytes were put before the frame, and Overhead says %d", off-start, b.Overhead())
	}
	s = moved(s)
	w := frametest.Tunnel{DstMAC: hopMAC, SrcMAC: ownMAC, Src: own4, Dst: rs4.Addr(), DF: s.DF && !s.V6()}
	if b.V6 {
		w.Src, w.Dst = own6, rs6.Addr()
	}
	d, err := frametest.Decode(out)
	if err != nil {
		t.Fatalf("%v\n% x", err, out)
	}
	w.ID, w.Label = d.IP.ID, d.IP.Label
	s.Pad = 0
	inner := s.Build()
	inner = inner[len(inner)-len(d.IP.Inner.Header)-len(d.IP.Inner.Body):]
	w.Proto, w.Shim = shim(b, inner, binary.BigEndian.Uint16(d.IP.Body))
	if b.Encap == table.GUE {
		copy(w.Shim[6:8], d.IP.Body[6:8]) // the decoder has verified it
		if set := w.Shim[6]|w.Shim[7] != 0; set != b.EncapSum {
			t.Fatalf("an outer checksum is there: %v", set)
		}
		if port := binary.BigEndian.Uint16(w.Shim); port < 49152 {
			t.Fatalf("source port %d is not one of the dynamic ports", port)
		}
	}
	if want := s.Wrap(w); !bytes.Equal(out, want) {
		t.Fatalf("got % x\nwant % x", out, want)
	}
}

// The source port of GUE is the flow's: the same for the same hash, and spread over its whole range.
func TestGUESourcePort(t *testing.T) {
	b := *backend(false)
	b.Encap, b.EncapTo = table.GUE, 6080
	h := packet.NewHasher("ports")
	seen := map[uint16]int{}
	for n := range 4000 {
		s := spec(false, false)
		f := s.Build()
		for range 2 {
			c := chunk(f)
			start, _ := rewrite.TUN(c, off, parse(t, f), &b, h.Tuple(packet.FromNetip(client4.Addr()), packet.Addr{}, packet.MakePorts(uint16(n), 80), 6))
			seen[binary.BigEndian.Uint16(c[start+34:])]++
		}
	}
	for port, n := range seen {
		if n%2 != 0 {
			t.Fatalf("port %d was used %d times by pairs of packets of one flow", port, n)
		}
	}
	if len(seen) < 3000 {
		t.Errorf("4000 flows have %d source ports", len(seen))
	}
}

// A checksum that comes out as zero is sent as all ones, in UDP; GRE has no such rule.
func TestEverySumOfGUE(t *testing.T) {
	b := *backend(true)
	b.Encap, b.EncapTo, b.EncapSum = table.GUE, 6080, true
	s := spec(false, true)
	s.NoSum = true
	for n := range 1 << 16 {
		s.Payload = binary.BigEndian.AppendUint16(nil, uint16(n))
		if n == 0 {
			checkEncapsulation(t, s, &b)
		}
		f := s.Build()
		c := chunk(f)
		start, _ := rewrite.TUN(c, off, parse(t, f), &b, hash)
		if c[start+14+40+6]|c[start+14+40+7] == 0 {
			t.Fatalf("payload %#x: the checksum is sent as zero, which says that there is none", n)
		}
	}
}

// Where routers may fragment the outer packet, its identification differs from packet to packet of a flow, and from one
// fragment of an inner packet to the next (RFC 6864, 4.1). Only the same packet again has the same one.
func TestOuterIdentification(t *testing.T) {
	ids := func(b *table.Backend, frames ...[]byte) (out []uint16) {
		for _, f := range frames {
			var p packet.Packet
			packet.Parse(f, &p)
			c := chunk(f)
			start, _ := rewrite.TUN(c, off, &p, b, hash)
			out = append(out, binary.BigEndian.Uint16(c[start+14+4:]))
		}
		return out
	}
	encapsulated := *backend(false)
	encapsulated.Encap, encapsulated.EncapTo = table.GUE, 6080
	for name, b := range map[string]*table.Backend{"ipip": backend(false), "gue": &encapsulated} {
		for _, v6 := range []bool{true, false} {
			for _, udp := range []bool{true, false} {
				s := spec(v6, udp)
				s.DF = false
				first := s.Build()
				s.Payload, s.ID = []byte("hello, there"), s.ID+1
				second := s.Build()
				s.Payload, s.ID = make([]byte, 1000), s.ID+1
				parts := frametest.Fragments(s.Build(), 400, 7)
				got := ids(b, first, second, parts[0], parts[1], parts[2])
				if slices.Sort(got); len(slices.Compact(slices.Clone(got))) != len(got) {
					t.Errorf("%s, v6 %v, udp %v: different packets have identifications % x", name, v6, udp, got)
				}
				if got := ids(b, second, second); got[0] != got[1] {
					t.Errorf("%s, v6 %v, udp %v: one packet has % x", name, v6, udp, got)
				}
			}
		}
		echo := spec(true, false)
		if got := ids(b, echo.Echo(false, 1, 1), echo.Echo(false, 1, 2)); got[0] == got[1] {
			t.Errorf("%s: two echo requests have identification %#x", name, got[0])
		}
	}
}
