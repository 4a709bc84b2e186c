package control

import (
	"net/netip"
	"slices"

	"xlvs/dataplane/steer"
)

// rules are what the steering program is to look for.
func (c *Controller) rules(services []*service) steer.Rules {
	r := steer.Rules{Locals: append(c.neigh.Locals(), c.broadcasts()...)}
	for _, s := range services {
		p := protoNumber(s.conf.Protocol)
		r.Services = append(r.Services, steer.Key{Addr: s.conf.Address.Addr, Bits: uint8(s.conf.Address.Bits), Port: s.conf.Port, Proto: p})
		if s.conf.Forward == "tun" {
			for _, b := range s.backends {
				r.Tunnels = append(r.Tunnels, b.conf.Address.Unmap())
			}
		}
		if s.conf.Forward != "nat" {
			continue
		}
		for _, b := range s.backends {
			r.Replies = append(r.Replies, steer.Key{Addr: b.conf.Address.Unmap(), Port: b.conf.Port, Proto: p})
		}
	}
	return r
}

// broadcasts are the IPv4 broadcast addresses of the interfaces' subnets: what a NAT backend sends there is for the kernel.
func (c *Controller) broadcasts() []netip.Addr {
	var out []netip.Addr
	for _, f := range c.allFacts() {
		for _, p := range f.Addrs {
			if !p.Addr().Is4() || p.Bits() > 30 || p.Bits() == 0 { // RFC 3021: a /31 has none
				continue
			}
			a := p.Addr().As4()
			for bit := p.Bits(); bit < 32; bit++ {
				a[bit/8] |= 0x80 >> (bit % 8)
			}
			out = append(out, netip.AddrFrom4(a))
		}
	}
	return out
}

// A steering is what the kernel's rules are known to be.
type steering struct {
	rules steer.Rules
	sure  bool // false: an Apply failed, and they are something between these and those
}

// apply makes the kernel's rules r.
func (s *steering) apply(d Datapath, r steer.Rules) error {
	if s.sure && sameRules(r, s.rules) {
		return nil
	}
	if err := d.Apply(r); err != nil {
		s.sure = false
		return err
	}
	s.rules, s.sure = r, true
	return nil
}

// shrink removes the rules that r lacks, and adds none: it comes before workers forget what they were for.
func (s *steering) shrink(d Datapath, r steer.Rules) error {
	services, lost := both(s.rules.Services, r.Services)
	replies, gone := both(s.rules.Replies, r.Replies)
	if s.sure && !lost && !gone {
		return nil
	}
	// What lies at the ends of tunnels only says which errors are looked at: it may stay a moment longer.
	return s.apply(d, steer.Rules{Services: services, Replies: replies, Locals: r.Locals, Tunnels: r.Tunnels})
}

// both returns the elements of have that want has too, and whether there are others.
func both(have, want []steer.Key) (common []steer.Key, lost bool) {
	if slices.Equal(have, want) {
		return have, false
	}
	wanted := make(map[steer.Key]bool, len(want))
	for _, k := range want {
		wanted[k] = true
	}
	for _, k := range have {
		if wanted[k] {
			common = append(common, k)
		}
	}
	return common, len(common) < len(have)
}

func sameRules(a, b steer.Rules) bool {
	return slices.Equal(a.Services, b.Services) && slices.Equal(a.Replies, b.Replies) && slices.Equal(a.Locals, b.Locals) && slices.Equal(a.Tunnels, b.Tunnels)
}
