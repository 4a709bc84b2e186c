package control

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"xlvs/control/config"
	"xlvs/control/flowlog"
	"xlvs/control/neigh"
	"xlvs/dataplane/table"
)

// lookAtInterfaces takes up what the kernel says of the director's interfaces. What was known of one that
// vanished stays, but for its being up.
func (c *Controller) lookAtInterfaces() {
	for i, old := range c.facts {
		name := c.conf.Interfaces[i].Name
		f, ok := c.neigh.Interface(name)
		if ok && old.Name != "" && f.Index != old.Index {
			c.fatal, ok = errMadeAnew(name), false
		}
		if !ok {
			f = old
			f.Up = false
		}
		switch {
		case !f.Up && (old.Up || old.Name == ""):
			c.say(flowlog.LinkDown{Interface: name, Reason: whyDown(ok)})
		case f.Up && !old.Up && old.Name != "":
			c.sayUp(name)
		}
		c.warn("neigh", name+" MTU", c.checkMTU(&f))
		c.mu.Lock()
		c.facts[i] = f
		c.mu.Unlock()
		c.tellMAC(i, f.MAC)
	}
	c.lookAtVLANs()
	c.keepAddresses()
}

func whyDown(here bool) string {
	if here {
		return "it is set down or has no carrier"
	}
	return "it was removed"
}

func errMadeAnew(name string) error {
	return fmt.Errorf("%s was removed and made anew: the director's sockets and steering program went with the old one; start the director again", name)
}

// checkMTU tells whether packet memory, which is laid out once, has room for an interface's frames.
func (c *Controller) checkMTU(f *neigh.Facts) error {
	if most := c.opt.MaxMTU; most > 0 && f.MTU > most {
		return fmt.Errorf("%s has an MTU of %d by now, but the director's frames hold packets of %d bytes at most, and larger ones are lost:"+
			" set it back (`ip link set %s mtu %d`), or start the director again, which then makes its frames larger if it can",
			f.Name, f.MTU, most, f.Name, most)
	}
	return nil
}

// sayUp tells of a link that came up. What is still out of reach behind it a moment later is told of once more, since
// the reason cannot be the same.
func (c *Controller) sayUp(name string) {
	c.say(flowlog.LinkUp{Interface: name})
	now := time.Now()
	for _, h := range c.hops {
		if h.lost && (h.ifname == name || h.ifname == "") {
			h.lost, h.since = false, now
		}
	}
}

// A linkTime is an interface from one of its comings up to the next.
type linkTime struct {
	index int
	ups   uint64
}

// keepAddresses has the kernel keep the static IPv6 addresses of interfaces that go down. Where that fails, it is tried and told again
// when the link has come up, which the addresses will not survive a second time.
func (c *Controller) keepAddresses() {
	for _, f := range c.allFacts() {
		at := linkTime{f.Index, f.Ups}
		about := f.Name + " addresses"
		if !f.Static6 {
			delete(c.keeping, f.Name)
			c.warn("neigh", about, nil)
			continue
		}
		if c.keeping[f.Name] == at {
			continue
		}
		c.keeping[f.Name] = at
		s, err := c.neigh.KeepAddresses(f.Name)
		c.warn("neigh", about, nil)
		c.warn("neigh", about, err)
		if s != nil {
			c.say(flowlog.SettingChanged{Setting: s.Name, Was: s.Was, Value: s.Is,
				Reason: fmt.Sprintf("%s is to keep its IPv6 addresses when it is set down", f.Name)})
		}
	}
}

// tellChecks tells the health checks which backends this host cannot reach by its own fault. That lasts until one is resolved.
func (c *Controller) tellChecks() {
	for id, all := range c.byCheck {
		err := all[0].route.err
		if cut := errors.Is(err, neigh.ErrCut) || c.cut[id] && err != nil; cut != c.cut[id] {
			c.parts.health.Cut(id, cut)
			if c.cut[id] = cut; !cut {
				delete(c.cut, id)
			}
		}
	}
	maps.DeleteFunc(c.cut, func(id string, _ bool) bool { return c.byCheck[id] == nil })
}

// tellMAC keeps the steering program up to date; until that succeeds it is tried again.
func (c *Controller) tellMAC(i int, mac net.HardwareAddr) {
	if slices.Equal(c.macs[i], mac) {
		return
	}
	err := c.opt.Datapath.SetMAC(i, mac)
	if err == nil {
		c.macs[i] = mac
	} else {
		c.due.within(retryAfter)
	}
	c.warn("steer", c.conf.Interfaces[i].Name, err)
}

// A routeKey is what a backend's route depends on.
type routeKey struct {
	addr netip.Addr
	mac  config.MAC // static one
	tun  bool
}

func (b *backend) routeKey() routeKey { return routeKey{b.conf.Address.Unmap(), b.conf.MAC, b.tun} }

// lookAtHops finds out by which interface and to which MAC each backend is reached.
func (c *Controller) lookAtHops(services []*service) {
	routes := map[routeKey]*route{}
	for _, s := range services {
		for _, b := range s.backends {
			k := b.routeKey()
			if routes[k] == nil {
				routes[k] = c.route(k)
			}
			b.route = routes[k]
		}
	}
}

func (c *Controller) route(k routeKey) *route {
	hop, err := c.neigh.Lookup(k.addr)
	if err != nil {
		return &route{err: err}
	}
	out, err := c.egress(hop.Interface, hop.Ifindex)
	switch {
	case err != nil:
		err = fmt.Errorf("%v is reached by %w", k.addr, err)
	case k.tun && (!hop.Source.IsValid() || hop.Source.Is4() != k.addr.Is4()):
		err = fmt.Errorf("%s has no address from which to tunnel to %v: give it one", hop.Interface, k.addr)
	}
	if !k.mac.IsZero() {
		hop.DstMAC = net.HardwareAddr(k.mac[:])
	}
	return &route{hop: hop, out: out, err: err}
}

// patience is how long an address may be without an answer before the log tells: the kernel asks three times,
// a second apart. The first answer usually comes at once, but on a link that just came up the first question may be lost.
const patience = 1500 * time.Millisecond

// A hopState is what the log last said about a route.
type hopState struct {
	since    time.Time // when it was first seen without having been told of
	resolved bool
	lost     bool
	next     netip.Addr
	mac      table.MAC
	ifname   string
}

// tellHops writes what changed about next hops, once for all the backends behind one.
func (c *Controller) tellHops(now time.Time) {
	seen, told := make(map[routeKey]bool, len(c.hops)), map[flowlog.Record]bool{}
	for _, s := range c.services {
		for _, b := range s.backends {
			k := b.routeKey()
			if seen[k] {
				continue
			}
			seen[k] = true
			if c.hops[k] == nil {
				c.hops[k] = &hopState{since: now, next: k.addr}
			}
			c.tellHop(k.addr, c.hops[k], b.route, told, now)
		}
	}
	for k := range c.hops {
		if !seen[k] {
			delete(c.hops, k)
		}
	}
}

func (c *Controller) tellHop(addr netip.Addr, h *hopState, r *route, told map[flowlog.Record]bool, now time.Time) {
	if r.err == nil {
		next := r.hop.Gateway
		if !next.IsValid() {
			next = addr
		}
		is := hopState{resolved: true, next: next, mac: mac(r.hop.DstMAC), ifname: r.hop.Interface}
		if *h == is {
			return
		}
		*h = is
		line := flowlog.NeighbourResolved{Address: is.next, MAC: is.mac, Interface: is.ifname}
		if !told[line] {
			told[line] = true
			c.say(line)
		}
		return
	}
	if h.lost || errors.Is(r.err, neigh.ErrPending) {
		return
	}
	if wait := patience - now.Sub(h.since); !h.resolved && wait > 0 {
		c.due.within(wait)
		return
	}
	h.lost, h.resolved = true, false
	same := flowlog.NeighbourLost{Address: h.next, MAC: h.mac, Interface: h.ifname}
	if !told[same] {
		told[same] = true
		line := same
		line.Reason = r.err.Error()
		c.say(line)
	}
}
