package packet

import "encoding/binary"

// A Fragment is what a fragment's header says (RFC 791, 3.2; RFC 8200, 4.5). Offset and Len count bytes of the
// fragmentable part.
type Fragment struct {
	ID     uint32
	Offset int
	Len    int
	More   bool // more fragments follow
	Proto  uint8
}

// maxDatagram is the most bytes that the length field of either family can say.
const maxDatagram = 65535

// Whole reports whether the fragment is the whole datagram (RFC 6946: an atomic fragment).
func (f *Fragment) Whole() bool { return f.Offset == 0 && !f.More }

// Fragment reads the header of p, whose Kind is KindFragment, in frame b. ok is false for what no sender makes: no
// data, an odd length before the end, or more in all than a datagram can have (the ping of death).
func (p *Packet) Fragment(b []byte) (f Fragment, ok bool) {
	f.Len, f.Proto = p.L4Len(), p.Proto
	head := int(p.L4) - int(p.L3)
	if p.V6 {
		h := b[int(p.L4)-8 : p.L4]
		field := binary.BigEndian.Uint16(h[2:])
		f.ID, f.Offset, f.More = binary.BigEndian.Uint32(h[4:]), int(field&^7), field&1 != 0
		head -= IPv6Len + 8 // the payload length counts other extension headers, and no fragment header once it is whole
	} else {
		h := b[p.L3:]
		field := binary.BigEndian.Uint16(h[6:])
		f.ID, f.Offset, f.More = uint32(binary.BigEndian.Uint16(h[4:])), int(field&0x1fff)*8, field&0x2000 != 0
	}
	ok = f.Len > 0 && (!f.More || f.Len%8 == 0) && head+f.Offset+f.Len <= maxDatagram
	return f, ok
}

// ParseFirst makes of p, a datagram's first fragment, what Parse makes of a whole packet: Kind, Ports, TCPFlags and
// Proto, with L4 behind any extension headers that follow the fragment header. It returns false, and leaves Kind
// as it was, where the fragment is no TCP or UDP, or ends within its header (RFC 1858: tiny fragments).
func (p *Packet) ParseFirst(b []byte) bool {
	q := *p
	if q.V6 && q.Proto != ProtoTCP && q.Proto != ProtoUDP && !skipExtensions(b, &q) {
		return false
	}
	l4, n := int(q.L4), q.L4Len()
	switch {
	case q.Proto == ProtoTCP && n >= TCPLen:
		off := int(b[l4+12]>>4) * 4
		if off < TCPLen || off > n {
			return false
		}
		q.Kind, q.TCPFlags = KindTCP, b[l4+13]
	case q.Proto == ProtoUDP && n >= UDPLen:
		q.Kind, q.TCPFlags = KindUDP, 0
	default:
		return false
	}
	q.Ports = Ports(binary.LittleEndian.Uint32(b[l4:]))
	*p = q
	return true
}
