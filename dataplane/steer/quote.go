package steer

import "encoding/binary"

// readQuote reads the destination of the packet that b, what an ICMP error quotes, begins with.
func (p *parsed) readQuote(b []byte) {
	var proto uint8
	var header int
	switch {
	case len(b) < 20 || p.v6 && len(b) < 40:
		return
	case p.v6 && b[0]>>4 == 6:
		p.quoted.Addr = address(b[24:40])
		if isMapped(&p.quoted.Addr) {
			p.quoted.Addr[10], p.quoted.Addr[11] = 0, 0
		}
		proto, header = walkQuoted(b, b[6])
	case !p.v6 && b[0]>>4 == 4 && binary.BigEndian.Uint16(b[6:])&0x1fff == 0:
		p.quoted.Addr = mapped(b[16:20])
		proto, header = b[9], int(b[0]&0xf)*4
	default:
		return
	}
	if header < 20 || len(b) < header+8 {
		return
	}
	p.quoted.Proto = proto
	copy(p.quoted.Port[:], b[header+2:])
}

// walkQuoted walks the extension headers that a client's IPv6 packet b has, the header of a first fragment among them, and returns
// where they end and what follows there; 0 for a later fragment, which has no ports, and for what is more or is not all there.
func walkQuoted(b []byte, proto uint8) (uint8, int) {
	at := 40
	for range maxQuotedExtensions {
		if !isExtension(proto) && proto != protoFragment {
			break
		}
		if at+8 > len(b) {
			return 0, at
		}
		ext := b[at : at+8]
		at += 8
		if proto != protoFragment {
			at += 8 * int(ext[1])
		} else if binary.BigEndian.Uint16(ext[2:])&0xfff8 != 0 {
			return 0, at
		}
		proto = ext[0]
	}
	return proto, at
}
