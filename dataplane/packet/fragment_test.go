package packet

import (
	"encoding/binary"
	"testing"
)

// v4part is a frame with an IPv4 fragment: flags and offset as in the header, data behind options of the given length.
func v4part(tags int, options int, proto uint8, field uint16, data []byte) []byte {
	b := make([]byte, 12)
	for range tags {
		b = append(b, 0x88, 0xa8, 0, 7)
	}
	b = append(b, 8, 0)
	head := IPv4Len + options
	h := make([]byte, head)
	h[0] = 0x40 | byte(head/4)
	binary.BigEndian.PutUint16(h[2:], uint16(head+len(data)))
	binary.BigEndian.PutUint16(h[4:], 0x1234)
	binary.BigEndian.PutUint16(h[6:], field)
	h[8], h[9] = 64, proto
	copy(h[12:], []byte{198, 51, 100, 7, 203, 0, 113, 10})
	return append(append(b, h...), data...)
}

// v6part is a frame with an IPv6 fragment header; field is offset and M.
func v6part(proto uint8, field uint16, data []byte) []byte {
	b := append(make([]byte, 12), 0x86, 0xdd)
	h := make([]byte, IPv6Len+8)
	h[0], h[6], h[7] = 0x60, ProtoFragment, 64
	binary.BigEndian.PutUint16(h[4:], uint16(8+len(data)))
	h[8], h[24] = 0x20, 0x20
	h[IPv6Len] = proto
	binary.BigEndian.PutUint16(h[IPv6Len+2:], field)
	binary.BigEndian.PutUint32(h[IPv6Len+4:], 0xdeadbeef)
	return append(append(b, h...), data...)
}

func TestFragmentHeader(t *testing.T) {
	for name, c := range map[string]struct {
		frame []byte
		want  Fragment
		ok    bool
	}{
		"first v4":               {v4part(0, 0, 17, 0x2000, make([]byte, 1480)), Fragment{0x1234, 0, 1480, true, 17}, true},
		"later v4":               {v4part(0, 0, 17, 0x2000|185, make([]byte, 1480)), Fragment{0x1234, 1480, 1480, true, 17}, true},
		"last v4":                {v4part(0, 0, 6, 370, make([]byte, 33)), Fragment{0x1234, 2960, 33, false, 6}, true},
		"options":                {v4part(0, 40, 6, 370, make([]byte, 33)), Fragment{0x1234, 2960, 33, false, 6}, true},
		"two tags":               {v4part(2, 0, 6, 370, make([]byte, 33)), Fragment{0x1234, 2960, 33, false, 6}, true},
		"no data":                {v4part(0, 0, 17, 0x2000, nil), Fragment{0x1234, 0, 0, true, 17}, false},
		"odd length, more":       {v4part(0, 0, 17, 0x2001, make([]byte, 33)), Fragment{0x1234, 8, 33, true, 17}, false},
		"as long as can be":      {v4part(0, 0, 17, 8189, make([]byte, 3)), Fragment{0x1234, 65512, 3, false, 17}, true},
		"ping of death":          {v4part(0, 0, 17, 8189, make([]byte, 4)), Fragment{0x1234, 65512, 4, false, 17}, false},
		"too long with options":  {v4part(0, 4, 17, 8189, make([]byte, 3)), Fragment{0x1234, 65512, 3, false, 17}, false},
		"first v6":               {v6part(17, 1, make([]byte, 1448)), Fragment{0xdeadbeef, 0, 1448, true, 17}, true},
		"last v6":                {v6part(17, 1448, make([]byte, 7)), Fragment{0xdeadbeef, 1448, 7, false, 17}, true},
		"reserved bits v6":       {v6part(17, 1448|6, make([]byte, 7)), Fragment{0xdeadbeef, 1448, 7, false, 17}, true},
		"whole v6":               {v6part(17, 0, make([]byte, 9)), Fragment{0xdeadbeef, 0, 9, false, 17}, true},
		"as long as can be, v6":  {v6part(17, 65528, make([]byte, 7)), Fragment{0xdeadbeef, 65528, 7, false, 17}, true},
		"ping of death over v6":  {v6part(17, 65528, make([]byte, 8)), Fragment{0xdeadbeef, 65528, 8, false, 17}, false},
		"odd length, more, v6":   {v6part(17, 9, make([]byte, 31)), Fragment{0xdeadbeef, 8, 31, true, 17}, false},
		"nothing behind it, v6":  {v6part(17, 8, nil), Fragment{0xdeadbeef, 8, 0, false, 17}, false},
		"evil bit alone is none": {v4part(0, 0, 17, 0x8000|5, make([]byte, 8)), Fragment{0x1234, 40, 8, false, 17}, true},
	} {
		for len(c.frame) < 38 { // links pad
			c.frame = append(c.frame, 0)
		}
		var p Packet
		Parse(c.frame, &p)
		if p.Kind != KindFragment {
			t.Errorf("%s: kind %d", name, p.Kind)
			continue
		}
		if f, ok := p.Fragment(c.frame); f != c.want || ok != c.ok {
			t.Errorf("%s: %+v, %v; want %+v, %v", name, f, ok, c.want, c.ok)
		}
	}
}

func TestParseFirst(t *testing.T) {
	udp := append([]byte{0x9c, 0x40, 0, 53, 0x0f, 0xa8, 1, 2}, make([]byte, 64)...)
	tcp := append([]byte{0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 1, 1, 3, 4, 0, 0}, make([]byte, 12)...)
	opts := append([]byte{17, 0, 1, 4, 0, 0, 0, 0}, udp...)
	for name, c := range map[string]struct {
		frame []byte
		kind  Kind
		port  uint16
	}{
		"udp v4":                       {v4part(0, 0, 17, 0x2000, udp), KindUDP, 53},
		"tcp v4":                       {v4part(1, 0, 6, 0x2000, tcp), KindTCP, 80},
		"tcp v6":                       {v6part(6, 1, tcp), KindTCP, 80},
		"udp v6 behind options":        {v6part(ProtoDstOpts, 1, opts), KindUDP, 53},
		"tiny tcp":                     {v4part(0, 0, 6, 0x2000, tcp[:16]), KindFragment, 0},
		"tcp header in the next one":   {v4part(0, 0, 6, 0x2000, tcp[:20:20]), KindFragment, 0},
		"data offset below the header": {v4part(0, 0, 6, 0x2000, append(append(append([]byte{}, tcp[:12]...), 0x40), tcp[13:]...)), KindFragment, 0},
		"icmp":                         {v4part(0, 0, 1, 0x2000, udp), KindFragment, 0},
		"options without an end, v6":   {v6part(ProtoDstOpts, 1, opts[:8:8]), KindFragment, 0},
		"options beyond the data":      {v6part(ProtoDstOpts, 1, append([]byte{17, 200}, opts[2:]...)), KindFragment, 0},
		"fragment in a fragment":       {v6part(ProtoFragment, 1, opts), KindFragment, 0},
	} {
		var p Packet
		Parse(c.frame, &p)
		ok := p.ParseFirst(c.frame)
		if ok != (c.kind != KindFragment) || p.Kind != c.kind || ok && (p.Ports.Dst() != c.port || p.Ports.Src() != 40000) {
			t.Errorf("%s: %v, kind %d, ports %d %d", name, ok, p.Kind, p.Ports.Src(), p.Ports.Dst())
		}
	}
}

func FuzzFragment(f *testing.F) {
	f.Add(v4part(2, 40, 6, 0x2000, make([]byte, 60)), true)
	f.Add(v6part(ProtoDstOpts, 1, make([]byte, 60)), false)
	f.Fuzz(func(t *testing.T, b []byte, first bool) {
		var p, q Packet
		Parse(b, &p)
		switch p.Kind {
		case KindFragment:
			fr, ok := p.Fragment(b)
			if ok && (fr.Len <= 0 || fr.Offset%8 != 0 || fr.Offset+fr.Len > maxDatagram) {
				t.Fatalf("%+v", fr)
			}
			if first && p.ParseFirst(b) && (int(p.L4)+UDPLen > int(p.End) || int(p.End) > len(b)) {
				t.Fatalf("%+v", p)
			}
		case KindICMP:
			p.ParseQuote(b, &q)
			if q.Kind <= KindOther && (int(q.L4) > int(q.End) || int(q.End) > len(b)) {
				t.Fatalf("%+v", q)
			}
		}
	})
}
