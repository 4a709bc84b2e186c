package config

import (
	"fmt"
	"time"
)

// A timeoutField is one of Timeouts, with its key and the protocol whose flows it is for.
type timeoutField struct {
	key, protocol string
	value         *time.Duration
}

func (t *Timeouts) fields() []timeoutField {
	return []timeoutField{
		{"established", "tcp", &t.Established}, {"syn_recv", "tcp", &t.SynRecv}, {"fin_wait", "tcp", &t.FinWait},
		{"time_wait", "tcp", &t.TimeWait}, {"close", "tcp", &t.Close}, {"close_wait", "tcp", &t.CloseWait},
		{"last_ack", "tcp", &t.LastAck}, {"udp", "udp", &t.UDP},
	}
}

func (v *validator) timeouts(t *Timeouts, where string) {
	for _, f := range t.fields() {
		v.duration(f.value, where, f.key, *f.value, time.Millisecond, maxTimeout, t)
	}
}

// serviceTimeouts checks what a service says itself: the rest is the director's, and reported there.
func (v *validator) serviceTimeouts(s *Service, where string) {
	t := s.Timeouts
	switch {
	case t == nil || v.bad[t]:
		return
	case len(v.at) == 0: // of no file: nobody can tell
		v.timeouts(t, where)
		return
	case s.OnePacket:
		v.value(t, where, "one_packet keeps no flows that could time out", "remove one of the two", s)
		return
	}
	for _, f := range t.fields() {
		switch {
		case !v.given(f.value):
		case (s.Protocol == "tcp" || s.Protocol == "udp") && s.Protocol != f.protocol:
			v.value(f.value, where, fmt.Sprintf("%s has no meaning for %s", f.key, s.Protocol), "remove it", t)
		default:
			v.duration(f.value, where, f.key, *f.value, time.Millisecond, maxTimeout, t)
		}
	}
}
