package notation

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Format describes a frame so that Parse gives the same bytes again: whatever is not as it would be filled in is written
// out. A frame with no such description comes out as raw.
func Format(frame []byte) string {
	f := formatter{}
	f.frame(frame)
	s := strings.Join(f.out, " / ")
	if b, err := Parse(s); err == nil && bytes.Equal(b, frame) {
		return s
	}
	return "raw " + hex.EncodeToString(frame)
}

// A formatter collects the layers of a frame.
type formatter struct {
	out    []string
	src    netip.Addr // of the innermost IP header so far
	dst    netip.Addr
	offset int // of a fragment
}

func (f *formatter) add(format string, args ...any) {
	f.out = append(f.out, strings.TrimSpace(fmt.Sprintf(format, args...)))
}

// opt returns " key=value" where value is not what Parse takes for it.
func opt(key string, value, otherwise int) string {
	if value == otherwise {
		return ""
	}
	return fmt.Sprintf(" %s=%d", key, value)
}

func (f *formatter) frame(b []byte) {
	if len(b) < 14 {
		return
	}
	kind := be.Uint16(b[12:])
	f.add("eth %s > %s", net.HardwareAddr(b[6:12]), net.HardwareAddr(b[:6]))
	at := 14
	for (kind == 0x8100 || kind == 0x88a8) && len(b) >= at+4 {
		name := "vlan"
		if kind == 0x88a8 {
			name = "qinq"
		}
		tag := be.Uint16(b[at:])
		f.add("%s %d%s", name, tag&0xfff, opt("pcp", int(tag>>13), 0))
		kind, at = be.Uint16(b[at+2:]), at+4
	}
	f.network(kind, b[at:])
}

// network describes a packet, and what follows it in the frame.
func (f *formatter) network(kind uint16, b []byte) {
	var end int
	switch {
	case kind == 0x0800 && len(b) >= 20:
		end = int(be.Uint16(b[2:]))
	case kind == 0x86dd && len(b) >= 40:
		end = 40 + int(be.Uint16(b[4:]))
	default:
		f.out[len(f.out)-1] += fmt.Sprintf(" type=0x%04x", kind)
		f.payload(b)
		return
	}
	pad := 0
	if end < len(b) && zeros(b[end:]) {
		b, pad = b[:end], len(b)-end
	}
	f.ip(b)
	if pad > 0 {
		f.add("pad %d", pad)
	}
}

func zeros(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// ip describes a packet that fills b, whatever length it says it has.
func (f *formatter) ip(b []byte) {
	if len(b) > 0 && b[0]>>4 == 6 {
		f.ip6(b)
		return
	}
	if len(b) < 20 || len(b) < int(b[0]&15)*4 || b[0]&15 < 5 {
		f.payload(b)
		return
	}
	n := int(b[0]&15) * 4
	f.src, f.dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	frag := be.Uint16(b[6:])
	f.offset = int(frag&0x1fff) * 8
	s := opt("ttl", int(b[8]), 64) + opt("tos", int(b[1]), 0) + opt("id", int(be.Uint16(b[4:])), 0)
	if frag&0x4000 != 0 {
		s += " df"
	}
	if frag&0x2000 != 0 {
		s += " mf"
	}
	s += opt("off", f.offset, 0) + opt("len", int(be.Uint16(b[2:])), len(b))
	if n > 20 {
		s += " opts=" + hex.EncodeToString(b[20:n])
	}
	h := bytes.Clone(b[:n])
	be.PutUint16(h[10:], 0)
	s += sumOption(be.Uint16(b[10:]), ^sum(h), 0)
	f.add("ip %s > %s%s", f.src, f.dst, s)
	f.upper(b[9], b[n:])
}

func (f *formatter) ip6(b []byte) {
	if len(b) < 40 {
		f.payload(b)
		return
	}
	f.src, f.dst, f.offset = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), 0
	first := be.Uint32(b)
	f.add("ip %s > %s%s%s%s%s", f.src, f.dst, opt("ttl", int(b[7]), 64), opt("tos", int(first>>20&0xff), 0),
		opt("label", int(first&0xfffff), 0), opt("len", int(be.Uint16(b[4:])), len(b)-40))
	f.upper(b[6], b[40:])
}

// upper describes what an IP header says is protocol proto.
func (f *formatter) upper(proto byte, b []byte) {
	layers := len(f.out)
	switch {
	case f.offset > 0:
	case proto == 6 && len(b) >= 20 && len(b) >= int(b[12]>>4)*4 && b[12]>>4 >= 5:
		f.tcp(b)
	case proto == 17 && len(b) >= 8:
		f.udp(b)
	case proto == 1 && f.dst.Is4() && len(b) >= 8, proto == 58 && f.dst.Is6() && len(b) >= 8:
		f.icmp(b)
	case (proto == 4 || proto == 41) && len(b) >= 20 && (proto == 41) == (b[0]>>4 == 6):
		f.ip(b)
	case proto == 47 && len(b) >= 4 && b[0]&^0x20 == 0 && b[1] == 0 && (b[0] == 0 || len(b) >= 8):
		f.gre(b)
	case f.dst.Is6() && len(b) >= 8 && (proto == 0 || proto == 43 || proto == 44 || proto == 60):
		f.extension(proto, b)
	}
	if len(f.out) > layers {
		return
	}
	f.out[layers-1] += fmt.Sprintf(" proto=%d", proto)
	f.payload(b)
}

func (f *formatter) extension(kind byte, b []byte) {
	if kind == 44 {
		frag := be.Uint16(b[2:])
		f.offset = int(frag &^ 7)
		s := opt("off", f.offset, 0)
		if frag&1 != 0 {
			s += " mf"
		}
		f.add("frag%s%s", s, opt("id", int(be.Uint32(b[4:])), 0))
		f.upper(b[0], b[8:])
		return
	}
	n := 8 + 8*int(b[1])
	if n > len(b) {
		return
	}
	switch data := hex.EncodeToString(b[2:n]); {
	case kind == 43:
		f.add("routing%s%s data=%s", opt("left", int(b[3]), 0), opt("type", int(b[2]), 4), data[4:])
	case data == "010400000000":
		f.add("%s", map[byte]string{0: "hopopt", 60: "dstopt"}[kind])
	default:
		f.add("%s data=%s", map[byte]string{0: "hopopt", 60: "dstopt"}[kind], data)
	}
	f.upper(b[0], b[n:])
}

func (f *formatter) tcp(b []byte) {
	n := int(b[12]>>4) * 4
	flags := ""
	for i, c := range flagLetters {
		if b[13]>>i&1 != 0 {
			flags += string(c)
		}
	}
	if flags == "" {
		flags = "-"
	}
	s := opt("seq", int(be.Uint32(b[4:])), 1) + opt("ack", int(be.Uint32(b[8:])), 0) + opt("win", int(be.Uint16(b[14:])), 512) +
		opt("urg", int(be.Uint16(b[18:])), 0)
	options := b[20:n]
	if len(options) >= 4 && options[0] == 2 && options[1] == 4 {
		s += fmt.Sprintf(" mss=%d", be.Uint16(options[2:]))
		options = options[4:]
	}
	if len(options) > 0 {
		s += " opts=" + hex.EncodeToString(options)
	}
	f.add("tcp %d > %d %s%s%s", be.Uint16(b), be.Uint16(b[2:]), flags, s, f.transportSum(6, b, len(b), 16))
	f.payload(b[n:])
}

// transportSum describes the checksum of n bytes of b, which stands at off.
func (f *formatter) transportSum(proto byte, b []byte, n, off int) string {
	h := bytes.Clone(b[:min(n, len(b))])
	be.PutUint16(h[off:], 0)
	p := pseudo(scope{f.src, f.dst}, proto, n)
	right := ^sum(append(p, h...))
	if proto == 17 && right == 0 {
		right = 0xffff
	}
	return sumOption(be.Uint16(b[off:]), right, sum(p))
}

func sumOption(is, right, partial uint16) string {
	switch {
	case is == right:
		return ""
	case is == 0:
		return " csum=0"
	case is == partial:
		return " csum=partial"
	}
	return fmt.Sprintf(" csum=0x%04x", is)
}

func (f *formatter) udp(b []byte) {
	n := int(be.Uint16(b[4:]))
	s := opt("len", n, len(b))
	if n >= 8 {
		s += f.transportSum(17, b, n, 6)
	}
	f.add("udp %d > %d%s", be.Uint16(b), be.Uint16(b[2:]), s)
	f.payload(b[8:])
}

func (f *formatter) icmp(b []byte) {
	h := bytes.Clone(b)
	be.PutUint16(h[2:], 0)
	var p []byte
	if f.dst.Is6() {
		p = pseudo(scope{f.src, f.dst}, 58, len(b))
	}
	s := sumOption(be.Uint16(b[2:]), ^sum(append(p, h...)), sum(p))
	isError := b[0] < 128 && f.dst.Is6() || b[0] == 3 || b[0] == 4 || b[0] == 5 || b[0] == 11 || b[0] == 12
	tooBig := f.dst.Is6() && b[0] == 2 || f.dst.Is4() && b[0] == 3 && b[1] == 4
	switch {
	case tooBig:
		f.add("icmp %d/%d mtu=%d%s", b[0], b[1], binary.BigEndian.Uint32(b[4:]), s)
	case isError && !zeros(b[4:8]):
		f.add("icmp %d/%d rest=%x%s", b[0], b[1], b[4:8], s)
	default:
		f.add("icmp %d/%d%s%s%s", b[0], b[1], opt("id", int(be.Uint16(b[4:])), 0), opt("seq", int(be.Uint16(b[6:])), 0), s)
	}
	if isError && len(b) >= 28 && (b[8]>>4 == 4 || b[8]>>4 == 6) {
		f.ip(b[8:])
		return
	}
	f.payload(b[8:])
}

func (f *formatter) gre(b []byte) {
	n, s := 4, ""
	if b[0] == 0x20 {
		n, s = 8, fmt.Sprintf(" key=%d", be.Uint32(b[4:]))
	}
	f.add("gre%s", s)
	switch kind := be.Uint16(b[2:]); {
	case len(b) > n && (kind == 0x0800 && b[n]>>4 == 4 || kind == 0x86dd && b[n]>>4 == 6):
		f.ip(b[n:])
	default:
		f.out[len(f.out)-1] += fmt.Sprintf(" type=0x%04x", kind)
		f.payload(b[n:])
	}
}

// payload describes bytes that have no structure.
func (f *formatter) payload(b []byte) {
	if len(b) == 0 {
		return
	}
	for _, at := range []int{0, f.offset, f.offset - 8} {
		if at >= 0 && len(b) > 4 && bytes.Equal(b, Pattern(at, len(b))) {
			f.add("%s", strings.TrimSuffix(fmt.Sprintf("pay %d@%d", len(b), at), "@0"))
			return
		}
	}
	if s := string(b); len(b) <= 200 && strings.Trim(s, printable) == "" {
		f.add("%s", strconv.Quote(s))
		return
	}
	f.add("hex %x", b)
}

const printable = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 /.,:;?!-_\r\n"
