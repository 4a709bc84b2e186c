package control

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"xlvs/control/config"
	"xlvs/control/health"
	"xlvs/control/neigh"
	"xlvs/dataplane"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// A service is a configured virtual service with what the loop has made of it. What a flow depends on is in its
// key: a service of another address, port, protocol or mode is another service, one of another name is not.
type service struct {
	conf     *config.Service
	key      string
	ref      table.Ref
	static   table.Service // all of its entry that the configuration decides
	backends []*backend    // in the order of the configuration
	byName   []*backend    // the same, sorted by name, as Maglev wants them

	built   *built      // table that workers have
	members []table.Ref // of its backends
	logged  *built      // table that the log last told of; nil: none yet
	began   time.Time   // when the configuration first had it
}

// A backend is a real server of a service. Its key is the service's with address and port: another name or weight
// changes where new flows go, and leaves the old ones alone.
type backend struct {
	svc    *service
	conf   *config.Backend
	key    string
	ref    table.Ref
	tun    bool
	static table.Backend // all of its entry that the configuration decides
	def    string        // what its health check is defined by; empty: it has none
	check  string        // ID of that check
	state
	shown state                     // what workers have of it: the API tells this
	base  dataplane.BackendCounters // what the slot's counters held when the backend got it
}

// A state is what the loop knows of a backend.
type state struct {
	up    bool
	known bool   // up is what a check found, or needs no check
	why   string // of up
	since time.Time
	route *route // replaced, never changed: backends of one address share it
}

// A route says how a backend is reached, or why it is not.
type route struct {
	hop neigh.Hop
	out int // index of the egress interface
	err error
}

var unseen = &route{err: neigh.ErrPending}

// model turns a configuration into services and backends, in its order.
func model(c *config.Config, now time.Time) []*service {
	out := make([]*service, len(c.Services))
	for i := range c.Services {
		sc := &c.Services[i]
		s := &service{conf: sc, key: fmt.Sprintf("%s|%d|%s|%s", sc.Address, sc.Port, sc.Protocol, sc.Forward), began: now}
		s.static = table.Service{
			Live: true, Name: sc.Name, Addr: packet.FromNetip(sc.Address.Unmap()), V6: sc.Address.Unmap().Is6(),
			Port: sc.Port, Proto: protoNumber(sc.Protocol), Mode: modeOf(sc.Forward),
			SloppyTCP: sc.SloppyTCP, Reject: sc.NoBackend == "reject",
			NoEcho: sc.Echo == "off", NoFragment: sc.Fragment == "drop", ClampMSS: clampMSS(sc),
		}
		shape(&s.static, sc)
		if sc.Timeouts != nil {
			t := timeouts(sc.Timeouts)
			s.static.Timeouts = &t
		}
		for j := range sc.Backends {
			s.backends = append(s.backends, newBackend(s, &sc.Backends[j]))
		}
		s.byName = slices.Clone(s.backends)
		slices.SortFunc(s.byName, func(a, b *backend) int { return strings.Compare(a.conf.Name, b.conf.Name) })
		out[i] = s
	}
	return out
}

func clampMSS(c *config.Service) uint16 {
	if c.MSSClamp == "auto" {
		return table.AutoMSS
	}
	return c.MSS()
}

func newBackend(s *service, bc *config.Backend) *backend {
	b := &backend{svc: s, conf: bc, key: fmt.Sprintf("%s|%s|%d", s.key, bc.Address.Unmap(), bc.Port),
		tun: s.conf.Forward == "tun", state: state{route: unseen}}
	if h := s.conf.Health; h != nil {
		b.def = fmt.Sprintf("%s %+v", checkAddr(h, bc), *h)
		b.why = "not checked yet"
	} else {
		b.up, b.known, b.why = true, true, "no health check is configured"
	}
	b.static = table.Backend{
		Live: true, Name: bc.Name, Addr: packet.FromNetip(bc.Address), V6: bc.Address.Unmap().Is6(), Port: bc.Port,
	}
	encapsulate(&b.static, s.conf.Tunnel)
	return b
}

func checkAddr(h *config.Health, b *config.Backend) netip.AddrPort {
	return netip.AddrPortFrom(b.Address.Unmap(), cmp.Or(h.Port, b.Port))
}

func protoNumber(name string) uint8 {
	if name == "udp" {
		return packet.ProtoUDP
	}
	return packet.ProtoTCP
}

func modeOf(forward string) table.Mode {
	switch forward {
	case "tun":
		return table.TUN
	case "nat":
		return table.NAT
	}
	return table.DR
}

// up counts the backends that packets get to: healthy, or not checked, and with a next hop.
func (s *service) up() (n int) {
	for _, b := range s.backends {
		if b.shown.up && b.shown.route.err == nil {
			n++
		}
	}
	return n
}

// settling reports whether first results are still under way. They begin within half a second; a check that gets no
// verdict must not keep it so for ever.
func (s *service) settling(now time.Time) bool {
	if s.conf.Health == nil || now.Sub(s.began) >= s.settled() {
		return false
	}
	return slices.ContainsFunc(s.backends, func(b *backend) bool { return !b.known })
}

// settled is how long after its beginning a service has its first results, whatever they are.
func (s *service) settled() time.Duration { return 600*time.Millisecond + s.conf.Health.Timeout }

func (b *backend) entry() table.Backend {
	e := b.static
	e.Up = b.up
	if b.route.err != nil {
		return e
	}
	hop := &b.route.hop
	e.Resolved, e.Out, e.MTU = true, uint8(b.route.out), uint16(min(hop.MTU, 65535))
	e.Eth = table.Eth(mac(hop.DstMAC), mac(hop.SrcMAC))
	if b.tun {
		e.TunSrc = packet.FromNetip(hop.Source)
	}
	return e
}

func mac(h net.HardwareAddr) (m table.MAC) {
	copy(m[:], h)
	return m
}

func backendsOf(services []*service) (n int) {
	for _, s := range services {
		n += len(s.backends)
	}
	return n
}

// targets are the health checks that the services ask for, each once.
func targets(services []*service) []health.Target {
	var out []health.Target
	seen := map[string]bool{}
	for _, s := range services {
		h := s.conf.Health
		if h == nil {
			continue
		}
		for _, b := range s.backends {
			if seen[b.check] {
				continue
			}
			seen[b.check] = true
			out = append(out, health.Target{ID: b.check, Addr: checkAddr(h, b.conf), Spec: health.Spec{
				Type: h.Type, Path: h.Path, Host: h.Host, Status: h.Status,
				Interval: h.Interval, Timeout: h.Timeout, Rise: h.Rise, Fall: h.Fall}})
		}
	}
	return out
}

// wants are the addresses whose next hops are needed. Where one of several backends on an address
// has a static MAC, the address is not asked for.
func wants(services []*service) []neigh.Want {
	byAddr := map[netip.Addr]neigh.Want{}
	for _, s := range services {
		for _, b := range s.backends {
			w := neigh.Want{Addr: b.conf.Address.Unmap()}
			if !b.conf.MAC.IsZero() {
				w.MAC = net.HardwareAddr(b.conf.MAC[:])
			}
			if old, ok := byAddr[w.Addr]; !ok || old.MAC == nil {
				byAddr[w.Addr] = w
			}
		}
	}
	out := make([]neigh.Want, 0, len(byAddr))
	for _, w := range byAddr {
		out = append(out, w)
	}
	return out
}
