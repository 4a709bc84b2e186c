package control

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"xlvs/control/announce"
	"xlvs/control/flowlog"
	"xlvs/control/neigh"
)

// lookAtInterfaces takes up what the kernel says of the director's interfaces.
func (c *Controller) lookAtInterfaces() {
	for i := range c.conf.Interfaces {
		f, ok := c.neigh.Interface(c.conf.Interfaces[i].Name)
		old := c.facts[i]
		if !ok {
			f = old
			f.Up = false
		}
		if f.Up != old.Up || old.Name == "" {
			switch {
			case !f.Up:
				c.log.Emit(flowlog.LinkDown{Interface: c.conf.Interfaces[i].Name})
			case old.Name != "":
				c.log.Emit(flowlog.LinkUp{Interface: f.Name})
			}
		}
		if !slices.Equal(f.MAC, old.MAC) {
			if err := c.opt.Datapath.SetMAC(i, f.MAC); err != nil {
				c.log.Emit(flowlog.Warning{Part: "steer", Err: err})
			}
		}
		c.facts[i] = f
	}
}

// Attached tells the controller that the steering programs are on the interfaces now: they learn their MAC addresses.
func (c *Controller) Attached() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, f := range c.facts {
		if err := c.opt.Datapath.SetMAC(i, f.MAC); err != nil {
			return err
		}
	}
	return nil
}

// lookAtNextHops finds out by which interface and to which MAC each backend is reached.
func (c *Controller) lookAtNextHops() {
	for _, s := range c.services {
		for _, b := range s.backends {
			c.lookAtHop(s, b)
		}
	}
}

func (c *Controller) lookAtHop(s *service, b *backend) {
	addr := b.conf.Address.Unmap()
	hop, err := c.neigh.Lookup(addr)
	out := -1
	if err == nil {
		if out = c.interfaceIndex(hop.Interface); out < 0 {
			err = fmt.Errorf("%v is reached by %s, which is not among `interfaces`: add it there", addr, hop.Interface)
		} else if s.conf.Forward == "tun" && (!hop.Source.IsValid() || hop.Source.Is4() != addr.Is4()) {
			err = fmt.Errorf("%s has no address from which to tunnel to %v: give it one", hop.Interface, addr)
		}
	}
	b.lost = err
	if err == nil {
		b.hop, b.out = hop, out
	}
	c.logHop(nextAddr(addr, b.hop.Gateway), b)
}

// logHop writes what changed about a next hop, once for all the backends behind it. An address that was never
// resolved is worth a line only once the first look-up is over.
func (c *Controller) logHop(next netip.Addr, b *backend) {
	known, seen := c.hops[next]
	switch {
	case b.lost == nil && (!seen || known.reason != "" || known.mac != mac(b.hop.DstMAC)):
		c.hops[next] = hopState{mac: mac(b.hop.DstMAC)}
		c.log.Emit(flowlog.NeighbourResolved{Address: next, MAC: mac(b.hop.DstMAC), Interface: b.hop.Interface})
	case b.lost != nil && known.reason != b.lost.Error() && !errors.Is(b.lost, neigh.ErrPending):
		c.hops[next] = hopState{mac: known.mac, reason: b.lost.Error()}
		c.log.Emit(flowlog.NeighbourLost{Address: next, MAC: known.mac, Interface: b.hop.Interface, Reason: b.lost.Error()})
	}
}

// hopState is what the log last said about a next hop.
type hopState struct {
	mac    [6]byte
	reason string // why it was lost; empty: resolved
}

func nextAddr(addr, gateway netip.Addr) netip.Addr {
	if gateway.IsValid() {
		return gateway
	}
	return addr
}

func (c *Controller) interfaceIndex(name string) int {
	for i := range c.conf.Interfaces {
		if c.conf.Interfaces[i].Name == name {
			return i
		}
	}
	return -1
}

// announceAll makes the announcer answer for the VIPs that want it.
func (c *Controller) announceAll() error {
	var vips []netip.Addr
	for _, s := range c.services {
		if a := s.conf.Address.Unmap(); s.conf.Announce != "off" && !slices.Contains(vips, a) {
			vips = append(vips, a)
		}
	}
	var ifs []announce.Interface
	for _, f := range c.facts {
		if f.Name != "" {
			ifs = append(ifs, announce.Interface{Name: f.Name, Index: f.Index, MAC: f.MAC, Addrs: f.Addrs, Up: f.Up, Ups: f.Ups, NoARP: f.NoARP})
		}
	}
	if err := c.ann.Set(ifs, vips); err != nil {
		return err
	}
	for _, st := range c.ann.Status() {
		for _, v := range st.VIPs {
			if slices.Contains(c.vips, v) {
				continue
			}
			c.log.Emit(flowlog.VIPAnnounced{Address: v, MAC: c.macOf(st.Interface), Interface: st.Interface})
		}
	}
	c.vips = vips
	return nil
}

func (c *Controller) macOf(name string) [6]byte {
	if i := c.interfaceIndex(name); i >= 0 {
		return mac(c.facts[i].MAC)
	}
	return [6]byte{}
}
