package control

import (
	"os"
	"slices"
	"time"

	"xlvs/control/api"
	"xlvs/dataplane"
	"xlvs/dataplane/steer"
	"xlvs/dataplane/table"
)

// An InterfaceInfo is what became of an interface's options, as the API shows it.
type InterfaceInfo struct {
	Queues []int
	Attach string
	Bind   string
	Notes  []string
}

// Status describes the director for the API. infos are by interface.
func (c *Controller) Status(infos []InterfaceInfo) api.Status {
	st := api.Status{
		Version: c.opt.Version, PID: os.Getpid(), File: c.opt.File, Started: c.started,
		Forwarded: map[string]uint64{}, Drops: c.drops(),
	}
	var err error
	if st.LogLost, err = c.log.Lost(); err != nil {
		st.LogError = err.Error()
	}
	c.mu.RLock()
	st.Generation, st.Services = c.generation, len(c.services)
	for _, s := range c.services {
		st.Backends += len(s.backends)
		st.Up += s.up()
	}
	facts, vlans := slices.Clone(c.facts), make([][]string, len(c.facts))
	for _, v := range c.vlans {
		if v.here {
			vlans[v.trunk] = append(vlans[v.trunk], v.facts.Name)
		}
	}
	c.mu.RUnlock()
	for i, f := range facts {
		st.Interfaces = append(st.Interfaces, api.Interface{
			Name: f.Name, VLANs: vlans[i], Up: f.Up, MAC: f.MAC.String(), MTU: f.MTU,
			Queues: infos[i].Queues, Attach: infos[i].Attach, Bind: infos[i].Bind, Notes: infos[i].Notes, Steered: c.steered(i)})
	}
	for w := range c.engine.Workers() {
		st.Workers = append(st.Workers, c.worker(w))
	}
	sum := c.engine.Counters()
	for m, n := range sum.Forwarded {
		st.Forwarded[table.Mode(m).String()] = n
	}
	st.Replies = sum.Replies
	return st
}

// drops are all packets dropped so far, by reason: by workers, and for them by the steering program.
func (c *Controller) drops() map[string]uint64 {
	out := map[string]uint64{}
	sum := c.engine.Counters()
	for r, n := range sum.Drops {
		if n > 0 {
			out[dataplane.Reason(r).String()] = n
		}
	}
	shed := steer.Shed.String()
	for i := range c.opt.Config.Interfaces {
		if n := c.steered(i)[shed]; n > 0 {
			out[shed] += n
		}
	}
	return out
}

// steered returns no counters where they cannot be read: the rest of the status is worth showing.
func (c *Controller) steered(i int) map[string]uint64 {
	out := map[string]uint64{}
	n, err := c.opt.Datapath.Steered(i)
	if err != nil {
		return out
	}
	for r, v := range n {
		if v > 0 {
			out[steer.Reason(r).String()] = v
		}
	}
	return out
}

func (c *Controller) worker(w int) api.Worker {
	n, ft := c.engine.Worker(w), c.engine.FlowTable(w)
	out := api.Worker{CPU: c.engine.CPU(w), RxPackets: n.RxPackets, RxBytes: n.RxBytes, Flows: n.Flows, FlowCapacity: ft.Capacity + 1, // as director.flows says: one stays empty
		FlowsNew: n.FlowsNew, FlowsEvicted: n.FlowsEvicted, HugePages: ft.HugePages, Polls: n.Polls, Sleeps: n.Sleeps}
	for p := range c.engine.Ports(w) {
		st := c.engine.Port(w, p)
		out.Outstanding += st.Outstanding
		out.Ports = append(out.Ports, api.Port{Interface: c.opt.Config.Interfaces[c.engine.PortInterface(w, p)].Name,
			RxPackets: st.RxPackets, TxPackets: st.TxPackets, RxDropped: st.RxDropped, TxDropped: st.TxDropped,
			Wakeups: st.Wakeups, Errors: st.Errors})
	}
	return out
}

// each calls do for every service, under the lock, but lets the loop have it in between: of many services
// the list takes longer than a dead backend should wait.
func (c *Controller) each(do func(*service)) {
	c.mu.RLock()
	services := c.services
	c.mu.RUnlock()
	for _, s := range services {
		c.mu.RLock()
		do(s)
		c.mu.RUnlock()
	}
}

// Services lists the virtual services for the API.
func (c *Controller) Services() []api.Service {
	out := []api.Service{}
	c.each(func(s *service) {
		e := api.Service{Name: s.conf.Name, Address: s.conf.Address.String(), Port: s.conf.Port, Protocol: s.conf.Protocol,
			Forward: s.conf.Forward, Slots: len(s.built.table.Slots()), Backends: len(s.backends), Up: s.up()}
		for _, b := range s.backends {
			n := c.counters(b)
			e.Packets += n.Packets
			e.Bytes += n.Bytes
			e.ReplyPackets += n.ReplyPackets
			e.ReplyBytes += n.ReplyBytes
			e.Flows += n.Flows
			e.Active += n.Active
			e.Inactive += n.Inactive
		}
		out = append(out, e)
	})
	return out
}

// counters are what the workers counted for a backend since it got its slot.
func (c *Controller) counters(b *backend) api.Counters {
	n, was := c.engine.Backend(b.ref.Slot()), &b.base
	return api.Counters{Packets: n.Packets - was.Packets, Bytes: n.Bytes - was.Bytes,
		ReplyPackets: n.ReplyPackets - was.ReplyPackets, ReplyBytes: n.ReplyBytes - was.ReplyBytes,
		Flows: n.Flows - was.Flows, Active: n.Active, Inactive: n.Inactive}
}

// Backends lists the backends of all services for the API.
func (c *Controller) Backends() []api.Backend {
	out := []api.Backend{}
	c.each(func(s *service) {
		slots := map[string]int{}
		for i, n := range s.built.counts {
			slots[s.built.table.Names()[i]] = n
		}
		for _, b := range s.backends {
			out = append(out, c.describe(b, slots[b.conf.Name]))
		}
	})
	return out
}

func (c *Controller) describe(b *backend, slots int) api.Backend {
	e := api.Backend{Service: b.svc.conf.Name, Name: b.conf.Name, Address: b.conf.Address, Port: b.conf.Port,
		Forward: b.svc.conf.Forward, Weight: *b.conf.Weight, Up: b.shown.up, Reason: b.shown.why, Slots: slots, Counters: c.counters(b)}
	if !b.shown.since.IsZero() {
		at := b.shown.since.Round(time.Millisecond)
		e.Since = &at
	}
	if b.shown.route.err != nil {
		e.Unreached = b.shown.route.err.Error()
	} else {
		e.NextHop, e.Interface = b.shown.route.hop.DstMAC.String(), b.shown.route.hop.Interface
	}
	return e
}
