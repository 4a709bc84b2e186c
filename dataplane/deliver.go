package dataplane

import (
	"xlvs/dataplane/flow"
	"xlvs/dataplane/offheap"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/rewrite"
	"xlvs/dataplane/table"
)

// leadsTo reports whether g is the gate of the packet's service.
func leadsTo(g *table.Gate, p *packet.Packet) bool {
	return g.Addr == p.Dst && g.Key == table.GateKey(p.Ports, p.Proto)
}

// leaves are the TCP flags that may change the state of an established flow.
const leaves = packet.FlagSYN | packet.FlagFIN | packet.FlagRST

// deliver is the last stage of a burst. What nearly every packet is (a client's, of a flow that is known and stays in its
// state, to a backend in order) is found in runs, by loops that call nothing and so keep what they need in
// registers. Whatever else there is interrupts a run, so that packets leave in the order in which they came.
func (p *pipeline) deliver(in int, frames []Frame) {
	if p.trace != nil {
		p.deliverTraced(in, frames)
		return
	}
	if !p.snap.Tagged {
		p.deliverRun(in, frames, 0, len(frames))
		return
	}
	for i := 0; i < len(frames); {
		port, n := p.enter(in, &p.pkt[i], frames[i]), i+1
		for n < len(frames) && p.enter(in, &p.pkt[n], frames[n]) == port {
			n++
		}
		p.deliverRun(port, frames, i, n)
		i = n
	}
}

// deliverRun delivers the packets from i to end-1, which came in by one port: an interface, or a VLAN on it.
func (p *pipeline) deliverRun(in int, frames []Frame, i, end int) {
	for i < end {
		if n := p.known(i, end); n > i {
			switch mode := p.last.Mode; {
			case p.snap.Tagged:
				for k := i; k < n; k++ {
					p.forward(mode, &p.snap.Backends[p.way[k]], p.cand[k], in, k, frames[k])
				}
			case mode == table.DR:
				p.direct(frames, i, n)
			case mode == table.TUN:
				p.tunnel(in, frames, i, n)
			case mode == table.NAT:
				p.translate(in, frames, i, n)
			}
			i = n
			continue
		}
		switch pkt := &p.pkt[i]; {
		case pkt.Kind > packet.KindUDP:
			p.special(in, i, frames[i])
		case leadsTo(&p.last, pkt):
			p.transport(in, i, frames[i])
		default:
			slot := p.snap.Lookup(pkt.Dst, pkt.Ports.Dst(), pkt.Proto)
			if slot < 0 {
				p.reply(in, i, frames[i])
				break
			}
			svc := &p.snap.Services[slot]
			if svc.Singular {
				p.transport(in, i, frames[i])
				break
			}
			// It may begin a run of its service.
			p.last = table.Gate{Addr: pkt.Dst, Key: table.GateKey(pkt.Ports, pkt.Proto), Ref: svc.Ref, Mode: svc.Mode}
			continue
		}
		i++
	}
}

// known goes over the packets from i to n-1 until it meets one that is not of a known flow, not in order in some other
// way, or to a service of another mode than the last one. It accounts those before it to their flows, leaves each
// one's backend in p.way, and returns the first that it did not take.
func (p *pipeline) known(i, n int) int {
	entries, gates, hops, now := p.flows.Entries(), p.snap.Gates, p.snap.Hops, p.now
	gate := &p.last
	n = min(n, MaxBurst)
	for ; i < n; i++ {
		pkt, e := &p.pkt[i], &entries[p.cand[i]]
		if pkt.Kind > packet.KindUDP || e.Client != pkt.Src || e.Ports != pkt.Ports || !steady(e, pkt.TCPFlags) {
			break
		}
		if e.Service != gate.Ref || !leadsTo(gate, pkt) {
			slot := e.Service.Slot()
			if slot >= len(gates) {
				break
			}
			if g := &gates[slot]; g.Ref != e.Service || g.Mode != gate.Mode || !leadsTo(g, pkt) {
				break
			}
			gate = &gates[slot]
		}
		slot := e.Backend.Slot()
		if slot >= len(hops) {
			break
		}
		hop, size := &hops[slot], pkt.End-uint16(pkt.L3)
		if hop.Ref != e.Backend || size > hop.Limit || pkt.TTL <= 1 {
			break
		}
		e.Count(now, uint64(size))
		p.way[i] = uint32(slot)
	}
	p.last = *gate
	return i
}

// direct sends the packets from i to n-1 by direct routing, each to the backend that p.way names. It and its two
// siblings leave VLAN tags as they are.
func (p *pipeline) direct(frames []Frame, i, n int) {
	hops, mem := p.snap.Hops, p.mem
	counters := p.backends[:len(hops)]
	offheap.Add64(&p.count.Forwarded[table.DR], uint64(n-i))
	frames = frames[:n]
	for ; i < len(frames); i++ {
		k := i & (MaxBurst - 1)
		pkt, slot := &p.pkt[k], p.way[k]
		hop, bc := &hops[slot], &counters[slot]
		bc.sent(uint64(pkt.End - uint16(pkt.L3)))
		if pkt.Plain {
			rewrite.DRPlain(mem.head(frames[i]), pkt.V6, &hop.Eth)
		} else {
			rewrite.DR(mem.Bytes(frames[i]), pkt, &hop.Eth)
		}
		p.put(int(hop.Out), frames[i])
	}
}

// tunnel sends the packets from i to n-1 wrapped in outer headers.
func (p *pipeline) tunnel(in int, frames []Frame, i, n int) {
	for ; i < n; i++ {
		f := frames[i]
		if f.Off < roomForOuter {
			p.forward(table.TUN, &p.snap.Backends[p.way[i]], p.cand[i], in, i, f)
			continue
		}
		pkt, slot := &p.pkt[i], p.way[i]
		be, bc := &p.snap.Backends[slot], &p.backends[slot]
		bc.sent(uint64(pkt.End - uint16(pkt.L3)))
		start, length := rewrite.TUN(p.mem.Chunk(f.Chunk), int(f.Off), pkt, be, p.hash[i])
		p.put(int(be.Out), Frame{Chunk: f.Chunk, Off: uint16(start), Len: uint16(length)})
		offheap.Add64(&p.count.Forwarded[table.TUN], 1)
	}
}

// translate sends the packets from i to n-1 with another destination.
func (p *pipeline) translate(in int, frames []Frame, i, n int) {
	offheap.Add64(&p.count.Forwarded[table.NAT], uint64(n-i))
	for ; i < n; i++ {
		pkt, slot := &p.pkt[i], p.way[i]
		be, bc := &p.snap.Backends[slot], &p.backends[slot]
		bc.sent(uint64(pkt.End - uint16(pkt.L3)))
		b := p.mem.Bytes(frames[i])
		p.flows.At(p.cand[i]).SetHop(uint8(in), b)
		rewrite.NATRequest(b, pkt, be)
		p.put(int(be.Out), frames[i])
	}
}

// steady reports whether a packet with these TCP flags leaves a flow where it is. A second packet does not leave a
// UDP flow so: from then on the flow table holds it dearer.
func steady(e *flow.Entry, flags uint8) bool {
	s := e.State()
	return s == flow.StateEstablished && flags&leaves == 0 || s == flow.StateUDP && e.Packets > 1
}
