package rewrite

import (
	"encoding/binary"

	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// Fragment4 tells how an IPv4 packet of frame b is cut into packets of at most limit bytes (RFC 791, 3.2): step bytes of data in
// each but the last, n pieces in all. n is 0 where limit leaves no room for data, and 1 where nothing is to be cut.
func Fragment4(p *packet.Packet, limit int) (step, n int) {
	head := int(p.L4) - int(p.L3)
	if p.End-uint16(p.L3) <= uint16(limit) {
		return p.L4Len(), 1
	}
	step = (limit - head) &^ 7
	if step <= 0 {
		return 0, 0
	}
	return step, (p.L4Len() + step - 1) / step
}

// Piece4 writes piece k of n, with step bytes of data, into out: the frame's Ethernet and IP headers, then the data. It
// returns the frame's length. Piece 0 may be written in place, after all the others.
func Piece4(out, b []byte, p *packet.Packet, k, n, step int) int {
	l3, l4 := int(p.L3), int(p.L4)
	from := l4 + k*step
	to := min(from+step, int(p.End))
	field := binary.BigEndian.Uint16(b[l3+6:])
	if k > 0 {
		copy(out, b[:l4])
		copy(out[l4:], b[from:to])
		blank(out[l3+packet.IPv4Len : l4])
	}
	h := out[l3:l4]
	field += uint16(k * step / 8)
	if k < n-1 {
		field |= moreFragments
	}
	binary.BigEndian.PutUint16(h[2:], uint16(l4-l3+to-from))
	binary.BigEndian.PutUint16(h[6:], field)
	packet.SetIPv4Sum(h)
	return l4 + to - from
}

const moreFragments = 0x2000

// blank makes no-operations of the options that only a datagram's first fragment has (RFC 791, 3.1: the copied flag).
func blank(o []byte) {
	for at := 0; at < len(o); {
		kind, n := o[at], 1
		if kind == optEnd {
			return
		}
		if kind != optNop {
			if at+1 >= len(o) || o[at+1] < 2 || at+int(o[at+1]) > len(o) {
				return
			}
			n = int(o[at+1])
		}
		if kind&0x80 == 0 {
			for i := range n {
				o[at+i] = optNop
			}
		}
		at += n
	}
}

// NATFragment sends a later fragment of a client's datagram to the backend: it has no ports and no checksum but its
// own header's.
func NATFragment(b []byte, p *packet.Packet, be *table.Backend) {
	*(*[12]byte)(b) = be.Eth
	moveFragment(b, p, p.Src, be.Addr)
}

// NATReplyFragment does it for a backend's datagram, which becomes the VIP's.
func NATReplyFragment(b []byte, p *packet.Packet, vip packet.Addr, eth *[12]byte) {
	*(*[12]byte)(b) = *eth
	moveFragment(b, p, vip, p.Dst)
}

func moveFragment(b []byte, p *packet.Packet, src, dst packet.Addr) {
	decTTL(b, p)
	h := b[p.L3:]
	if p.V6 {
		src.Put16(h[8:])
		dst.Put16(h[24:])
		return
	}
	src.Put4(h[12:])
	dst.Put4(h[16:])
	packet.Update(h[10:], packet.AddrSum(p.Src)+packet.AddrSum(p.Dst), packet.AddrSum(src)+packet.AddrSum(dst))
}
