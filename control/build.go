package control

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"time"

	"xlvs/control/config"
	"xlvs/control/neigh"
	"xlvs/dataplane/flow"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
	"xlvs/maglev"
)

// A built is a Maglev table with what else is the same for all services that use it: those with the same names and
// weights of live backends, and the same size.
type built struct {
	key    string
	table  *maglev.Table
	counts []int // slots by name
	took   time.Duration
}

// A draft is what services come to at present. Making one changes nothing that is in force.
type draft struct {
	services []*service
	tables   []*built      // by service
	members  [][]table.Ref // by service
	same     bool          // workers have all of it already
	inputs   inputs        // of snap
	snap     *table.Snapshot
}

// draft builds the tables that are missing, and the snapshot if it differs from the published one.
func (c *Controller) draft(conf *config.Config, services []*service) (*draft, error) {
	d := &draft{services: services, tables: make([]*built, len(services)), members: make([][]table.Ref, len(services))}
	var key []byte
	var refs []table.Ref
	for i, s := range services {
		key, refs = s.tableInputs(key[:0], refs[:0])
		var err error
		if d.tables[i], err = c.table(s, key); err != nil {
			return nil, fmt.Errorf("service %s: %w", s.conf.Name, err)
		}
		// A slice that did not change is kept, so that comparing snapshots need not look into it.
		if d.members[i] = s.members; !slices.Equal(refs, s.members) {
			d.members[i] = slices.Clone(refs)
		}
	}
	return d, c.snapshot(conf, d)
}

// tableInputs appends to key all that the service's table depends on, and to refs the backends in the table's order.
func (s *service) tableInputs(key []byte, refs []table.Ref) ([]byte, []table.Ref) {
	key = strconv.AppendUint(key, s.conf.TableSize, 10)
	for _, b := range s.byName {
		if !b.up || *b.conf.Weight == 0 {
			continue
		}
		key = append(key, ' ')
		key = strconv.AppendInt(key, int64(*b.conf.Weight), 10)
		key = append(key, ' ')
		key = strconv.AppendInt(key, int64(len(b.conf.Name)), 10)
		key = append(key, ' ')
		key = append(key, b.conf.Name...)
		refs = append(refs, b.ref)
	}
	return key, refs
}

// table returns the Maglev table for key, which are s's inputs: the one that s or another service has, or a new one.
func (c *Controller) table(s *service, key []byte) (*built, error) {
	if s.built != nil && s.built.key == string(key) {
		return s.built, nil
	}
	if t := c.tables[string(key)]; t != nil {
		return t, nil
	}
	var in []maglev.Backend
	for _, b := range s.byName {
		if b.up {
			in = append(in, maglev.Backend{Name: b.conf.Name, Weight: *b.conf.Weight})
		}
	}
	start := time.Now()
	t, err := maglev.New(in, s.conf.TableSize)
	if err != nil {
		return nil, err
	}
	n := &built{key: string(key), table: t, counts: t.Counts(), took: time.Since(start)}
	c.tables[n.key] = n
	return n, nil
}

// inputs is a snapshot before table.New has added what follows from the rest.
type inputs struct {
	of       []*service
	services []table.Service // by slot
	backends []table.Backend // by slot
	ports    []table.Port
	timeouts table.Timeouts
}

// snapshot makes the snapshot of a draft.
func (c *Controller) snapshot(conf *config.Config, d *draft) error {
	in := inputs{of: d.services, ports: c.ports(), timeouts: timeouts(&conf.Director.Timeouts),
		services: formerServices(c.last.services, c.serviceSlots.size()),
		backends: formerBackends(c.last.backends, c.backendSlots.size())}
	for i, s := range d.services {
		e := s.static
		e.Slots, e.Members = d.tables[i].table.Slots(), d.members[i]
		e.QUIC = s.serverIDs()
		in.services[s.ref.Slot()] = e
		for _, b := range s.backends {
			in.backends[b.ref.Slot()] = b.entry()
		}
	}
	if d.same = in.same(&c.last); d.same {
		return nil
	}
	d.inputs = in
	var err error
	d.snap, err = table.New(&table.Snapshot{Generation: c.generation + 1, Services: slices.Clone(in.services),
		Backends: slices.Clone(in.backends), Ports: in.ports, Timeouts: in.timeouts})
	return err
}

// formerServices returns n slots with what lived in them last: flows may still name it.
func formerServices(last []table.Service, n int) []table.Service {
	out := make([]table.Service, n)
	copy(out, last)
	for i := range out {
		out[i].Live, out[i].Slots, out[i].Members = false, nil, nil
	}
	return out
}

func formerBackends(last []table.Backend, n int) []table.Backend {
	out := make([]table.Backend, n)
	copy(out, last)
	for i := range out {
		out[i].Live = false
	}
	return out
}

// same reports whether workers would act alike on both.
func (x *inputs) same(y *inputs) bool {
	// Of the same services, only tables can differ.
	sameShape := sameArray(x.of, y.of)
	return x.timeouts == y.timeouts && slices.Equal(x.ports, y.ports) && slices.Equal(x.backends, y.backends) &&
		slices.EqualFunc(x.services, y.services, func(a, b table.Service) bool {
			if !sameArray(a.Slots, b.Slots) || !sameArray(a.Members, b.Members) && !slices.Equal(a.Members, b.Members) {
				return false
			}
			a.Slots, b.Slots, a.Members, b.Members = nil, nil, nil, nil
			return sameShape || reflect.DeepEqual(a, b)
		})
}

func sameArray[E any](x, y []E) bool { return len(x) == len(y) && (len(x) == 0 || &x[0] == &y[0]) }

// ports describes the director's interfaces as workers need them.
func (c *Controller) ports() []table.Port {
	ports := make([]table.Port, 0, len(c.facts)+len(c.vlans))
	for i := range c.facts {
		ports = append(ports, port(&c.facts[i]))
	}
	for i := range c.vlans {
		v := &c.vlans[i]
		p := port(&v.facts)
		p.Tags, p.Trunk = v.tags, uint8(v.trunk)
		ports = append(ports, p)
	}
	return ports
}

func port(f *neigh.Facts) table.Port {
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
	return p
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

// longest is how long a flow may live without a packet, whichever service it is of.
func longest(c *config.Config) time.Duration {
	most := 2 * time.Minute // of states that cannot be configured
	each := func(t *config.Timeouts) {
		most = max(most, t.Established, t.SynRecv, t.FinWait, t.TimeWait, t.Close, t.CloseWait, t.LastAck, t.UDP)
	}
	each(&c.Director.Timeouts)
	for i := range c.Services {
		if t := c.Services[i].Timeouts; t != nil {
			each(t)
		}
	}
	return most
}
