package steer

import (
	"fmt"
	"net/netip"
	"slices"
)

// The keys of the maps of prefixes (struct prefix and struct prefix_endpoint in steer.c). Bits counts from the start of what
// follows it, as the kernel's longest-prefix tries do, and is in the byte order of the machine.
type prefix struct {
	Bits uint32
	Addr address
}

type prefixEndpoint struct {
	Bits  uint32
	Port  [2]byte
	Proto uint8
	Zero  uint8
	Addr  address
}

// endpointBits are those of a prefixEndpoint before its address.
const endpointBits = 32

func (a address) masked(bits uint32) address {
	for i := range a {
		a[i] &= byte(uint(0xff00) >> min(max(int(bits)-8*i, 0), 8))
	}
	return a
}

func (s *RuleSet) addPrefix(k Key) error {
	if err := k.check(); err != nil {
		return err
	}
	p := netip.PrefixFrom(k.Addr.Unmap(), int(k.Bits))
	if !p.IsValid() || p.Masked() != p {
		return fmt.Errorf("%s/%d is not a prefix that begins with its first address", k.Addr, k.Bits)
	}
	bits := uint32(128 - k.Addr.Unmap().BitLen() + p.Bits())
	a := address(k.Addr.As16())
	if k.Port == 0 {
		s.prefixes[prefix{bits, a}] |= anyPortRole(k.Proto) | rolePrefix
		return nil
	}
	s.prefixes[prefix{bits, a}] |= portsRole(k.Proto) | rolePrefix
	s.prefixServices[prefixEndpoint{Bits: endpointBits + bits, Port: [2]byte{byte(k.Port >> 8), byte(k.Port)}, Proto: k.Proto, Addr: a}] = portsRole(k.Proto)
	return nil
}

// nest gives prefixes and single VIPs the roles of the prefixes around them, because a lookup finds only the narrowest.
func (s *RuleSet) nest() {
	seen := map[uint32]bool{}
	for p := range s.prefixes {
		seen[p.Bits] = true
	}
	for bits := range seen {
		s.lengths = append(s.lengths, bits)
	}
	slices.Sort(s.lengths)
	// From the widest on, so that what lies around a prefix is complete already.
	for i, bits := range s.lengths {
		for p := range s.prefixes {
			if p.Bits == bits {
				s.prefixes[p] |= s.around(p.Addr, s.lengths[:i])
			}
		}
	}
	for a, roles := range s.dests {
		if roles&roleMatched != 0 {
			s.dests[a] |= s.around(a, s.lengths)
		}
	}
	slices.Reverse(s.lengths)
}

// around returns the roles of all prefixes of these lengths that a lies in.
func (s *RuleSet) around(a address, lengths []uint32) (roles role) {
	for _, bits := range lengths {
		roles |= s.prefixes[prefix{bits, a.masked(bits)}]
	}
	return roles
}

// longest returns the roles of the longest prefix that a lies in, 0 if it lies in none.
func (s *RuleSet) longest(a address) role {
	for _, bits := range s.lengths {
		if roles, ok := s.prefixes[prefix{bits, a.masked(bits)}]; ok {
			return roles
		}
	}
	return 0
}

// inPrefix reports whether a service on a prefix has the endpoint.
func (s *RuleSet) inPrefix(e endpoint) bool {
	for _, bits := range s.lengths {
		k := prefixEndpoint{Bits: endpointBits + bits, Port: e.Port, Proto: e.Proto, Addr: e.Addr.masked(bits)}
		if _, ok := s.prefixServices[k]; ok {
			return true
		}
	}
	return false
}
