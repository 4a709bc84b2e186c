package control

import (
	"net"
	"os"
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
	c.mu.Lock()
	defer c.mu.Unlock()
	st := api.Status{
		Version: c.opt.Version, PID: os.Getpid(), File: c.opt.File, Started: c.started, Generation: c.generation,
		Services: len(c.services), Forwarded: map[string]uint64{}, Drops: map[string]uint64{},
	}
	for _, s := range c.services {
		st.Backends += len(s.backends)
		st.Up += s.up()
	}
	for i, f := range c.facts {
		st.Interfaces = append(st.Interfaces, api.Interface{
			Name: c.conf.Interfaces[i].Name, Up: f.Up, MAC: net.HardwareAddr(f.MAC).String(), MTU: f.MTU,
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
	for r, n := range sum.Drops {
		if n > 0 {
			st.Drops[dataplane.Reason(r).String()] = n
		}
	}
	return st
}

func (c *Controller) steered(i int) map[string]uint64 {
	n, err := c.opt.Datapath.Steered(i)
	if err != nil {
		return nil
	}
	out := map[string]uint64{}
	for r, v := range n {
		if v > 0 {
			out[steer.Reason(r).String()] = v
		}
	}
	return out
}

func (c *Controller) worker(w int) api.Worker {
	n, ft := c.engine.Worker(w), c.engine.FlowTable(w)
	out := api.Worker{CPU: c.engine.CPU(w), RxPackets: n.RxPackets, RxBytes: n.RxBytes, Flows: n.Flows, FlowCapacity: ft.Capacity,
		FlowsNew: n.FlowsNew, FlowsEvicted: n.FlowsEvicted, HugePages: ft.HugePages, Polls: n.Polls, Sleeps: n.Sleeps}
	for p := range c.engine.Ports(w) {
		st := c.engine.Port(w, p)
		out.Outstanding += st.Outstanding
		out.Ports = append(out.Ports, api.Port{Interface: c.conf.Interfaces[c.engine.PortInterface(w, p)].Name,
			RxPackets: st.RxPackets, TxPackets: st.TxPackets, RxDropped: st.RxDropped, TxDropped: st.TxDropped,
			Wakeups: st.Wakeups, Errors: st.Errors})
	}
	return out
}

func (s *service) up() (n int) {
	for _, b := range s.backends {
		if b.up {
			n++
		}
	}
	return n
}

// Services lists the virtual services for the API.
func (c *Controller) Services() []api.Service {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := []api.Service{}
	for _, s := range c.services {
		e := api.Service{Name: s.conf.Name, Address: s.conf.Address, Port: s.conf.Port, Protocol: s.conf.Protocol,
			Forward: s.conf.Forward, Slots: len(s.table.Slots()), Backends: len(s.backends), Up: s.up()}
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
	}
	return out
}

// counters are what the workers counted for a backend since it got its slot.
func (c *Controller) counters(b *backend) api.Counters {
	ref := c.backendSlots.ref(b.key)
	n, was := c.engine.Backend(ref.Slot()), c.names[ref].base
	return api.Counters{Packets: n.Packets - was.Packets, Bytes: n.Bytes - was.Bytes,
		ReplyPackets: n.ReplyPackets - was.ReplyPackets, ReplyBytes: n.ReplyBytes - was.ReplyBytes,
		Flows: n.Flows - was.Flows, Active: n.Active, Inactive: n.Inactive}
}

// Backends lists the backends of all services for the API.
func (c *Controller) Backends() []api.Backend {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := []api.Backend{}
	for _, s := range c.services {
		slots := map[string]int{}
		for i, n := range s.table.Counts() {
			slots[s.table.Names()[i]] = n
		}
		for _, b := range s.backends {
			e := api.Backend{Service: s.conf.Name, Name: b.conf.Name, Address: b.conf.Address, Port: b.conf.Port,
				Forward: s.conf.Forward, Weight: *b.conf.Weight, Up: b.up, Reason: b.why, Slots: slots[b.conf.Name],
				Counters: c.counters(b)}
			if !b.since.IsZero() {
				at := b.since.Round(time.Millisecond)
				e.Since = &at
			}
			if b.lost != nil {
				e.Unreached = b.lost.Error()
			} else {
				e.NextHop, e.Interface = b.hop.DstMAC.String(), b.hop.Interface
			}
			out = append(out, e)
		}
	}
	return out
}
