package control

import (
	"fmt"

	"xlvs/control/api"
	"xlvs/dataplane"
	"xlvs/dataplane/packet"
)

// Explain says where a new flow would go, for the API.
func (c *Controller) Explain(q api.Question) api.Explanation {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return explain(c.engine, c.services, q)
}

// Explain says where a new flow would go. e must have o's snapshot.
func (o *Offline) Explain(e *dataplane.Engine, q api.Question) api.Explanation {
	return explain(e, o.services, q)
}

func explain(e *dataplane.Engine, services []*service, q api.Question) api.Explanation {
	c := e.Choose(packet.FromNetip(q.Src.Addr()), packet.FromNetip(q.Dst.Addr()),
		packet.MakePorts(q.Src.Port(), q.Dst.Port()), protoNumber(q.Proto))
	if c.Service == nil {
		return api.Explanation{Backends: []api.Share{}}
	}
	x := api.Explanation{Service: c.Service.Name, Forward: c.Service.Mode.String(), Hash: fmt.Sprintf("%016x", c.Hash), Slots: len(c.Service.Slots), Backends: []api.Share{}}
	if c.Backend != nil {
		x.Slot, x.Backend, x.Address, x.Port, x.Reached = c.Slot, c.Backend.Name, c.Backend.Addr.Netip(), c.Backend.Port, c.Backend.Resolved
	}
	held := map[string]int{}
	for _, m := range c.Service.Slots {
		held[e.Snapshot().Backends[c.Service.Members[m].Slot()].Name]++
	}
	for _, s := range services {
		if s.ref != c.Service.Ref {
			continue
		}
		for _, b := range s.backends {
			share := api.Share{Name: b.conf.Name, Address: b.conf.Address, Port: b.conf.Port, Weight: *b.conf.Weight,
				Up: b.shown.up, Reason: b.shown.why, Slots: held[b.conf.Name]}
			if b.shown.route.err != nil {
				share.Unreached = b.shown.route.err.Error()
			}
			x.Backends = append(x.Backends, share)
		}
	}
	return x
}
