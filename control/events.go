package control

import (
	"net/netip"
	"time"

	"xlvs/control/flowlog"
	"xlvs/dataplane"
	"xlvs/dataplane/flow"
)

const (
	drainEvery   = 50 * time.Millisecond
	summaryEvery = 10 * time.Second
	drainAtOnce  = 8192 // events of a worker a drain: they must not hold up the loop
)

// backendName is what the log calls a backend, kept while a flow may name it.
type backendName struct {
	service, backend string
	mode, protocol   string
	vip              netip.Addr
	server           netip.AddrPort
	gone             time.Time // zero while it is configured
}

// drain is the state of reading the workers' events.
type drain struct {
	buf     [256]dataplane.Event
	atOnce  int
	lost    []uint64          // events lost by worker, as last reported
	drops   map[string]uint64 // by reason, as last reported
	summary time.Time
}

// nameBackends remembers the names of the present backends, and forgets those gone for longer than any flow lives.
func (c *Controller) nameBackends(now time.Time) {
	for r, n := range c.names {
		switch {
		case n.gone.IsZero():
			n.gone = now
			c.names[r] = n
		case now.Sub(n.gone) > c.backendSlots.rest:
			delete(c.names, r)
		}
	}
	for _, s := range c.services {
		for _, b := range s.backends {
			c.names[b.ref] = backendName{
				service: s.conf.Name, backend: b.conf.Name, mode: s.conf.Forward, protocol: s.conf.Protocol,
				vip: s.conf.Address.Unmap(), server: netip.AddrPortFrom(b.conf.Address.Unmap(), b.conf.Port)}
		}
	}
}

// drainEvents moves what the workers recorded into the log; at the end, all of it.
func (c *Controller) drainEvents(all bool) {
	if c.drain.lost == nil {
		c.drain.lost = make([]uint64, c.engine.Workers())
		c.drain.drops = map[string]uint64{}
		c.drain.summary = time.Now()
	}
	for w := range c.engine.Workers() {
		for n, total := 1, 0; n > 0 && (all || total < c.drain.atOnce); total += n {
			n = c.engine.ReadEvents(w, c.drain.buf[:])
			for i := range n {
				c.logFlow(w, &c.drain.buf[i])
			}
		}
	}
	if now := time.Now(); all || now.Sub(c.drain.summary) >= summaryEvery {
		c.summarize(now)
	}
}

func (c *Controller) summarize(now time.Time) {
	interval := now.Sub(c.drain.summary)
	c.drain.summary = now
	reasons := map[string]uint64{}
	for reason, n := range c.drops() {
		if was := c.drain.drops[reason]; n > was {
			reasons[reason] = n - was
			c.drain.drops[reason] = n
		}
	}
	if len(reasons) > 0 {
		c.log.Emit(flowlog.DropSummary{Interval: interval, Reasons: reasons})
	}
	for w := range c.drain.lost {
		if n := c.engine.Worker(w).EventsLost; n > c.drain.lost[w] {
			c.log.Emit(flowlog.EventsLost{Worker: w, Count: n - c.drain.lost[w]})
			c.drain.lost[w] = n
		}
	}
	c.log.ReportSuppressed()
}

func (c *Controller) logFlow(worker int, e *dataplane.Event) {
	n := c.names[e.Backend]
	r := flowlog.FlowRecord{
		Time: c.engine.Started().Add(time.Duration(e.Time) * time.Millisecond), Worker: worker,
		Service: n.service, Backend: n.backend, Mode: n.mode, Protocol: n.protocol,
		Client: netip.AddrPortFrom(e.Client.Netip(), e.Ports.Src()),
		VIP:    netip.AddrPortFrom(n.vip, e.Ports.Dst()),
		Server: n.server,
	}
	if n.protocol == "" { // forgotten already
		r.Protocol = protocolOf(e.State)
	}
	if e.Kind == dataplane.EventFlowNew {
		c.log.FlowNew(r)
		return
	}
	c.log.FlowEnd(flowlog.FlowEndRecord{FlowRecord: r, Packets: uint64(e.Packets), Bytes: e.Bytes,
		Duration: time.Duration(e.Duration) * time.Millisecond, State: e.State.String()})
}

func protocolOf(s flow.State) string {
	if s == flow.StateUDP {
		return "udp"
	}
	return "tcp"
}
