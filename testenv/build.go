package testenv

import (
	"fmt"
	"net/netip"
	"os"

	"xlvs/dataplane/table"
)

// build makes the hosts of the lab's layout, wires them and starts services and taps.
func (l *Lab) build() error {
	l.plan = plan{l.Options.Layout}
	steps := []func() error{l.addCore, l.wireSwitched, l.addServers, l.addTaps, l.awaitAddrs, l.startServices}
	if l.Options.Layout == Routed {
		steps[1] = l.wireRouted
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) addCore() (err error) {
	if l.Switch, err = l.AddHost("switch"); err != nil {
		return err
	}
	if err := l.Switch.Sysctl(quietSwitch()); err != nil {
		return err
	}
	if l.Client, err = l.AddHost("client"); err != nil {
		return err
	}
	l.Director, err = l.AddHost("director")
	return err
}

// quietSwitch keeps the switch's own IP stack out of what it bridges.
func quietSwitch() map[string]string {
	settings := map[string]string{
		"net.ipv6.conf.all.disable_ipv6":     "1",
		"net.ipv6.conf.default.disable_ipv6": "1",
	}
	// Present only in kernels with br_netfilter, where bridged packets would go through netfilter's IP hooks.
	for _, name := range []string{"ip", "ip6", "arp"} {
		if _, err := os.Stat("/proc/sys/net/bridge/bridge-nf-call-" + name + "tables"); err == nil {
			settings["net.bridge.bridge-nf-call-"+name+"tables"] = "0"
		}
	}
	return settings
}

func (l *Lab) wireSwitched() error {
	if err := l.addSegments(lan); err != nil {
		return err
	}
	if err := l.join(l.Client, "eth0", lan, l.plan.client, LinkOptions{MTU: l.Options.MTU}); err != nil {
		return err
	}
	l.DirectorInterfaces = []string{"eth0"}
	return l.join(l.Director, "eth0", lan, l.directorAddr(0), l.directorLink())
}

func (l *Lab) wireRouted() (err error) {
	if l.Router, err = l.AddHost("router"); err != nil {
		return err
	}
	// Forwarding comes before addresses: switching it on later would drop IPv6 routes learnt in between.
	if err := l.Router.Sysctl(map[string]string{"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}); err != nil {
		return err
	}
	segments := []segment{access, front, back, far}
	if err := l.addSegments(segments...); err != nil {
		return err
	}
	for i, s := range segments {
		addr := func(v6 bool) netip.Addr { return router(s, v6) }
		if err := l.join(l.Router, fmt.Sprintf("eth%d", i), s, addr, LinkOptions{MTU: l.Options.MTU}); err != nil {
			return err
		}
	}
	if err := l.join(l.Client, "eth0", access, l.plan.client, LinkOptions{MTU: l.Options.MTU}); err != nil {
		return err
	}
	l.DirectorInterfaces = []string{"eth0", "eth1"}
	if l.Options.Tags != Untagged {
		l.DirectorInterfaces = []string{"eth0"} // in both VLANs
	}
	if err := l.join(l.Director, "eth0", front, l.directorAddr(0), l.directorLink()); err != nil {
		return err
	}
	if err := l.join(l.Director, l.directorBack(), back, l.directorAddr(1), l.directorLink()); err != nil {
		return err
	}
	return l.RestoreRoutes()
}

// RestoreRoutes gives client, director and router the routes that their own subnets do not, as New did: to be called
// when one of their interfaces was down. In a switched lab there are none.
func (l *Lab) RestoreRoutes() error {
	if l.Router == nil {
		return nil
	}
	for _, v6 := range families {
		for _, r := range []struct {
			host   *Host
			dst    netip.Prefix
			via    netip.Addr
			ifname string
		}{
			{l.Client, anywhere(v6), router(access, v6), l.ifname("eth0", access)},
			{l.Director, anywhere(v6), router(front, v6), l.ifname("eth0", front)},
			{l.Director, far.prefix(v6), router(back, v6), l.ifname(l.directorBack(), back)},
			{l.Router, virtual.prefix(v6), l.plan.director(v6)[0], l.ifname("eth1", front)},
		} {
			if err := r.host.AddRoute(r.dst, r.via, r.ifname); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitAddrs waits for all addresses at once, since each takes the kernel a moment.
func (l *Lab) awaitAddrs() error {
	for _, v6 := range families {
		waits := map[*Host][]netip.Addr{l.Client: {l.plan.client(v6)}, l.Director: l.plan.director(v6)}
		if l.Router != nil {
			for _, s := range []segment{access, front, back, far} {
				waits[l.Router] = append(waits[l.Router], router(s, v6))
			}
		}
		for _, s := range l.Servers {
			waits[s.Host] = append(waits[s.Host], s.Addr(v6))
			if s.Mode != table.NAT {
				waits[s.Host] = append(waits[s.Host], s.VIP(v6))
			}
		}
		for h, addrs := range waits {
			for _, a := range addrs {
				if err := h.awaitAddr(a); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (l *Lab) directorLink() LinkOptions {
	return LinkOptions{MTU: l.Options.MTU, Queues: l.Options.Queues}
}

func (l *Lab) directorAddr(i int) func(bool) netip.Addr {
	return func(v6 bool) netip.Addr { return l.plan.director(v6)[i] }
}

// directorBack is the director's cable to the servers.
func (l *Lab) directorBack() string { return l.DirectorInterfaces[len(l.DirectorInterfaces)-1] }

// join plugs a host into a segment by a cable and gives it an address of each family there.
func (l *Lab) join(h *Host, cable string, s segment, addr func(v6 bool) netip.Addr, o LinkOptions) error {
	if err := l.plug(h, cable, s, o); err != nil {
		return err
	}
	for _, v6 := range families {
		if err := h.addAddr(l.ifname(cable, s), s.within(addr(v6))); err != nil {
			return err
		}
	}
	return nil
}

// plug connects eth<n> of a host to a segment; the far end is <host>-<n>.
func (l *Lab) plug(h *Host, cable string, s segment, o LinkOptions) error {
	if l.Options.Tags != Untagged {
		return l.plugTagged(h, cable, s, o)
	}
	return l.Plug(h, cable, s.bridge, h.port(cable), o)
}

// port is the name of the switch's end of an interface's cable.
func (h *Host) port(ifname string) string { return h.Name + "-" + ifname[len("eth"):] }

func (l *Lab) addServers() error {
	for _, m := range l.Options.Modes {
		for n := 1; n <= l.Options.Servers; n++ {
			if err := l.addServer(m, n); err != nil {
				return err
			}
		}
	}
	return nil
}

func (l *Lab) addServer(m table.Mode, n int) error {
	h, err := l.AddHost(serverName(m, n))
	if err != nil {
		return err
	}
	s := &Server{Host: h, Mode: m, lab: l, v4: l.plan.server(m, n, false), v6: l.plan.server(m, n, true)}
	l.Servers = append(l.Servers, s)
	seg := l.plan.segmentOf(m)
	if err := l.plug(h, "eth0", seg, LinkOptions{MTU: l.Options.MTU}); err != nil {
		return err
	}
	for _, v6 := range families {
		if err := l.addressServer(s, seg, v6); err != nil {
			return err
		}
	}
	if m == table.NAT {
		return nil
	}
	if err := l.holdVIPs(s); err != nil {
		return err
	}
	if m == table.TUN {
		return l.decapsulate(s)
	}
	return nil
}

// addressServer gives a server its own address and its way back to the client.
func (l *Lab) addressServer(s *Server, seg segment, v6 bool) error {
	own, gw, ifname := s.Addr(v6), l.plan.gateway(s.Mode, v6), l.ifname("eth0", seg)
	if s.Mode == table.NAT && l.Options.Layout == Switched {
		// On the client's own segment a NAT server that knew the subnet would answer the client directly, past
		// the director, and from an address that the client never called.
		if err := s.Host.addAddr(ifname, host(own)); err != nil {
			return err
		}
		if err := s.Host.AddRoute(host(gw), netip.Addr{}, ifname); err != nil {
			return err
		}
	} else if err := s.Host.addAddr(ifname, seg.within(own)); err != nil {
		return err
	}
	if !gw.IsValid() {
		return nil
	}
	return s.Host.AddRoute(anywhere(v6), gw, ifname)
}

// holdVIPs lets a DR or TUN server accept packets for the VIPs without claiming them on the segment.
// ARP needs the two settings, since Linux answers for any address of the host. Neighbour discovery
// answers only for addresses of the interface it was asked on (ndisc_recv_ns in net/ipv6/ndisc.c), and lo is another one.
func (l *Lab) holdVIPs(s *Server) error {
	if err := s.Host.Sysctl(map[string]string{
		"net.ipv4.conf.all.arp_ignore":   "1",
		"net.ipv4.conf.all.arp_announce": "2",
	}); err != nil {
		return err
	}
	for _, v6 := range families {
		if err := s.Host.addAddr("lo", host(s.VIP(v6))); err != nil {
			return err
		}
	}
	return nil
}
