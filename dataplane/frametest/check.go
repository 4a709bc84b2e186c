package frametest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// Sum returns the folded ones-complement sum of b in 16-bit big-endian words, an odd last byte padded with
// zero, not complemented (RFC 1071).
func Sum(b []byte) uint16 {
	var s uint32
	for i := 0; i < len(b); i += 2 {
		w := uint32(b[i]) << 8
		if i+1 < len(b) {
			w |= uint32(b[i+1])
		}
		s += w
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// pseudo returns the pseudo-header for n bytes of an upper-layer protocol.
func pseudo(src, dst netip.Addr, proto uint8, n int) []byte {
	p := append(src.AsSlice(), dst.AsSlice()...)
	if src.Is4() {
		return append(p, 0, proto, byte(n>>8), byte(n))
	}
	return append(p, byte(n>>24), byte(n>>16), byte(n>>8), byte(n), 0, 0, 0, proto)
}

// An IP is one decoded IP header with what it carries.
type IP struct {
	V6       bool
	Src, Dst netip.Addr
	TTL, TOS uint8
	DF       bool
	ID       uint16 // IPv4
	Label    uint32 // IPv6
	Proto    uint8  // after destination options
	Header   []byte
	Body     []byte // from the transport header to the end of the packet
	Inner    *IP    // of a tunnel
}

// Ports returns the port numbers of TCP or UDP.
func (p *IP) Ports() (src, dst uint16) {
	return binary.BigEndian.Uint16(p.Body), binary.BigEndian.Uint16(p.Body[2:])
}

// A Frame is a decoded frame.
type Frame struct {
	Dst, Src [6]byte
	VLAN     int // -1: no tag
	Inner    int // of the second tag; -1: there is none
	IP       IP
}

// Decode takes a frame apart and recomputes every checksum in it, those of a tunnelled packet included; any
// that is wrong is an error, as is any length that does not fit.
func Decode(b []byte) (*Frame, error) {
	if len(b) < 14 {
		return nil, fmt.Errorf("%d bytes are no Ethernet frame", len(b))
	}
	f := &Frame{Dst: [6]byte(b), Src: [6]byte(b[6:]), VLAN: -1, Inner: -1}
	t, rest := binary.BigEndian.Uint16(b[12:]), b[14:]
	for tags := 0; tags < 2 && (t == 0x8100 || t == 0x88a8); tags++ {
		if len(rest) < 4 {
			return nil, fmt.Errorf("VLAN tag cut off")
		}
		vlan := &f.VLAN
		if tags == 1 {
			vlan = &f.Inner
		}
		*vlan = int(binary.BigEndian.Uint16(rest) & 0xfff)
		t, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
	}
	switch t {
	case 0x0800, 0x86dd:
	default:
		return nil, fmt.Errorf("EtherType %#x", t)
	}
	ip, err := decodeIP(rest, t == 0x86dd)
	if err != nil {
		return nil, err
	}
	f.IP = *ip
	return f, nil
}

func decodeIP(b []byte, v6 bool) (*IP, error) {
	p, err := decode4(b)
	if v6 {
		p, err = decode6(b)
	}
	if err != nil {
		return nil, err
	}
	inner, v6, err := p.tunnelled()
	if err != nil || inner == nil {
		return p, errors.Join(err, p.verify())
	}
	p.Inner, err = decodeIP(inner, v6)
	if err != nil {
		return nil, fmt.Errorf("inner: %w", err)
	}
	if got, want := len(p.Inner.Header)+len(p.Inner.Body), len(inner); got != want {
		return nil, fmt.Errorf("inner packet has %d bytes of %d", got, want)
	}
	return p, p.verify()
}

// GUEPort is the UDP port at which GUE is looked for.
const GUEPort = 6080

// tunnelled returns the packet inside p, nil if p is no tunnel's: IP in IP, GRE, or GUE at its usual port.
func (p *IP) tunnelled() (inner []byte, v6 bool, err error) {
	b := p.Body
	switch {
	case p.Proto == 4, p.Proto == 41:
		return b, p.Proto == 41, nil
	case p.Proto == 47:
		n := 4
		if len(b) >= 8 && b[0] == 0x80 {
			if s := Sum(b); s != 0xffff {
				return nil, false, fmt.Errorf("GRE checksum: sum is %#04x", s)
			}
			n = 8
		}
		if len(b) < n || b[0]&0x7f != 0 || b[1] != 0 {
			return nil, false, fmt.Errorf("GRE header % x", b[:min(len(b), 8)])
		}
		return b[n:], b[2] == 0x86, nil
	case p.Proto == 17 && len(b) >= 12 && binary.BigEndian.Uint16(b[2:]) == GUEPort:
		if b[8] != 0 || b[9] != 4 && b[9] != 41 || b[10]|b[11] != 0 {
			return nil, false, fmt.Errorf("GUE header % x", b[8:12])
		}
		return b[12:], b[9] == 41, nil
	}
	return nil, false, nil
}

func decode4(b []byte) (*IP, error) {
	if len(b) < 20 || b[0]>>4 != 4 || b[0]&15 < 5 {
		return nil, fmt.Errorf("no IPv4 header: % x", b[:min(len(b), 20)])
	}
	n, total := int(b[0]&15)*4, int(binary.BigEndian.Uint16(b[2:]))
	if total > len(b) || n > total {
		return nil, fmt.Errorf("IPv4: %d bytes of header, %d in all, %d there", n, total, len(b))
	}
	if s := Sum(b[:n]); s != 0xffff {
		return nil, fmt.Errorf("IPv4 header checksum: sum is %#04x", s)
	}
	src, _ := netip.AddrFromSlice(b[12:16])
	dst, _ := netip.AddrFromSlice(b[16:20])
	return &IP{Src: src, Dst: dst, TTL: b[8], TOS: b[1], DF: b[6]&0x40 != 0, ID: binary.BigEndian.Uint16(b[4:]), Proto: b[9],
		Header: b[:n], Body: b[n:total]}, nil
}

func decode6(b []byte) (*IP, error) {
	if len(b) < 40 || b[0]>>4 != 6 {
		return nil, fmt.Errorf("no IPv6 header: % x", b[:min(len(b), 40)])
	}
	end := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if end > len(b) {
		return nil, fmt.Errorf("IPv6: %d bytes, %d there", end, len(b))
	}
	src, _ := netip.AddrFromSlice(b[8:24])
	dst, _ := netip.AddrFromSlice(b[24:40])
	p := &IP{V6: true, Src: src, Dst: dst, TTL: b[7], TOS: b[0]<<4 | b[1]>>4, DF: true, Proto: b[6],
		Label: binary.BigEndian.Uint32(b) & 0xfffff, Header: b[:40], Body: b[40:end]}
	for p.Proto == 0 || p.Proto == 43 || p.Proto == 60 {
		if len(p.Body) < 8 || len(p.Body) < 8+int(p.Body[1])*8 {
			return nil, fmt.Errorf("extension header cut off")
		}
		n := 8 + int(p.Body[1])*8
		p.Proto, p.Header, p.Body = p.Body[0], b[:len(p.Header)+n], p.Body[n:]
	}
	return p, nil
}

// verify recomputes the checksum of what the packet carries.
func (p *IP) verify() error {
	var s uint16
	switch p.Proto {
	case 1:
		s = Sum(p.Body)
	case 6, 58:
		s = Sum(append(pseudo(p.Src, p.Dst, p.Proto, len(p.Body)), p.Body...))
	case 17:
		if len(p.Body) < 8 {
			return fmt.Errorf("UDP header cut off")
		}
		n := int(binary.BigEndian.Uint16(p.Body[4:]))
		if n < 8 || n > len(p.Body) {
			return fmt.Errorf("UDP length %d of %d", n, len(p.Body))
		}
		// IPv6 requires a checksum except of tunnels (RFC 6935): one that comes out as zero is sent as all ones.
		if binary.BigEndian.Uint16(p.Body[6:]) == 0 {
			if p.V6 && p.Inner == nil {
				return fmt.Errorf("UDP over IPv6 without a checksum")
			}
			return nil
		}
		s = Sum(append(pseudo(p.Src, p.Dst, p.Proto, n), p.Body[:n]...))
	default:
		return nil
	}
	if s != 0xffff {
		return fmt.Errorf("checksum of protocol %d: sum is %#04x", p.Proto, s)
	}
	return nil
}

// An ICMPError is what an ICMP or ICMPv6 error message says.
type ICMPError struct {
	Type, Code uint8
	MTU        int
	Quote      []byte // the packet that it is about, from its IP header
}

// ICMPError takes an ICMP message apart.
func (p *IP) ICMPError() (*ICMPError, error) {
	if p.Proto != 1 && p.Proto != 58 || len(p.Body) < 8 {
		return nil, fmt.Errorf("protocol %d with %d bytes is no ICMP error", p.Proto, len(p.Body))
	}
	return &ICMPError{Type: p.Body[0], Code: p.Body[1], MTU: int(binary.BigEndian.Uint32(p.Body[4:])), Quote: p.Body[8:]}, nil
}
