package packet

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
)

// A Hasher hashes flows with a secret key: without the key nobody can aim many flows at one bucket.
// Directors of a fleet share the seed, so that each picks the same backend for a flow.
type Hasher struct{ k [5]uint64 }

// NewHasher derives the key from a seed of any length.
func NewHasher(seed string) Hasher {
	var h Hasher
	a := sha256.Sum256([]byte("xlvs flow hash 1\x00" + seed))
	b := sha256.Sum256([]byte("xlvs flow hash 2\x00" + seed))
	for i := range 4 {
		h.k[i] = binary.LittleEndian.Uint64(a[8*i:]) | 1
	}
	h.k[4] = binary.LittleEndian.Uint64(b[:]) | 1
	return h
}

// Flow hashes the five-tuple of p in the direction in which it travels. All 64 bits are
// usable: the flow table takes its bucket from the upper and its fingerprint from the lower ones, Maglev
// its slot from the upper half.
func (h *Hasher) Flow(p *Packet) uint64 { return h.Tuple(p.Src, p.Dst, p.Ports, p.Proto) }

// Tuple hashes a five-tuple as Flow does.
func (h *Hasher) Tuple(src, dst Addr, ports Ports, proto uint8) uint64 {
	pp := uint64(ports) | uint64(proto)<<32
	if src.A|dst.A != 0 {
		return h.six(src, dst, pp)
	}
	return h.four(src.B>>32|dst.B&^0xffffffff, pp)
}

// four hashes IPv4, six IPv6: a keyed multiply-and-fold (the construction of wyhash), with two
// multiplications and four. addrs are both IPv4 addresses, pp ports and protocol.
func (h *Hasher) four(addrs, pp uint64) uint64 {
	return mum(mum(addrs^h.k[0], pp^h.k[1])^h.k[2], h.k[3]^addrs)
}

func (h *Hasher) six(src, dst Addr, pp uint64) uint64 {
	x := mum(src.A^h.k[0], src.B^h.k[1]) ^ mum(dst.A^h.k[2], dst.B^h.k[3])
	return mum(mum(x^h.k[4], pp^h.k[1])^h.k[2], h.k[3])
}

// mum multiplies to 128 bits and folds the halves together.
func mum(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
