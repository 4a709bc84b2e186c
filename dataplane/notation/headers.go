package notation

import (
	"encoding/binary"
	"net/netip"
	"strings"
)

var be = binary.BigEndian

func (b *builder) addr(s string) netip.Addr {
	a, err := netip.ParseAddr(s)
	if err != nil {
		b.fail("%q is not an IP address", s)
		return netip.IPv4Unspecified()
	}
	return a
}

func (b *builder) ip(l *layer, rest []layer) []byte {
	in := scope{b.addr(l.args[0]), b.addr(l.args[2])}
	if in.src.Is4() != in.dst.Is4() {
		b.fail("%s and %s are of different families", in.src, in.dst)
		return nil
	}
	proto := b.next(l, rest, in)
	body := b.layers(rest, in)
	if in.v6() {
		h := be.AppendUint32(nil, uint32(6<<28|b.num(l, "tos", 0, 255)<<20|b.num(l, "label", 0, 0xfffff)))
		h = be.AppendUint16(h, uint16(b.num(l, "len", uint64(len(body)), 65535)))
		h = append(h, proto, byte(b.num(l, "ttl", 64, 255)))
		h = append(append(h, in.src.AsSlice()...), in.dst.AsSlice()...)
		return append(h, body...)
	}
	options := b.bytes(l, "opts", "")
	n := 20 + len(options)
	h := []byte{byte(0x40 | b.num(l, "ihl", uint64(n/4), 15)), byte(b.num(l, "tos", 0, 255))}
	h = be.AppendUint16(h, uint16(b.num(l, "len", uint64(n+len(body)), 65535)))
	h = be.AppendUint16(h, uint16(b.num(l, "id", 0, 65535)))
	h = be.AppendUint16(h, b.fragment(l, 0x4000, 0x2000)|uint16(b.offset(l)/8))
	h = append(h, byte(b.num(l, "ttl", 64, 255)), proto, 0, 0)
	h = append(append(h, in.src.AsSlice()...), in.dst.AsSlice()...)
	h = append(h, options...)
	be.PutUint16(h[10:], b.csum(l, ^sum(h), 0))
	return append(h, body...)
}

// fragment returns the bits for "don't fragment" and "more fragments".
func (b *builder) fragment(l *layer, df, mf uint16) (bits uint16) {
	if l.has("df") {
		bits |= df
	}
	if l.has("mf") {
		bits |= mf
	}
	return bits
}

func (b *builder) offset(l *layer) uint64 {
	n := b.num(l, "off", 0, 65528)
	if n%8 != 0 {
		b.fail("off=%d: fragments begin at multiples of 8 bytes", n)
	}
	return n
}

// extension builds an IPv6 extension header (RFC 8200, 4).
func (b *builder) extension(l *layer, rest []layer, in scope) []byte {
	next := b.next(l, rest, in)
	var h []byte
	switch l.kind {
	case "frag":
		h = be.AppendUint16([]byte{next, 0}, uint16(b.offset(l))|b.fragment(l, 0, 1))
		h = be.AppendUint32(h, uint32(b.num(l, "id", 0, 0xffffffff)))
		return append(h, b.layers(rest, in)...)
	case "routing":
		h = append([]byte{next, 0, byte(b.num(l, "type", 4, 255)), byte(b.num(l, "left", 0, 255))}, b.bytes(l, "data", "00000000")...)
	default:
		h = append([]byte{next, 0}, b.bytes(l, "data", "010400000000")...) // PadN
	}
	if len(h)%8 != 0 {
		b.fail("%s: its length is %d bytes, which is no multiple of 8", l.kind, len(h))
	}
	h[1] = byte(len(h)/8 - 1)
	return append(h, b.layers(rest, in)...)
}

// flagLetters are the TCP flags from the lowest bit up (RFC 9293, 3.1).
const flagLetters = "FSRPAUEC"

func (b *builder) tcp(l *layer, rest []layer, in scope) []byte {
	flags := byte(0)
	for _, c := range l.args[3] {
		i := strings.IndexRune(flagLetters, c)
		if i < 0 && l.args[3] != "-" {
			b.fail("tcp flags %s: not made of %s, nor - for none", l.args[3], flagLetters)
		}
		if i >= 0 {
			flags |= 1 << i
		}
	}
	var options []byte
	if l.has("mss") {
		options = be.AppendUint16([]byte{2, 4}, uint16(b.num(l, "mss", 0, 65535)))
	}
	options = append(options, b.bytes(l, "opts", "")...)
	h := be.AppendUint16(nil, uint16(b.word(l.args[0], 65535)))
	h = be.AppendUint16(h, uint16(b.word(l.args[2], 65535)))
	h = be.AppendUint32(h, uint32(b.num(l, "seq", 1, 0xffffffff)))
	h = be.AppendUint32(h, uint32(b.num(l, "ack", 0, 0xffffffff)))
	h = append(h, byte(b.num(l, "off", uint64(5+len(options)/4), 15)<<4), flags)
	h = be.AppendUint16(h, uint16(b.num(l, "win", 512, 65535)))
	h = be.AppendUint16(append(h, 0, 0), uint16(b.num(l, "urg", 0, 65535)))
	h = append(append(h, options...), b.layers(rest, scope{})...)
	p := pseudo(in, 6, len(h))
	be.PutUint16(h[16:], b.csum(l, ^sum(append(p, h...)), sum(p)))
	return h
}

func (b *builder) udp(l *layer, rest []layer, in scope) []byte {
	h := be.AppendUint16(nil, uint16(b.word(l.args[0], 65535)))
	h = be.AppendUint16(h, uint16(b.word(l.args[2], 65535)))
	h = append(append(h, 0, 0, 0, 0), b.layers(rest, in)...)
	n := b.num(l, "len", uint64(len(h)), 65535)
	be.PutUint16(h[4:], uint16(n))
	p := pseudo(in, 17, int(n))
	s := ^sum(append(p, h[:min(int(n), len(h))]...))
	if s == 0 {
		s = 0xffff // 0 says that there is none (RFC 768)
	}
	be.PutUint16(h[6:], b.csum(l, s, sum(p)))
	return h
}

func (b *builder) icmp(l *layer, rest []layer, in scope) []byte {
	kind, code, _ := strings.Cut(l.args[0], "/")
	if code == "" {
		code = "0"
	}
	h := []byte{byte(b.word(kind, 255)), byte(b.word(code, 255)), 0, 0}
	switch {
	case l.has("rest"):
		h = append(h, b.bytes(l, "rest", "")...)
	case l.has("mtu"):
		h = be.AppendUint32(h, uint32(b.num(l, "mtu", 0, 0xffffffff)))
	default:
		h = be.AppendUint16(h, uint16(b.num(l, "id", 0, 65535)))
		h = be.AppendUint16(h, uint16(b.num(l, "seq", 0, 65535)))
	}
	h = append(h, b.layers(rest, scope{})...)
	var p []byte
	if in.v6() {
		p = pseudo(in, 58, len(h))
	}
	be.PutUint16(h[2:], b.csum(l, ^sum(append(p, h...)), sum(p)))
	return h
}

// gre builds a GRE header (RFC 2784), with the key of RFC 2890.
func (b *builder) gre(l *layer, rest []layer, in scope) []byte {
	var h []byte
	if l.has("key") {
		h = append(h, 0x20)
	} else {
		h = append(h, 0)
	}
	h = be.AppendUint16(append(h, 0), uint16(b.num(l, "type", etherType(rest), 0xffff)))
	if l.has("key") {
		h = be.AppendUint32(h, uint32(b.num(l, "key", 0, 0xffffffff)))
	}
	return append(h, b.layers(rest, in)...)
}

// csum is what stands in a checksum field: right, unless the text says otherwise.
func (b *builder) csum(l *layer, right, partial uint16) uint16 {
	switch l.opts["csum"] {
	case "":
		return right
	case "bad":
		// Off by a constant, so that an incremental update (RFC 1624) leaves it bad in the same way.
		return ^sum([]byte{byte(^right >> 8), byte(^right), 0x11, 0x11})
	case "partial":
		return partial
	}
	return uint16(b.num(l, "csum", 0, 65535))
}

// sum is the folded ones-complement sum of b (RFC 1071).
func sum(b []byte) uint16 {
	s := uint32(0)
	for i, c := range b {
		s += uint32(c) << (8 * (1 - i%2))
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// pseudo is the pseudo-header of RFC 9293, 3.1 and RFC 8200, 8.1.
func pseudo(in scope, proto byte, n int) []byte {
	if !in.src.IsValid() {
		return nil
	}
	p := append(in.src.AsSlice(), in.dst.AsSlice()...)
	if in.v6() {
		return append(be.AppendUint32(p, uint32(n)), 0, 0, 0, proto)
	}
	return be.AppendUint16(append(p, 0, proto), uint16(n))
}
