package packet_test

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"testing"

	"xlvs/dataplane/packet"
)

// tuples are ways in which real traffic differs: each gives five-tuple number n of many.
var tuples = map[string]func(n uint32) (src, dst packet.Addr, ports packet.Ports){
	"v4, ports count up": func(n uint32) (packet.Addr, packet.Addr, packet.Ports) {
		return v4(0xc6336407 + n>>16), v4(0xcb00710a), packet.MakePorts(uint16(n), 80)
	},
	"v4, addresses count up": func(n uint32) (packet.Addr, packet.Addr, packet.Ports) {
		return v4(0x0a000000 + n), v4(0xcb00710a), packet.MakePorts(40000, 80)
	},
	"v4, addresses in steps of a /24": func(n uint32) (packet.Addr, packet.Addr, packet.Ports) {
		return v4(n << 8), v4(0xcb00710a), packet.MakePorts(40000, 80)
	},
	"v4, replies of one backend": func(n uint32) (packet.Addr, packet.Addr, packet.Ports) {
		return v4(0x0a00000b), v4(0x0a000000 + n>>16), packet.MakePorts(8080, uint16(n))
	},
	"v6, ports count up": func(n uint32) (packet.Addr, packet.Addr, packet.Ports) {
		return v6(7, uint64(n>>16)), v6(15, 10), packet.MakePorts(uint16(n), 80)
	},
	"v6, interface identifiers count up": func(n uint32) (packet.Addr, packet.Addr, packet.Ports) {
		return v6(7, uint64(n)), v6(15, 10), packet.MakePorts(40000, 80)
	},
	"v6, networks count up": func(n uint32) (packet.Addr, packet.Addr, packet.Ports) {
		return v6(n, 1), v6(15, 10), packet.MakePorts(40000, 80)
	},
}

func v4(a uint32) packet.Addr {
	return packet.FromNetip(netip.AddrFrom4([4]byte{byte(a >> 24), byte(a >> 16), byte(a >> 8), byte(a)}))
}

func v6(net uint32, host uint64) packet.Addr {
	b := [16]byte{0x20, 0x01, 0x0d, 0xb8}
	binary.BigEndian.PutUint32(b[4:], net)
	binary.BigEndian.PutUint64(b[8:], host)
	return packet.FromNetip(netip.AddrFrom16(b))
}

// However like one another flows are, each part of the hash that something is chosen by spreads them evenly: Maglev's
// slot, the flow table's bucket, its fingerprint, and the sampling of events. The limit of chi-square is five
// standard deviations above its mean.
func TestHashSpreads(t *testing.T) {
	const n, cells = 1 << 17, 1021
	uses := map[string]func(h uint64) uint64{
		"slot":        func(h uint64) uint64 { return (h >> 32) * cells >> 32 },
		"bucket":      func(h uint64) uint64 { return (h >> 44) % cells },
		"fingerprint": func(h uint64) uint64 { return (h & 0xffff) % cells },
		"sample":      func(h uint64) uint64 { return (h >> 16) % cells },
	}
	for _, seed := range []string{"", "one", "another"} {
		h := packet.NewHasher(seed)
		for name, tuple := range tuples {
			for use, cell := range uses {
				var count [cells]int
				for i := range uint32(n) {
					src, dst, ports := tuple(i)
					count[cell(h.Tuple(src, dst, ports, 6))]++
				}
				chi, want := 0.0, float64(n)/cells
				for _, c := range count {
					chi += (float64(c) - want) * (float64(c) - want) / want
				}
				// 16 bits modulo a prime are themselves a little uneven: n/cells·(1/65)² more.
				if limit := cells + 5*45.2 + want*cells/64/64/4; chi > limit {
					t.Errorf("seed %q, %s, %s: chi-square %.0f of %d cells, limit %.0f", seed, name, use, chi, cells, limit)
				}
			}
		}
	}
}

// Different flows have different hashes: of a quarter of a million in 64 bits none meet.
func TestHashCollides(t *testing.T) {
	h := packet.NewHasher("seed")
	for name, tuple := range tuples {
		seen := make(map[uint64]uint32, 1<<18)
		for i := range uint32(1 << 18) {
			src, dst, ports := tuple(i)
			x := h.Tuple(src, dst, ports, 6)
			if j, ok := seen[x]; ok {
				t.Errorf("%s: flows %d and %d have the same hash", name, i, j)
				break
			}
			seen[x] = i
		}
	}
}

// A changed bit of any input changes each bit of the hash about half of the time.
func TestHashAvalanche(t *testing.T) {
	h := packet.NewHasher("seed")
	const rounds = 2000
	for _, v6 := range []bool{false, true} {
		width := map[bool]int{false: 4, true: 16}[v6]
		for bit := range (2*width + 4) * 8 {
			var flips [64]int
			rng := rand.New(rand.NewPCG(uint64(bit), 1))
			for range rounds {
				var in [36]byte
				for i := range in {
					in[i] = byte(rng.Uint32())
				}
				x := hashOf(h, in[:2*width+4], width)
				in[bit/8] ^= 1 << (bit % 8)
				x ^= hashOf(h, in[:2*width+4], width)
				for i := range flips {
					flips[i] += int(x >> i & 1)
				}
			}
			for i, n := range flips {
				if n < rounds*40/100 || n > rounds*60/100 {
					t.Errorf("v6=%v: input bit %d changes bit %d of the hash %d times of %d", v6, bit, i, n, rounds)
				}
			}
		}
	}
}

func hashOf(h packet.Hasher, in []byte, width int) uint64 {
	var src, dst packet.Addr
	if width == 4 {
		src, dst = packet.Addr4(binary.LittleEndian.Uint32(in)), packet.Addr4(binary.LittleEndian.Uint32(in[4:]))
	} else {
		src, dst = packet.Addr16(in), packet.Addr16(in[16:])
	}
	return h.Tuple(src, dst, packet.Ports(binary.LittleEndian.Uint32(in[2*width:])), 6)
}

func TestSeeds(t *testing.T) {
	one, same, other, empty := packet.NewHasher("fleet"), packet.NewHasher("fleet"), packet.NewHasher("fleeT"), packet.NewHasher("")
	for name, tuple := range tuples {
		differ := 0
		for i := range uint32(1000) {
			src, dst, ports := tuple(i)
			a := one.Tuple(src, dst, ports, 6)
			if a != same.Tuple(src, dst, ports, 6) {
				t.Fatalf("%s: the same seed hashes differently", name)
			}
			if a == other.Tuple(src, dst, ports, 6) || a == empty.Tuple(src, dst, ports, 6) {
				t.Errorf("%s: different seeds hash the same", name)
			}
			if a == one.Tuple(src, dst, ports, 17) {
				t.Errorf("%s: TCP and UDP hash the same", name)
			}
			if a == one.Tuple(dst, src, ports.Swap(), 6) {
				t.Errorf("%s: both directions hash the same", name)
			}
			differ += bits.OnesCount64(a ^ other.Tuple(src, dst, ports, 6))
		}
		if mean := differ / 1000; mean < 30 || mean > 34 {
			t.Errorf("%s: seeds change %d bits on average", name, mean)
		}
	}
}
