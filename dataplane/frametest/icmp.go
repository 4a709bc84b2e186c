package frametest

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
)

// Error builds an ICMP or ICMPv6 error of s's family from router to dst about quote, an IP packet of which no more than
// most bytes are quoted. rest is what follows the checksum: an MTU, or nothing. MAC addresses, VLAN tag and TTL are s's.
func (s Spec) Error(router, dst netip.Addr, icmpType, code uint8, rest uint32, quote []byte, most int) []byte {
	m := binary.BigEndian.AppendUint32([]byte{icmpType, code, 0, 0}, rest)
	m = append(m, quote[:min(most, len(quote))]...)
	s.Src, s.Dst = netip.AddrPortFrom(router, 0), netip.AddrPortFrom(dst, 0)
	s.Payload, s.UDP, s.IPOptions, s.Unfinished = nil, true, nil, false
	f := s.Build()
	l3 := s.l3()
	f = append(f[:s.l4():s.l4()], m...)
	if s.V6() {
		f[l3+6] = 58
		binary.BigEndian.PutUint16(f[l3+4:], uint16(len(m)))
		binary.BigEndian.PutUint16(f[s.l4()+2:], ^Sum(append(pseudo(router, dst, 58, len(m)), m...)))
		return f
	}
	f[l3+9] = 1
	binary.BigEndian.PutUint16(f[l3+2:], uint16(20+len(m)))
	FixIPv4(f[l3:])
	binary.BigEndian.PutUint16(f[s.l4()+2:], ^Sum(m))
	return f
}

// Packet returns the frame's IP packet, without Ethernet header, tags and padding.
func (s Spec) Packet() []byte {
	s.Pad = 0
	return slices.Clone(s.Build()[s.l3():])
}

// Unwrap returns the frame of what is within the outer IP header of f, IP in IP, which it checks.
func Unwrap(f []byte) ([]byte, error) {
	in, err := untunnel(f)
	if err == nil && len(in) == len(f) {
		return nil, fmt.Errorf("no tunnel: % x", f)
	}
	return in, err
}
