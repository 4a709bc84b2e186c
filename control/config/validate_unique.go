package config

import (
	"cmp"
	"fmt"
	"slices"
)

// A serviceKey is what no two services share.
type serviceKey struct {
	address  VIP
	port     uint16
	protocol string
}

// uniqueAddress reports a service that another one shadows.
func (v *validator) uniqueAddress(s *Service, where string, seen map[serviceKey]string) {
	if !s.Address.IsValid() || v.bad[&s.Port] || v.bad[&s.Protocol] {
		return
	}
	key := serviceKey{s.Address, s.Port, s.Protocol}
	if other, taken := seen[key]; taken {
		v.value(&s.Address, where, fmt.Sprintf("%s already has address %s, port %d, %s", other, s.Address, s.Port, s.Protocol),
			"change address, port or protocol, or move the backends into one service", s)
		return
	}
	seen[key] = where
}

// loops reports backends that are virtual addresses themselves. One that the director answers for is no server's, whatever
// the port. One with announce: off may be: the director takes what passes by on its way to the server's port. Then the
// server can be a backend on its other ports.
func (v *validator) loops(c *Config, taken map[serviceKey]string) {
	announced, lengths := make(map[VIP]string), []int(nil)
	for i := range c.Services {
		s := &c.Services[i]
		if s.Announce == "auto" && announced[s.Address] == "" {
			announced[s.Address] = label("service", i, s.Name)
		}
		if !slices.Contains(lengths, s.Address.Bits) {
			lengths = append(lengths, s.Address.Bits)
		}
	}
	for i := range c.Services {
		s := &c.Services[i]
		for j := range s.Backends {
			b := &s.Backends[j]
			if !b.Address.IsValid() || s.Address.Contains(b.Address) { // the latter is reported already
				continue
			}
			for _, bits := range lengths {
				other, at := owner(s, b, bits, announced, taken)
				if other == "" {
					continue
				}
				where := label("service", i, s.Name) + ": " + label("backend", j, b.Name)
				v.value(&b.Address, where, fmt.Sprintf("address %s is virtual: %s has %s, so that packets for it come back to the director", b.Address, other, at),
					"write the real server's own address", b)
				break
			}
		}
	}
}

// owner returns which service has b's address as its own, or in its prefix of so many bits, and what that service has.
func owner(s *Service, b *Backend, bits int, announced map[VIP]string, taken map[serviceKey]string) (other string, at VIP) {
	at = VIP{Addr: b.Address}
	if bits != 0 {
		p, err := b.Address.Prefix(bits)
		if err != nil {
			return "", at
		}
		at = VIP{p.Addr(), bits}
	}
	return cmp.Or(announced[at], taken[serviceKey{at, b.Port, s.Protocol}], taken[serviceKey{at, 0, s.Protocol}]), at
}
