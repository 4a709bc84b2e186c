package packet

import (
	"encoding/binary"
	"math/bits"
)

// The Internet checksum (RFC 1071) is a ones-complement sum and so does not depend on byte
// order: everything here adds little-endian loads, and a folded sum is stored little-endian.

// Sum adds the bytes of b, an odd last byte padded with zero, to the unfolded sum s.
func Sum(b []byte, s uint64) uint64 {
	var c uint64
	for len(b) >= 32 {
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[8:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[16:]), c)
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b[24:]), c)
		b = b[32:]
	}
	for len(b) >= 8 {
		s, c = bits.Add64(s, binary.LittleEndian.Uint64(b), c)
		b = b[8:]
	}
	var tail uint64
	for i, x := range b {
		tail |= uint64(x) << (8 * i)
	}
	s, c = bits.Add64(s, tail, c)
	s, c = bits.Add64(s, 0, c)
	return s + c
}

// Fold reduces a sum to 16 bits without complementing it.
func Fold(s uint64) uint16 {
	s = s>>32 + s&0xffffffff
	s = s>>32 + s&0xffffffff
	s = s>>16 + s&0xffff
	s = s>>16 + s&0xffff
	return uint16(s>>16 + s&0xffff)
}

// PseudoSum returns the unfolded sum of the pseudo-header (RFC 9293 3.1, RFC 768, RFC 8200 8.1) for
// an upper-layer packet of n bytes. IPv4-mapped addresses give the IPv4 pseudo-header.
func PseudoSum(src, dst Addr, proto uint8, n int) uint64 {
	s := uint64(proto)<<8 + uint64(bits.ReverseBytes16(uint16(n)))
	if src.Is4() && dst.Is4() {
		return s + uint64(src.V4()) + uint64(dst.V4())
	}
	return s + half(src.A) + half(src.B) + half(dst.A) + half(dst.B)
}

// half folds a word to 33 bits, so that a few of them add up without overflow.
func half(x uint64) uint64 { return x>>32 + x&0xffffffff }

// AddrSum returns the unfolded sum of an address's own bytes, without the mapping prefix of IPv4.
func AddrSum(a Addr) uint64 {
	if a.Is4() {
		return uint64(a.V4())
	}
	return half(a.A) + half(a.B)
}

// csumField returns the transport checksum's two bytes, or nil where the protocol has none.
func (p *Packet) csumField(b []byte) []byte {
	switch p.Kind {
	case KindTCP:
		return b[int(p.L4)+tcpCsumOff:][:2]
	case KindUDP:
		return b[int(p.L4)+udpCsumOff:][:2]
	}
	return nil
}

// unfinished reports whether the checksum field f holds only the folded pseudo-header
// sum s: what a local kernel's stack leaves for the hardware to complete (CHECKSUM_PARTIAL), unmarked when it
// reaches AF_XDP. A finished checksum may happen to be equal; finishing it again gives the same value.
// The upper half of a word and the word turned by half its bits add up, carries included, in the upper half of the sum.
func unfinished(f uint16, s uint64) bool {
	s = (s + bits.RotateLeft64(s, 32)) >> 32
	return f == uint16((uint32(s)+bits.RotateLeft32(uint32(s), 16))>>16)
}

// Finish computes the whole transport checksum. src and dst are the addresses that the
// packet carries by now (after a rewrite).
func (p *Packet) Finish(b []byte, src, dst Addr) {
	f := p.csumField(b)
	if f == nil {
		return
	}
	n := p.sumLen(b)
	binary.LittleEndian.PutUint16(f, 0)
	s := Sum(b[p.L4:int(p.L4)+n], PseudoSum(src, dst, p.Proto, n))
	c := ^Fold(s)
	if c == 0 && p.Kind == KindUDP {
		c = 0xffff // RFC 768: a computed zero is sent as all ones
	}
	binary.LittleEndian.PutUint16(f, c)
}

// sumLen is the number of bytes that the checksum covers: for UDP what its own header says.
func (p *Packet) sumLen(b []byte) int {
	if p.Kind == KindUDP {
		return int(binary.BigEndian.Uint16(b[p.L4+4:]))
	}
	return p.L4Len()
}

// Update changes the checksum at f for a change of the summed bytes from the unfolded sum old
// to the unfolded sum new: HC' = ~(~HC + ~m + m') (RFC 1624, equation 3).
func Update(f []byte, old, new uint64) {
	hc := uint64(^binary.LittleEndian.Uint16(f))
	binary.LittleEndian.PutUint16(f, ^Fold(hc+uint64(^Fold(old))+uint64(Fold(new))))
}

// UpdateL4 changes the transport checksum for a rewritten pseudo-header or port. A UDP checksum
// of 0 means none and stays 0; one that becomes 0 is sent as all ones (RFC 768).
func (p *Packet) UpdateL4(b []byte, old, new uint64) {
	f := p.csumField(b)
	if f == nil {
		return
	}
	if p.Kind == KindUDP && binary.LittleEndian.Uint16(f) == 0 {
		return
	}
	Update(f, old, new)
	if p.Kind == KindUDP && binary.LittleEndian.Uint16(f) == 0 {
		binary.LittleEndian.PutUint16(f, 0xffff)
	}
}

// Adjust changes the transport checksum by a term ~m + m' that is known already, at most 0x1fffe.
// A UDP checksum of 0 means none and stays 0; one that becomes 0 is sent as all ones (RFC 768).
func (p *Packet) Adjust(b []byte, term uint32) {
	off := tcpCsumOff
	if p.Kind == KindUDP {
		off = udpCsumOff
	}
	f := b[int(p.L4)+off:]
	old := binary.LittleEndian.Uint16(f)
	if old == 0 && p.Kind == KindUDP {
		return
	}
	sum := uint32(^old) + term
	sum = sum>>16 + sum&0xffff
	sum += sum >> 16
	c := ^uint16(sum)
	if c == 0 && p.Kind == KindUDP {
		c = 0xffff
	}
	binary.LittleEndian.PutUint16(f, c)
}

// SetIPv4Sum computes the header checksum of the IPv4 header h (its length gives the number of bytes).
func SetIPv4Sum(h []byte) {
	binary.LittleEndian.PutUint16(h[10:], 0)
	binary.LittleEndian.PutUint16(h[10:], ^Fold(Sum(h, 0)))
}
