package control

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"xlvs/control/config"
	"xlvs/control/neigh"
	"xlvs/dataplane/steer"
	"xlvs/dataplane/table"
)

// Offline is what a configuration comes to without a kernel: what workers and steering program of a director
// would have, made by the same code, with next hops out of the configuration.
type Offline struct {
	Snapshot *table.Snapshot
	Rules    steer.Rules
	Checked  [][6]byte // by interface: the MAC address that frames must have; zeros where none is configured
	Warnings []string  // backends that cannot be reached, and why

	services []*service
}

// NewOffline works a configuration out. Every backend counts as up but for those in down, which are names, or
// service and name with a slash between.
func NewOffline(conf *config.Config, down []string) (*Offline, error) {
	now := time.Time{}
	c := &Controller{conf: conf, tables: map[string]*built{},
		serviceSlots: newSlots(table.MaxServices, 0), backendSlots: newSlots(table.MaxBackends, 0)}
	hops := newFileHops(conf)
	c.neigh, c.facts = hops, hops.facts
	for _, v := range c.configuredVLANs() {
		c.vlans, _ = c.takeIn(c.vlans, v) // it refuses what cannot be: another MAC address, and more than a configuration may have
	}
	o := &Offline{Checked: make([][6]byte, len(conf.Interfaces)), services: model(conf, now)}
	for i := range conf.Interfaces {
		o.Checked[i] = [6]byte(conf.Interfaces[i].MAC)
	}
	skeys, bkeys := keys(o.services)
	if err := c.serviceSlots.admit(skeys, now); err != nil {
		return nil, fmt.Errorf("services: %w", err)
	}
	if err := c.backendSlots.admit(bkeys, now); err != nil {
		return nil, fmt.Errorf("backends: %w", err)
	}
	for _, s := range o.services {
		s.ref = c.serviceSlots.ref(s.key)
		s.static.Ref = s.ref
		for _, b := range s.backends {
			b.ref = c.backendSlots.ref(b.key)
			b.static.Ref, b.static.Service = b.ref, s.ref
			o.settle(b, hops)
		}
	}
	if err := o.takeDown(down); err != nil {
		return nil, err
	}
	d, err := c.draft(conf, o.services)
	if err != nil {
		return nil, err
	}
	o.Snapshot, o.Rules = d.snap, c.rules(o.services)
	return o, nil
}

// settle gives a backend the state that nobody will find out about offline.
func (o *Offline) settle(b *backend, hops *fileHops) {
	b.up, b.known, b.why = true, true, "health is not checked offline"
	if b.route = hops.route(b); b.route.err != nil {
		o.Warnings = append(o.Warnings, fmt.Sprintf("service %s: backend %s: %v", b.svc.conf.Name, b.conf.Name, b.route.err))
	}
	b.shown = b.state
}

// takeDown makes the named backends count as down.
func (o *Offline) takeDown(names []string) error {
	for _, name := range names {
		found := false
		for _, s := range o.services {
			for _, b := range s.backends {
				if name == b.conf.Name || name == s.conf.Name+"/"+b.conf.Name {
					b.up, b.why, found = false, "named as down", true
					b.shown = b.state
				}
			}
		}
		if !found {
			return fmt.Errorf("no backend is called %s; name one as BACKEND or SERVICE/BACKEND", name)
		}
	}
	return nil
}

// fileHops takes the place of the kernel's neighbours and interfaces: what the configuration says of them.
type fileHops struct {
	facts  []neigh.Facts
	static map[netip.Addr]config.MAC
	ports  []neigh.Facts // facts, and behind them the VLANs', in the order of the controller's
}

func newFileHops(conf *config.Config) *fileHops {
	h := &fileHops{static: map[netip.Addr]config.MAC{}}
	for i := range conf.Interfaces {
		c := &conf.Interfaces[i]
		f := neigh.Facts{Name: c.Name, Index: i + 1, MAC: net.HardwareAddr(c.MAC[:]), MTU: c.MTU, Addrs: c.Addresses, Up: true}
		if c.MAC.IsZero() {
			f.MAC = net.HardwareAddr{2, 0, 0, 0, 0, byte(i + 1)}
		}
		if f.MTU == 0 {
			f.MTU = 1500
		}
		h.facts = append(h.facts, f)
	}
	h.ports = slices.Clone(h.facts)
	for i := range conf.Interfaces {
		for _, l := range conf.Interfaces[i].VLANs {
			on := &h.facts[i]
			f := neigh.Facts{Name: l.Name, Index: len(h.ports) + 1, MAC: on.MAC, MTU: cmp.Or(l.MTU, on.MTU), Addrs: l.Addresses, Up: true}
			h.ports = append(h.ports, f)
		}
	}
	for i := range conf.Services {
		for _, b := range conf.Services[i].Backends {
			if !b.MAC.IsZero() {
				h.static[b.Address.Unmap()] = b.MAC
			}
		}
	}
	return h
}

// route is how a backend is reached: by the first interface that has an address in its subnet, or by the first.
func (h *fileHops) route(b *backend) *route {
	hop, err := h.Lookup(b.conf.Address.Unmap())
	r := &route{hop: hop, out: hop.Ifindex - 1, err: err}
	if b.tun && !hop.Source.IsValid() {
		family := "IPv4"
		if b.conf.Address.Unmap().Is6() {
			family = "IPv6"
		}
		r.err = fmt.Errorf("interface %s has no %s address to tunnel from; give it one with `addresses`", hop.Interface, family)
	}
	return r
}

// Lookup implements nextHops.
func (h *fileHops) Lookup(a netip.Addr) (neigh.Hop, error) {
	f := &h.ports[0]
	if i := slices.IndexFunc(h.ports, func(f neigh.Facts) bool {
		return slices.ContainsFunc(f.Addrs, func(p netip.Prefix) bool { return p.Contains(a) })
	}); i >= 0 {
		f = &h.ports[i]
	}
	hop := neigh.Hop{Ifindex: f.Index, Interface: f.Name, SrcMAC: f.MAC, DstMAC: derivedMAC(a), MTU: f.MTU, Source: sourceFor(f.Addrs, a)}
	if m, ok := h.static[a]; ok {
		hop.DstMAC = net.HardwareAddr(m[:])
	}
	return hop, nil
}

// sourceFor picks the address that goes with destination a: one of its subnet, else the first of its family.
func sourceFor(addrs []netip.Prefix, a netip.Addr) (src netip.Addr) {
	for _, p := range addrs {
		switch {
		case p.Contains(a):
			return p.Addr()
		case !src.IsValid() && p.Addr().Is4() == a.Is4() && !p.Addr().IsLinkLocalUnicast():
			src = p.Addr()
		}
	}
	return src
}

// derivedMAC is 02:00 and the IPv4 address, or the last four bytes of the IPv6 address.
func derivedMAC(a netip.Addr) net.HardwareAddr {
	b := a.AsSlice()
	return append(net.HardwareAddr{2, 0}, b[len(b)-4:]...)
}

// Locals implements nextHops.
func (h *fileHops) Locals() (out []netip.Addr) {
	for _, f := range h.ports {
		for _, p := range f.Addrs {
			out = append(out, p.Addr())
		}
	}
	return out
}

// Interface implements nextHops.
func (h *fileHops) Interface(name string) (neigh.Facts, bool) {
	i := slices.IndexFunc(h.ports, func(f neigh.Facts) bool { return f.Name == name })
	if i < 0 {
		return neigh.Facts{}, false
	}
	return h.ports[i], true
}

// VLANs implements nextHops: all VLANs are the configuration's own.
func (h *fileHops) VLANs() []neigh.Facts { return nil }

// Set, Changed and Close implement nextHops: a configuration does not change by itself.
func (h *fileHops) Set([]neigh.Want) {}

// Changed implements nextHops.
func (h *fileHops) Changed() <-chan struct{} { return nil }

// Close implements nextHops.
func (h *fileHops) Close() error { return nil }

// KeepAddresses does nothing: there is no kernel.
func (h *fileHops) KeepAddresses(string) (*neigh.Setting, error) { return nil, nil }

// Doubt does nothing: what the file says is so.
func (h *fileHops) Doubt(netip.Addr) {}
