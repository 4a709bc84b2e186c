package packet_test

import (
	"encoding/binary"
	"math/bits"
	"testing"

	"pgregory.net/rapid"

	"xlvs/dataplane/frametest"
	"xlvs/dataplane/packet"
)

// folded is what Sum and Fold make of b, in network order.
func folded(b []byte, s uint64) uint16 { return bits.ReverseBytes16(packet.Fold(packet.Sum(b, s))) }

func TestSum(t *testing.T) {
	for n := range 200 {
		for _, fill := range []byte{0, 1, 0x80, 0xff} {
			b := make([]byte, n)
			for i := range b {
				b[i] = fill + byte(i)*fill
			}
			if got, want := folded(b, 0), frametest.Sum(b); got != want {
				t.Fatalf("%d bytes of %#x: %#x, want %#x", n, fill, got, want)
			}
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(t, "bytes")
		if got, want := folded(b, 0), frametest.Sum(b); got != want {
			t.Fatalf("%#x, want %#x", got, want)
		}
		// In two parts, the first of even length, any start value carried along.
		cut := rapid.IntRange(0, len(b)/2).Draw(t, "cut") * 2
		if got, want := folded(b[cut:], packet.Sum(b[:cut], 0)), frametest.Sum(b); got != want {
			t.Fatalf("cut at %d: %#x, want %#x", cut, got, want)
		}
	})
	full := make([]byte, 9000)
	for i := range full {
		full[i] = 0xff
	}
	if got := folded(full, ^uint64(0)); got != 0xffff {
		t.Errorf("all ones: %#x", got)
	}
}

func TestFold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.Uint64().Draw(t, "s")
		want := s % 0xffff
		if want == 0 && s != 0 {
			want = 0xffff
		}
		if got := packet.Fold(s); uint64(got) != want {
			t.Fatalf("Fold(%#x) = %#x, want %#x", s, got, want)
		}
	})
	for s, want := range map[uint64]uint16{0: 0, 0xffff: 0xffff, 0x10000: 1, 0x1fffe: 0xffff, ^uint64(0): 0xffff, 0xffff_0000_0000_0000: 0xffff, 1 << 63: 0x8000} {
		if got := packet.Fold(s); got != want {
			t.Errorf("Fold(%#x) = %#x, want %#x", s, got, want)
		}
	}
}

// A checksum changed for new bytes is the one computed over them, but where the new bytes are all zero; there
// equation 3 of RFC 1624 gives 0x0000 for 0xffff, and no header is all zero.
func TestUpdateProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "words") * 2
		b := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 0, 1, 0x7f, 0xfe, 0xff, 0xff}), n, n).Draw(t, "bytes")
		b[0] |= 0x40
		f := make([]byte, 2)
		binary.BigEndian.PutUint16(f, ^frametest.Sum(b))
		at := rapid.IntRange(1, n/2).Draw(t, "at")*2 - 2
		new := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0xff}), 2, 2).Draw(t, "new")
		was := uint64(binary.LittleEndian.Uint16(b[at:]))
		copy(b[at:], new)
		packet.Update(f, was, uint64(binary.LittleEndian.Uint16(new)))
		got, want := binary.BigEndian.Uint16(f), ^frametest.Sum(b)
		if got != want && (want != 0xffff || got != 0) {
			t.Fatalf("%#x, want %#x", got, want)
		}
	})
}

// The example of RFC 1624, section 4: equation 3 gives 0x0000 where the older one gave 0xffff.
func TestRFC1624Example(t *testing.T) {
	f := []byte{0xdd, 0x2f}
	le := func(x uint16) uint64 { return uint64(bits.ReverseBytes16(x)) }
	packet.Update(f, le(0x5555), le(0x3285))
	if got := binary.BigEndian.Uint16(f); got != 0 {
		t.Errorf("HC' = %#x, want 0", got)
	}
}

func TestUpdateL4(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := spec(rapid.Bool().Draw(t, "v6"), rapid.Bool().Draw(t, "udp"))
		s.Payload = rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 0xff}), 0, 9).Draw(t, "payload")
		s.NoSum = s.UDP && !s.V6() && rapid.Bool().Draw(t, "no checksum")
		f := s.Build()
		var p packet.Packet
		packet.Parse(f, &p)
		to := rapid.Uint32().Draw(t, "ports")
		binary.LittleEndian.PutUint32(f[p.L4:], to)
		p.UpdateL4(f, uint64(p.Ports), uint64(to))
		if _, err := frametest.Decode(f); err != nil {
			t.Fatal(err)
		}
		sum := f[p.L4:][6:8]
		if zero := sum[0]|sum[1] == 0; s.UDP && zero != s.NoSum {
			t.Fatalf("UDP checksum % x, without a checksum: %v", sum, s.NoSum)
		}
	})
}

func TestAddr(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := spec(rapid.Bool().Draw(t, "v6"), false)
		b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bytes")
		a := packet.Addr16(b)
		var back [16]byte
		a.Put16(back[:])
		if string(back[:]) != string(b) {
			t.Fatalf("% x came back as % x", b, back)
		}
		x := packet.FromNetip(s.Src.Addr())
		if x.Netip() != s.Src.Addr() || x.Is4() == s.V6() {
			t.Fatalf("%v came back as %v", s.Src.Addr(), x.Netip())
		}
		if y := packet.Addr4(binary.LittleEndian.Uint32(b)); !y.Is4() || y.Netip().As4() != [4]byte(b) {
			t.Fatalf("% x came back as %v", b[:4], y.Netip())
		}
		p := packet.MakePorts(s.Src.Port(), s.Dst.Port())
		if p.Src() != s.Src.Port() || p.Dst() != s.Dst.Port() || p.Swap() != packet.MakePorts(s.Dst.Port(), s.Src.Port()) {
			t.Fatalf("ports %v", p)
		}
	})
}

func BenchmarkSum(b *testing.B) {
	for _, n := range []int{20, 64, 1460} {
		buf := make([]byte, n)
		b.Run(map[int]string{20: "20", 64: "64", 1460: "1460"}[n], func(b *testing.B) {
			b.SetBytes(int64(n))
			for range b.N {
				packet.Sum(buf, 0)
			}
		})
	}
}

func BenchmarkParse(b *testing.B) {
	h := packet.NewHasher("bench")
	for name, f := range map[string][]byte{"v4": spec(false, false).Build(), "v6": spec(true, false).Build(), "v4 options": optionsOf(spec(false, false))} {
		b.Run(name, func(b *testing.B) {
			var p packet.Packet
			for range b.N {
				h.Parse(f, &p)
			}
		})
	}
}
