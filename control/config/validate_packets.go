package config

import (
	"fmt"
	"strconv"
)

// Bounds of a maximum segment size: what every host must take (RFC 9293, 3.7.1), and what fits the largest IPv4 packet.
const (
	minMSS = 536
	maxMSS = 65495
)

// packets checks what a service does with packets that are special.
func (v *validator) packets(s *Service, where string) {
	v.word(&s.Echo, where, "echo", s.Echo, []string{"on", "off"}, s)
	v.word(&s.Fragment, where, "fragment", s.Fragment, []string{"fragment", "drop"}, s)
	switch {
	case s.MSSClamp == "off":
	case s.Protocol == "udp":
		v.value(&s.MSSClamp, where, "mss_clamp has no meaning for udp", "remove it", s)
	case s.MSSClamp == "auto" || s.MSS() != 0:
	default:
		v.value(&s.MSSClamp, where, fmt.Sprintf("mss_clamp is %s", shorten(s.MSSClamp)), fmt.Sprintf("use off, auto, or a number from %d to %d", minMSS, maxMSS), s)
	}
}

// MSS returns the number of bytes that mss_clamp gives, 0 where it gives none.
func (s *Service) MSS() uint16 {
	n, err := strconv.Atoi(s.MSSClamp)
	if err != nil || n < minMSS || n > maxMSS {
		return 0
	}
	return uint16(n)
}
