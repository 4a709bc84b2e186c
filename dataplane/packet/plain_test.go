package packet

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// sameAsGeneral holds Parse, with its straight ways for plain packets, against the general one.
func sameAsGeneral(t *testing.T, b []byte) {
	t.Helper()
	if len(b) < EthLen+IPv4Len || len(b) > 65535 {
		return
	}
	h := NewHasher("plain")
	got, want := Packet{Kind: 0xff}, Packet{Kind: 0xff}
	hash := h.Parse(b, &got)
	switch binary.BigEndian.Uint16(b[12:]) {
	case EtherIPv4:
		parse4(b, EthLen, &want)
	case EtherIPv6:
		parse6(b, EthLen, &want)
	default:
		parseTagged(b, &want)
	}
	if got.Kind != want.Kind {
		t.Fatalf("% x: kind %d, the general way says %d", b, got.Kind, want.Kind)
	}
	if want.Kind > KindUDP {
		return
	}
	plain := got.Plain
	if got.Plain = false; got != want {
		t.Fatalf("% x:\n%+v, the general way says\n%+v", b, got, want)
	}
	if g := h.Flow(&want); hash != g {
		t.Fatalf("% x: hash %#x, the general way says %#x", b, hash, g)
	}
	if l4 := map[bool]uint16{false: EthLen + IPv4Len, true: EthLen + IPv6Len}[got.V6]; plain && (got.Unfinished || got.L3 != EthLen || got.L4 != l4) {
		t.Fatalf("% x is no plain packet: %+v", b, got)
	}
}

// plainFrame is TCP or UDP with a checksum that is finished or not.
func plainFrame(r *rand.Rand) []byte {
	v6, proto := r.Uint32()&1 == 0, uint8(ProtoTCP)
	if r.Uint32()&1 == 0 {
		proto = ProtoUDP
	}
	l4 := EthLen + IPv4Len
	if v6 {
		l4 = EthLen + IPv6Len
	}
	b := make([]byte, l4+TCPLen+r.IntN(40))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	n := len(b) - l4 - r.IntN(8) // what is left is padding
	if v6 {
		binary.BigEndian.PutUint16(b[12:], EtherIPv6)
		b[14] = 0x60
		binary.BigEndian.PutUint16(b[18:], uint16(n))
		b[20] = proto
	} else {
		binary.BigEndian.PutUint16(b[12:], EtherIPv4)
		b[14] = 0x45
		binary.BigEndian.PutUint16(b[16:], uint16(IPv4Len+n))
		binary.BigEndian.PutUint16(b[20:], 0)
		b[23] = proto
	}
	sum := l4 + tcpCsumOff
	if proto == ProtoTCP {
		b[l4+12] = byte(5+r.IntN(3)) << 4
	} else {
		sum = l4 + udpCsumOff
		binary.BigEndian.PutUint16(b[l4+4:], uint16(n-r.IntN(3)))
		n = int(binary.BigEndian.Uint16(b[l4+4:]))
	}
	if r.Uint32()&1 == 0 {
		var p Packet
		Parse(b, &p)
		binary.LittleEndian.PutUint16(b[sum:], Fold(PseudoSum(p.Src, p.Dst, proto, n)))
	}
	return b
}

func TestPlainIsGeneral(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200_000 {
		b := plainFrame(r)
		sameAsGeneral(t, b)
		for range r.IntN(3) {
			b[12+r.IntN(len(b)-12)] ^= 1 << r.IntN(8)
		}
		sameAsGeneral(t, b[:len(b)-r.IntN(12)])
	}
}

// TestPlainMeetsAll makes sure that the test above meets what it is about.
func TestPlainMeetsAll(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	seen := map[[3]bool]int{}
	for range 1000 {
		var p Packet
		Parse(plainFrame(r), &p)
		if p.Kind <= KindUDP {
			seen[[3]bool{p.V6, p.Kind == KindTCP, p.Plain}]++
		}
	}
	if len(seen) != 8 {
		t.Errorf("frames of %d kinds, want 8: %v", len(seen), seen)
	}
}

func FuzzPlain(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 16 {
		f.Add(plainFrame(r))
	}
	f.Fuzz(func(t *testing.T, b []byte) { sameAsGeneral(t, b) })
}
