package offline

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"xlvs/dataplane/notation"
)

// router is where packets come from whose Ethernet header a case leaves out.
const router = "02:00:00:00:00:99"

// frame builds the packet for an interface with the given MAC address.
func (p *packet) frame(vars map[string]string, mac [6]byte) ([]byte, error) {
	s := expand(p.text, vars)
	if p.form != nil {
		var err error
		if s, err = p.form.line(vars); err != nil {
			return nil, err
		}
	}
	if strings.TrimSpace(s) == "" {
		return nil, fmt.Errorf("the packet is empty")
	}
	if !notation.HasEthernet(s) {
		s = fmt.Sprintf("eth %s > %s / %s", router, net.HardwareAddr(mac[:]), s)
	}
	return notation.Parse(s)
}

// texts are the packet's texts, in which variables may be.
func (p *packet) texts() []string {
	if f := p.form; f != nil {
		return []string{f.Proto, f.Src, f.Dst, f.Flags, f.TTL, f.TOS, f.ID, f.Payload, f.Length, f.Hex, f.Type}
	}
	return []string{p.text}
}

// line writes the mapping as layers.
func (f *form) line(vars map[string]string) (string, error) {
	v := *f
	for _, s := range []*string{&v.Proto, &v.Src, &v.Dst, &v.Flags, &v.TTL, &v.TOS, &v.ID, &v.Payload, &v.Length, &v.Hex, &v.Type} {
		*s = expand(*s, vars)
	}
	if v.Hex != "" {
		return "raw " + strings.Map(func(r rune) rune {
			if r == ' ' || r == '\n' {
				return -1
			}
			return r
		}, v.Hex), nil
	}
	switch v.Proto {
	case "tcp", "udp", "icmp":
	case "":
		return "", fmt.Errorf("the packet has neither proto nor hex; write proto: tcp, udp or icmp, or a line of layers")
	default:
		return "", fmt.Errorf("proto is %q; write tcp, udp or icmp, or a line of layers", v.Proto)
	}
	src, sport, err := v.endpoint(v.Src)
	if err != nil {
		return "", fmt.Errorf("src: %w", err)
	}
	dst, dport, err := v.endpoint(v.Dst)
	if err != nil {
		return "", fmt.Errorf("dst: %w", err)
	}
	layers := []string{fmt.Sprintf("ip %s > %s%s", src, dst, v.options())}
	switch v.Proto {
	case "tcp":
		if v.Flags == "" {
			return "", fmt.Errorf("tcp needs flags, such as S or PA; - for none")
		}
		layers = append(layers, fmt.Sprintf("tcp %d > %d %s", sport, dport, v.Flags))
	case "udp":
		layers = append(layers, fmt.Sprintf("udp %d > %d", sport, dport))
	case "icmp":
		kind := "8/0"
		if dst.Is6() {
			kind = "128/0"
		}
		if v.Type != "" {
			kind = v.Type
		}
		layers = append(layers, "icmp "+kind+" id=1 seq=1")
	}
	if v.Payload != "" {
		layers = append(layers, fmt.Sprintf("%q", v.Payload))
	}
	if v.Length != "" {
		layers = append(layers, "pay "+v.Length)
	}
	return strings.Join(layers, " / "), nil
}

func (f *form) options() string {
	var s strings.Builder
	for _, o := range [][2]string{{"ttl", f.TTL}, {"tos", f.TOS}, {"id", f.ID}} {
		if o[1] != "" {
			s.WriteString(" " + o[0] + "=" + o[1])
		}
	}
	if f.DF {
		s.WriteString(" df")
	}
	return s.String()
}

// endpoint reads an address, with a port where the protocol has them.
func (f *form) endpoint(s string) (netip.Addr, uint16, error) {
	if slices.Contains([]string{"tcp", "udp"}, f.Proto) {
		a, err := netip.ParseAddrPort(s)
		if err != nil {
			return netip.Addr{}, 0, fmt.Errorf("%q is no address with a port, such as 192.0.2.1:80 or [2001:db8::1]:80", s)
		}
		return a.Addr(), a.Port(), nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return netip.Addr{}, 0, fmt.Errorf("%q is no IP address", s)
	}
	return a, 0, nil
}
