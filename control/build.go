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
	"xlvs/control/flowlog"
	"xlvs/control/neigh"
	"xlvs/dataplane/flow"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/steer"
	"xlvs/dataplane/table"
	"xlvs/maglev"
)

// A service is a configured virtual service with what the loop has made of it.
type service struct {
	conf     *config.Service
	key      string
	backends []*backend
	tableOf  string // what the Maglev table was built of
	table    *maglev.Table
	members  []table.Ref
}

// A backend is a real server of a service.
type backend struct {
	conf  *config.Backend
	key   string
	check string // ID of its health check; empty: none
	up    bool
	why   string // of up
	since time.Time
	hop   neigh.Hop
	lost  error // why hop is not known
	out   int   // index of the egress interface
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

// model turns a configuration into services and backends, in its order.
func model(c *config.Config) []*service {
	var out []*service
	for i := range c.Services {
		sc := &c.Services[i]
		s := &service{conf: sc, key: fmt.Sprintf("%s|%d|%s|%s", sc.Address.Unmap(), sc.Port, sc.Protocol, sc.Forward)}
		for j := range sc.Backends {
			bc := &sc.Backends[j]
			b := &backend{conf: bc, up: sc.Health == nil, why: "no health check is configured", out: -1,
				key: fmt.Sprintf("%s|%s|%s|%d", s.key, bc.Name, bc.Address.Unmap(), bc.Port)}
			if sc.Health != nil {
				b.check, b.why = checkID(sc.Health, bc), "not checked yet"
			}
			s.backends = append(s.backends, b)
		}
		out = append(out, s)
	}
	return out
}

// checkID names a check by all that defines it, so that backends which are the same host, port and
// check in many services are checked once.
func checkID(h *config.Health, b *config.Backend) string {
	return fmt.Sprintf("%s %s %+v", b.Name, checkAddr(h, b), *h)
}

func checkAddr(h *config.Health, b *config.Backend) netip.AddrPort {
	return netip.AddrPortFrom(b.Address.Unmap(), cmp.Or(h.Port, b.Port))
}

// makeTable builds the service's Maglev table if its live backends or weights changed, or takes one
// that was built of the same already. It returns how many slots moved, and whether the table is new.
func (s *service) makeTable(cache map[string]*maglev.Table, refs *slots) (moved int, changed bool, err error) {
	var in []maglev.Backend
	byName := map[string]table.Ref{}
	for _, b := range s.backends {
		byName[b.conf.Name] = refs.ref(b.key)
		if b.up && *b.conf.Weight > 0 {
			in = append(in, maglev.Backend{Name: b.conf.Name, Weight: *b.conf.Weight})
		}
	}
	slices.SortFunc(in, func(a, b maglev.Backend) int { return strings.Compare(a.Name, b.Name) })
	of := fmt.Sprintf("%d", s.conf.TableSize)
	for _, b := range in {
		of += fmt.Sprintf(" %q:%d", b.Name, b.Weight)
	}
	next := s.table
	if of != s.tableOf || next == nil {
		if next = cache[of]; next == nil {
			if next, err = maglev.New(in, s.conf.TableSize); err != nil {
				return 0, false, fmt.Errorf("service %s: %w", s.conf.Name, err)
			}
			cache[of] = next
		}
		moved, changed = maglev.Moved(s.table, next), true
	}
	members := make([]table.Ref, len(next.Names()))
	for i, n := range next.Names() {
		members[i] = byName[n]
	}
	if !slices.Equal(members, s.members) {
		s.members = members
	}
	s.table, s.tableOf = next, of
	return moved, changed, nil
}

// build makes a snapshot of the present state.
func (c *Controller) build() (*table.Snapshot, []flowlog.TablePublished, error) {
	snap := &table.Snapshot{
		Generation: c.generation + 1,
		Services:   make([]table.Service, c.serviceSlots.size()),
		Backends:   make([]table.Backend, c.backendSlots.size()),
		Ports:      c.ports(),
		Timeouts:   timeouts(&c.conf.Director.Timeouts),
	}
	var published []flowlog.TablePublished
	cache := map[string]*maglev.Table{}
	for _, s := range c.services {
		if s.table != nil {
			cache[s.tableOf] = s.table
		}
	}
	for _, s := range c.services {
		start := time.Now()
		moved, changed, err := s.makeTable(cache, c.backendSlots)
		if err != nil {
			return nil, nil, err
		}
		if changed {
			published = append(published, flowlog.TablePublished{Service: s.conf.Name, Generation: snap.Generation,
				Backends: len(s.members), Slots: len(s.table.Slots()), SlotsMoved: moved, Build: time.Since(start)})
		}
		ref := c.serviceSlots.ref(s.key)
		snap.Services[ref.Slot()] = s.entry(ref)
		for _, b := range s.backends {
			r := c.backendSlots.ref(b.key)
			snap.Backends[r.Slot()] = b.entry(s, r, ref)
		}
	}
	snap, err := table.New(snap)
	return snap, published, err
}

func (s *service) entry(ref table.Ref) table.Service {
	return table.Service{
		Live: true, Ref: ref, Name: s.conf.Name,
		Addr: packet.FromNetip(s.conf.Address), V6: s.conf.Address.Unmap().Is6(),
		Port: s.conf.Port, Proto: protoNumber(s.conf.Protocol), Mode: modeOf(s.conf.Forward),
		SloppyTCP: s.conf.SloppyTCP, Reject: s.conf.NoBackend == "reject",
		Slots: s.table.Slots(), Members: s.members,
	}
}

func (b *backend) entry(s *service, ref, svc table.Ref) table.Backend {
	e := table.Backend{
		Live: true, Ref: ref, Service: svc, Name: b.conf.Name,
		Addr: packet.FromNetip(b.conf.Address), V6: b.conf.Address.Unmap().Is6(), Port: b.conf.Port, Up: b.up,
	}
	if b.lost != nil {
		return e
	}
	e.Resolved, e.Out, e.MTU = true, uint8(b.out), uint16(min(b.hop.MTU, 65535))
	e.Eth = table.Eth(mac(b.hop.DstMAC), mac(b.hop.SrcMAC))
	if s.conf.Forward == "tun" {
		e.TunSrc = packet.FromNetip(b.hop.Source)
	}
	return e
}

func mac(h net.HardwareAddr) (m table.MAC) {
	copy(m[:], h)
	return m
}

// ports describes the director's interfaces as workers need them.
func (c *Controller) ports() []table.Port {
	ports := make([]table.Port, len(c.conf.Interfaces))
	for i := range c.conf.Interfaces {
		f := c.facts[i]
		p := table.Port{Name: f.Name, MAC: mac(f.MAC), MTU: uint16(min(f.MTU, 65535))}
		for _, a := range f.Addrs {
			if a.Addr().IsLinkLocalUnicast() {
				continue
			}
			if is4 := a.Addr().Is4(); is4 && p.V4 == (packet.Addr{}) {
				p.V4 = packet.FromNetip(a.Addr())
			} else if !is4 && p.V6 == (packet.Addr{}) {
				p.V6 = packet.FromNetip(a.Addr())
			}
		}
		ports[i] = p
	}
	return ports
}

// timeouts converts the configured ones; states that cannot be configured keep IPVS' values.
func timeouts(t *config.Timeouts) table.Timeouts {
	out := flow.DefaultTimeouts()
	for s, d := range map[flow.State]time.Duration{
		flow.StateEstablished: t.Established, flow.StateSynRecv: t.SynRecv, flow.StateFinWait: t.FinWait,
		flow.StateTimeWait: t.TimeWait, flow.StateClose: t.Close, flow.StateCloseWait: t.CloseWait,
		flow.StateLastAck: t.LastAck, flow.StateUDP: t.UDP,
	} {
		if d > 0 {
			out[s] = uint32(d.Milliseconds())
		}
	}
	return out
}

// rules are what the steering program is to look for.
func (c *Controller) rules() steer.Rules {
	r := steer.Rules{Locals: c.neigh.Locals()}
	for _, s := range c.services {
		p := protoNumber(s.conf.Protocol)
		r.Services = append(r.Services, steer.Key{Addr: s.conf.Address.Unmap(), Port: s.conf.Port, Proto: p})
		if s.conf.Forward != "nat" {
			continue
		}
		for _, b := range s.backends {
			r.Replies = append(r.Replies, steer.Key{Addr: b.conf.Address.Unmap(), Port: b.conf.Port, Proto: p})
		}
	}
	return r
}
