package config

import (
	"fmt"
	"net/netip"
	"strings"

	"xlvs/maglev"
)

func (v *validator) service(s *Service, where string) {
	usable := v.vip(s, where)
	if len(v.at) > 0 && !v.given(&s.Port) {
		v.value(&s.Port, where, "port is missing", "write port: with a number, or 0 for every port", s)
	}
	v.word(&s.Protocol, where, "protocol", s.Protocol, []string{"tcp", "udp"}, s)
	v.word(&s.Forward, where, "forward", s.Forward, []string{"dr", "tun", "nat"}, s)
	v.word(&s.Scheduler, where, "scheduler", s.Scheduler, []string{"maglev"}, s)
	v.word(&s.NoBackend, where, "no_backend", s.NoBackend, []string{"drop", "reject"}, s)
	v.word(&s.Announce, where, "announce", s.Announce, []string{"auto", "off"}, s)
	if s.SloppyTCP && s.Protocol == "udp" {
		v.value(&s.SloppyTCP, where, "sloppy_tcp has no meaning for udp", "remove it", s)
	}
	v.backends(s, where, usable)
	v.tableSize(s, where)
	v.packets(s, where)
	v.shape(s, where)
	v.serviceTimeouts(s, where+": timeouts")
	if s.Health != nil && !v.bad[s.Health] {
		v.health(s, where+": health")
	}
}

func (v *validator) tableSize(s *Service, where string) {
	members := 0
	for i := range s.Backends {
		if w := s.Backends[i].Weight; w != nil && *w > 0 {
			members++
		}
	}
	if err := maglev.CheckSize(s.TableSize, members); err != nil {
		problem, remedy, _ := strings.Cut(err.Error(), "; ")
		if s.TableSize < 251 { // the nearest prime would be of no use
			remedy = "use 65537, the default, or remove the key"
		}
		v.value(&s.TableSize, where, problem, remedy, s)
	}
}

func (v *validator) backends(s *Service, where string, usable bool) {
	names := make(map[string]position, len(s.Backends))
	hosts := make(map[netip.AddrPort]string, len(s.Backends))
	for i := range s.Backends {
		b := &s.Backends[i]
		if v.bad[b] {
			continue
		}
		bw := where + ": " + label("backend", i, b.Name)
		v.name(&b.Name, b, bw, "backend", names)
		if v.unicast(&b.Address, bw, b) {
			if usable {
				v.backendAddress(s, b, bw)
			}
			v.uniqueHost(b, bw, hosts)
		}
		v.backendPort(s, b, bw)
		if b.Weight != nil {
			v.number(b.Weight, bw, "weight", *b.Weight, 0, maglev.MaxWeight, b)
		}
		v.mac(&b.MAC, bw, b)
	}
}

func (v *validator) backendAddress(s *Service, b *Backend, where string) {
	switch {
	case s.Address.Bits != 0 && s.Address.Contains(b.Address):
		v.value(&b.Address, where, fmt.Sprintf("address %s is in the service's prefix %s", b.Address, s.Address), "write the real server's own address, which no service has", b)
	case b.Address == s.Address.Addr:
		v.value(&b.Address, where, fmt.Sprintf("address %s is the service's own", b.Address), "write the real server's address, not the virtual one", b)
	case b.Address.Is4() != s.Address.Is4() && (s.Forward == "dr" || s.Forward == "nat"):
		v.value(&b.Address, where, fmt.Sprintf("address %s and the service's %s are of different families, which %s cannot bridge", b.Address, s.Address, s.Forward),
			"use an address of the service's family, or forward: tun", b)
	}
}

func (v *validator) uniqueHost(b *Backend, where string, seen map[netip.AddrPort]string) {
	host := netip.AddrPortFrom(b.Address, b.Port)
	if other, taken := seen[host]; taken {
		v.value(&b.Address, where, fmt.Sprintf("backend %s already is %s port %d", other, b.Address, b.Port), "remove one of them; a larger weight gives a server a larger share", b)
		return
	}
	seen[host] = shorten(b.Name)
}

func (v *validator) backendPort(s *Service, b *Backend, where string) {
	if b.Port == s.Port || v.bad[&s.Port] {
		return
	}
	switch {
	case s.Forward == "dr" || s.Forward == "tun":
		v.value(&b.Port, where, fmt.Sprintf("port %d differs from the service's %d, and %s cannot change it", b.Port, s.Port, s.Forward),
			"remove the backend's port, or use forward: nat", b)
	case s.Port == 0:
		v.value(&b.Port, where, fmt.Sprintf("port %d cannot be set, as the service is on every port", b.Port),
			"remove the backend's port: each packet keeps its own; or give the service a port", b)
	}
}
