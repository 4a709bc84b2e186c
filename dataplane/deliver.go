package dataplane

import (
	"xlvs/dataplane/flow"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/rewrite"
	"xlvs/dataplane/table"
)

// lastService is the service of the packet before: packets to one service come in rows.
type lastService struct {
	addr packet.Addr
	key  uint32 // destination port as in packet.Ports, protocol<<16; 0: none
	ref  table.Ref
	mode table.Mode
}

// leaves are the TCP flags that may change the state of an established flow.
const leaves = packet.FlagSYN | packet.FlagFIN | packet.FlagRST

// deliver is the last stage of a burst, and all of it for what nearly every packet is: a client's, of a flow that is
// known and stays in its state, to a backend in order. Whatever else there is goes to handle, untouched.
func (p *pipeline) deliver(in int, frames []Frame) {
	if p.trace != nil {
		p.deliverTraced(in, frames)
		return
	}
	entries, backends := p.flows.Entries(), p.snap.Backends
	direct := uint64(0)
	for i, f := range frames {
		pkt := &p.pkt[i]
		if pkt.Kind > packet.KindUDP {
			p.special(in, i, f)
			continue
		}
		if pkt.Dst != p.last.addr || uint32(pkt.Ports>>16)|uint32(pkt.Proto)<<16 != p.last.key {
			p.remember(pkt)
			if p.last.ref == noService {
				p.reply(in, i, f)
				continue
			}
		}
		e := &entries[p.cand[i]]
		if e.Client != pkt.Src || e.Ports != pkt.Ports || e.Service != p.last.ref || !steady(e, pkt.TCPFlags) {
			p.transport(in, i, f)
			continue
		}
		slot := e.Backend.Slot()
		if slot >= len(backends) {
			p.transport(in, i, f)
			continue
		}
		be := &backends[slot]
		size := pkt.End - uint16(pkt.L3)
		if !be.Ready || be.Ref != e.Backend || size > be.Limit || pkt.TTL <= 1 {
			p.transport(in, i, f)
			continue
		}
		e.LastSeen = p.now
		e.Packets++
		e.Bytes += uint64(size)
		if p.last.mode != table.DR {
			p.forward(p.last.mode, be, p.cand[i], in, i, f)
			continue
		}
		bc := &p.backends[slot]
		bc.Packets++
		bc.Bytes += uint64(size)
		direct++
		rewrite.DR(p.mem.Bytes(f), pkt, be)
		p.send(int(be.Out), f)
	}
	p.count.Forwarded[table.DR] += direct
}

// steady reports whether a packet with these TCP flags leaves a flow where it is. A second packet does not leave a
// UDP flow so: from then on the flow table holds it dearer.
func steady(e *flow.Entry, flags uint8) bool {
	s := e.State()
	return s == flow.StateEstablished && flags&leaves == 0 || s == flow.StateUDP && e.Packets > 1
}

// remember makes the packet's service the last one. A packet to no service, or to one whose packets an entry alone does
// not settle, leaves none, and a Ref that no entry in use has: which says which of the two it was.
func (p *pipeline) remember(pkt *packet.Packet) {
	slot := p.snap.Lookup(pkt.Dst, pkt.Ports.Dst(), pkt.Proto)
	if slot < 0 {
		p.last = lastService{ref: noService}
		return
	}
	svc := &p.snap.Services[slot]
	if svc.Singular {
		p.last = lastService{ref: singularService}
		return
	}
	p.last = lastService{addr: pkt.Dst, key: uint32(pkt.Ports>>16) | uint32(pkt.Proto)<<16, ref: svc.Ref, mode: svc.Mode}
}

// These are above every slot that a service can have.
const (
	noService       = table.Ref(0xffffff)
	singularService = table.Ref(0xfffffe)
)
