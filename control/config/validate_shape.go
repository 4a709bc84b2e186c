package config

import (
	"fmt"
	"time"

	"xlvs/dataplane/table"
)

// Limits of what a service may be.
const (
	maxAnnounced   = 256 // addresses of a prefix that are answered for
	maxServerID    = 15
	maxQUICConfig  = 6 // codepoint 7 marks connection IDs that name no server
	defaultGUEPort = 6080
)

// vip checks a service's address or prefix, and returns whether it can be used.
func (v *validator) vip(s *Service, where string) bool {
	if ok := v.unicastAt(s.Address.Addr, &s.Address, where, s); !ok || s.Address.Bits == 0 {
		return ok
	}
	p := s.Address.Prefix()
	host := s.Address.BitLen() - p.Bits()
	switch {
	case p.Masked() != p:
		v.value(&s.Address, where, fmt.Sprintf("address %s is inside of its prefix", p), fmt.Sprintf("write %s, or the one address without its prefix length", p.Masked()), s)
	case host > table.MaxPrefixBits:
		v.value(&s.Address, where, fmt.Sprintf("prefix %s has more than 65536 addresses", p),
			fmt.Sprintf("use a length of %d to %d, and more services for more addresses", s.Address.BitLen()-table.MaxPrefixBits, s.Address.BitLen()), s)
	case s.Announce == "auto" && 1<<host > maxAnnounced:
		v.value(&s.Announce, where, fmt.Sprintf("announce is auto, and prefix %s has more than %d addresses to answer for", p, maxAnnounced),
			"write announce: off, and route the prefix to the director", &s.Address, s)
	default:
		return true
	}
	return false
}

func (v *validator) shape(s *Service, where string) {
	v.word(&s.Hash, where, "hash", s.Hash, []string{"tuple", "source"}, s)
	if s.OnePacket {
		switch {
		case s.Protocol == "tcp":
			v.value(&s.OnePacket, where, "one_packet has no meaning for tcp", "remove it", s)
		case s.Forward == "nat":
			v.value(&s.OnePacket, where, "one_packet keeps no flows, and nat needs them for the replies", "remove it, or use forward: dr or tun", s)
		case s.QUIC != nil:
			v.value(&s.OnePacket, where, "one_packet keeps no flows, and quic needs them for handshakes", "remove one of the two", s)
		}
	}
	if s.Tunnel != nil && !v.bad[s.Tunnel] {
		v.tunnel(s, s.Tunnel, where+": tunnel")
	}
	if p := s.Persistence; p != nil && !v.bad[p] {
		v.duration(&p.Timeout, where+": persistence", "timeout", p.Timeout, time.Second, maxTimeout, p)
		if s.Address.IsValid() {
			v.number(&p.Mask, where+": persistence", "mask", p.Mask, 1, s.Address.BitLen(), p)
		}
	}
	v.quic(s, where)
}

func (v *validator) tunnel(s *Service, t *Tunnel, where string) {
	known := v.word(&t.Type, where, "type", t.Type, []string{"ipip", "gue", "gre"}, t)
	switch {
	case s.Forward != "tun":
		v.value(t, where, "a tunnel has no meaning for forward: "+shorten(s.Forward), "remove it, or use forward: tun", s)
	case !known:
	case t.Type != "gue" && v.given(&t.Port):
		v.value(&t.Port, where, t.Type+" has no ports", "remove port, or use type: gue", t)
	case t.Type == "gue" && t.Port == 0 && !v.bad[&t.Port]:
		v.value(&t.Port, where, "port is 0", fmt.Sprintf("write the UDP port that the servers expect GUE at, commonly %d", defaultGUEPort), t)
	case t.Type == "ipip" && t.Checksum != nil:
		v.value(t.Checksum, where, "ipip has no checksum", "remove checksum, or use type: gue or gre", t)
	}
}

func (v *validator) quic(s *Service, where string) {
	q := s.QUIC
	if q == nil {
		for i := range s.Backends {
			if b := &s.Backends[i]; b.ServerID != nil {
				v.value(&b.ServerID, where+": "+label("backend", i, b.Name), "server_id has no meaning without the service's quic", "remove it, or add quic to the service", b)
			}
		}
		return
	}
	if v.bad[q] {
		return
	}
	qw := where + ": quic"
	if s.Protocol == "tcp" {
		v.value(q, where, "quic has no meaning for tcp", "remove it, or use protocol: udp", s)
	}
	v.number(&q.ConfigID, qw, "config_id", q.ConfigID, 0, maxQUICConfig, q)
	if !v.number(&q.ServerIDLength, qw, "server_id_length", q.ServerIDLength, 1, maxServerID, q) {
		return
	}
	seen := map[string]string{}
	for i := range s.Backends {
		b := &s.Backends[i]
		bw := where + ": " + label("backend", i, b.Name)
		id := b.ServerID.String()
		switch other, taken := seen[id]; {
		case v.bad[&b.ServerID]:
		case b.ServerID == nil:
			v.value(&b.ServerID, bw, "server_id is missing", fmt.Sprintf("write the %d bytes that the server puts into its connection IDs, in hexadecimal", q.ServerIDLength), b)
		case len(b.ServerID) != q.ServerIDLength:
			v.value(&b.ServerID, bw, fmt.Sprintf("server_id has %d bytes, and the service's server_id_length is %d", len(b.ServerID), q.ServerIDLength), "make them agree", b)
		case taken:
			v.value(&b.ServerID, bw, fmt.Sprintf("backend %s has server_id %s already", other, id), "give each server its own", b)
		default:
			seen[id] = shorten(b.Name)
		}
	}
}
