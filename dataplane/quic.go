package dataplane

import (
	"xlvs/dataplane/flow"
	"xlvs/dataplane/offheap"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// identified returns the backend that the connection ID of packet i names, whatever flow the packet belongs to: a QUIC
// client keeps its server when its address or port changes. It is nil where the connection ID says nothing.
func (p *pipeline) identified(svc *table.Service, i int, f Frame) *table.Backend {
	pkt := &p.pkt[i]
	b := p.mem.Bytes(f)
	slot := svc.QUIC.Server(b[int(pkt.L4)+packet.UDPLen : pkt.End])
	if slot < 0 || !p.snap.Backends[slot].Up {
		return nil
	}
	return &p.snap.Backends[slot]
}

// asideElsewhere looks for the NAT flow with a key to be in the other workers' tables.
func (p *pipeline) asideElsewhere(key *flow.Key, be *table.Backend) bool {
	for k := range p.peers {
		if i := p.peers[k].flows.PeekAside(key, be, &p.seen); i != 0 {
			p.seenAt = origin{k, i}
			return true
		}
	}
	return false
}

// toNamed returns the backend that packet i's connection ID names, and the flow to it, 0 if there is none. idx is the flow that the
// packet's addresses and ports have, 0 if none; that of a first fragment may be another worker's. Where that leads to another
// backend it belongs to another connection of the client's, or to the client while this packet is forged, and stays: DR and
// TUN need no flow for a packet that names its backend, and for the replies of NAT one stands aside.
func (p *pipeline) toNamed(svc *table.Service, key *flow.Key, be *table.Backend, idx uint32, in, i int) (*table.Backend, uint32, Reason) {
	var other *table.Backend
	if idx != 0 {
		other = p.snap.Backend(p.flows.At(idx).Backend)
	}
	if other != be && svc.Mode == table.NAT {
		if aside := p.flows.FindAside(key, be); aside != 0 {
			idx, other = aside, be
		}
	}
	if idx == 0 && p.fragments.first {
		other = p.elsewhere(p.hash[i], key)
		if other != be && svc.Mode == table.NAT && p.asideElsewhere(key, be) {
			other = be
		}
		if other == be {
			p.lead(svc, be, i)
			return be, 0, 0
		}
	}
	switch {
	case idx != 0 && other == be:
		p.noteBackend(be, FlowHit)
		return be, idx, 0
	case other == nil || !other.Up:
		if idx != 0 {
			p.flows.Delete(idx)
		}
		return p.open(svc, key, be, in, i)
	case svc.Mode != table.NAT:
		p.noteBackend(be, FlowNone)
		return be, 0, 0
	}
	if idx = p.flows.InsertAside(key, be, uint8(in), p.now); idx == 0 {
		offheap.Add64(&p.count.Stateless, 1)
		p.noteBackend(be, FlowNone)
		return be, 0, 0
	}
	p.opened(be, idx, flow.StateUDP, i)
	return be, idx, 0
}
