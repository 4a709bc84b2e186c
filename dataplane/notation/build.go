package notation

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Parse builds the frame that s describes. A text that does not begin with an eth or raw layer is a packet without
// its Ethernet header.
func Parse(s string) (frame []byte, err error) {
	ls, err := split(s)
	if err != nil {
		return nil, err
	}
	if len(ls) == 1 && ls[0].kind == "raw" {
		return hex.DecodeString(ls[0].args[0])
	}
	b := builder{}
	body := ls
	for len(body) > 0 && (body[len(body)-1].kind == "pad" || body[len(body)-1].kind == "cut") {
		body = body[:len(body)-1]
	}
	frame = b.layers(body, scope{})
	for _, l := range ls[len(body):] {
		n := b.word(l.args[0], 65535)
		if l.kind == "pad" {
			frame = append(frame, make([]byte, n)...)
		} else if int(n) < len(frame) {
			frame = frame[:n]
		}
	}
	return frame, b.err
}

// HasEthernet reports whether the frame that s describes begins with an Ethernet header of its own.
func HasEthernet(s string) bool {
	word, _, _ := strings.Cut(strings.TrimSpace(s), " ")
	return word == "eth" || word == "raw"
}

// A builder keeps the first error, so that what reads a number need not look at each.
type builder struct{ err error }

// A scope is what a layer must know of those around it: the addresses of the innermost IP header so far.
type scope struct{ src, dst netip.Addr }

func (s scope) v6() bool { return s.dst.Is6() }

func (b *builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf(format, args...)
	}
}

// word reads a number, decimal or 0x….
func (b *builder) word(s string, most uint64) uint64 {
	n, err := strconv.ParseUint(s, 0, 64)
	if err != nil || n > most {
		b.fail("%q is not a number up to %d", s, most)
		return 0
	}
	return n
}

// num reads option key, or returns what stands for it.
func (b *builder) num(l *layer, key string, otherwise, most uint64) uint64 {
	s, ok := l.opts[key]
	if !ok {
		return otherwise
	}
	return b.word(s, most)
}

func (b *builder) bytes(l *layer, key, otherwise string) []byte {
	s, ok := l.opts[key]
	if !ok {
		s = otherwise
	}
	v, err := hex.DecodeString(s)
	if err != nil {
		b.fail("%s=%s: not an even number of hexadecimal digits", key, s)
	}
	return v
}

func (b *builder) mac(s string) []byte {
	m, err := net.ParseMAC(s)
	if err != nil || len(m) != 6 {
		b.fail("%q is not an Ethernet address", s)
		return make([]byte, 6)
	}
	return m
}

// layers builds ls from the outside in.
func (b *builder) layers(ls []layer, in scope) []byte {
	if len(ls) == 0 {
		return nil
	}
	l, rest := &ls[0], ls[1:]
	switch l.kind {
	case "eth":
		h := append(b.mac(l.args[2]), b.mac(l.args[0])...)
		return b.tag(h, l, rest, in)
	case "vlan", "qinq":
		h := binary.BigEndian.AppendUint16(nil, uint16(b.num(l, "pcp", 0, 7)<<13|b.word(l.args[0], 4095)))
		return b.tag(h, l, rest, in)
	case "ip":
		return b.ip(l, rest)
	case "hopopt", "dstopt", "routing", "frag":
		return b.extension(l, rest, in)
	case "tcp":
		return b.tcp(l, rest, in)
	case "udp":
		return b.udp(l, rest, in)
	case "icmp":
		return b.icmp(l, rest, in)
	case "gre":
		return b.gre(l, rest, in)
	case "gue":
		h := []byte{0, b.next(l, rest, in), 0, 0}
		return append(h, b.layers(rest, in)...)
	}
	return append(b.payload(l), b.layers(rest, in)...)
}

func (b *builder) tag(h []byte, l *layer, rest []layer, in scope) []byte {
	h = binary.BigEndian.AppendUint16(h, uint16(b.num(l, "type", etherType(rest), 0xffff)))
	return append(h, b.layers(rest, in)...)
}

func etherType(rest []layer) uint64 {
	if len(rest) == 0 {
		return 0xffff
	}
	switch rest[0].kind {
	case "vlan":
		return 0x8100
	case "qinq":
		return 0x88a8
	case "ip":
		if strings.Contains(rest[0].args[0], ":") {
			return 0x86dd
		}
		return 0x0800
	}
	return 0xffff // reserved (RFC 1701): no protocol's
}

// next returns the IP protocol number of what follows l.
func (b *builder) next(l *layer, rest []layer, in scope) byte {
	if l.has("proto") {
		return byte(b.num(l, "proto", 0, 255))
	}
	if len(rest) == 0 {
		return 59 // no next header (RFC 8200, 4.7)
	}
	switch rest[0].kind {
	case "hopopt":
		return 0
	case "icmp":
		if in.v6() {
			return 58
		}
		return 1
	case "ip":
		if strings.Contains(rest[0].args[0], ":") {
			return 41
		}
		return 4
	case "tcp":
		return 6
	case "udp":
		return 17
	case "routing":
		return 43
	case "frag":
		return 44
	case "gre":
		return 47
	case "dstopt":
		return 60
	}
	return 59
}

// payload returns the bytes of a layer that has no structure.
func (b *builder) payload(l *layer) []byte {
	switch l.kind {
	case "text":
		return []byte(l.text)
	case "hex":
		v, err := hex.DecodeString(l.args[0])
		if err != nil {
			b.fail("hex %s: not an even number of hexadecimal digits", l.args[0])
		}
		return v
	case "pay":
		n, at, _ := strings.Cut(l.args[0], "@")
		if at == "" {
			at = "0"
		}
		return Pattern(int(b.word(at, 65535)), int(b.word(n, 65535)))
	}
	b.fail("%s cannot stand here", l.kind)
	return nil
}

// Pattern returns n bytes of an endless pattern, from byte at on. It differs from itself moved by any small distance.
func Pattern(at, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte((at+i)*7 ^ (at+i)>>8)
	}
	return p
}
