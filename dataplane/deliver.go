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
	key  uint32 // as serviceKey makes it; 0: none
	ref  table.Ref
	mode table.Mode
}

// serviceKey is the destination port as in packet.Ports, and the protocol, which is never 0 here.
func serviceKey(p *packet.Packet) uint32 { return uint32(p.Ports>>16) | uint32(p.Proto)<<16 }

func (l *lastService) is(p *packet.Packet) bool { return l.addr == p.Dst && l.key == serviceKey(p) }

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
	for i := 0; i < len(frames); {
		if n := p.known(i, len(frames)); n > i {
			switch p.last.mode {
			case table.DR:
				p.direct(frames, i, n)
			case table.TUN:
				p.tunnel(in, frames, i, n)
			case table.NAT:
				p.translate(in, frames, i, n)
			}
			i = n
			continue
		}
		switch pkt := &p.pkt[i]; {
		case pkt.Kind > packet.KindUDP:
			p.special(in, i, frames[i])
		case p.last.is(pkt):
			p.transport(in, i, frames[i])
		case p.remember(pkt):
			continue // it may begin a run of its service
		default:
			p.stranger(in, i, frames[i])
		}
		i++
	}
}

// known goes over the packets from i to n-1 until it meets one that is not of a known flow of the last service, or not
// in order in some other way. It accounts those before it to their flows, leaves each one's backend in p.way, and
// returns the first that it did not take.
func (p *pipeline) known(i, n int) int {
	entries, hops, now := p.flows.Entries(), p.snap.Hops, p.now
	addr, key, ref := p.last.addr, p.last.key, p.last.ref
	n = min(n, MaxBurst)
	for ; i < n; i++ {
		pkt := &p.pkt[i]
		if pkt.Kind > packet.KindUDP || pkt.Dst != addr || serviceKey(pkt) != key {
			break
		}
		e := &entries[p.cand[i]]
		if e.Client != pkt.Src || e.Ports != pkt.Ports || e.Service != ref || !steady(e, pkt.TCPFlags) {
			break
		}
		slot := e.Backend.Slot()
		if slot >= len(hops) {
			break
		}
		hop, size := &hops[slot], pkt.End-uint16(pkt.L3)
		if hop.Ref != e.Backend || size > hop.Limit || pkt.TTL <= 1 {
			break
		}
		e.LastSeen = now
		e.Packets++
		e.Bytes += uint64(size)
		p.way[i] = uint32(slot)
	}
	return i
}

// direct sends the packets from i to n-1 by direct routing, each to the backend that p.way names.
func (p *pipeline) direct(frames []Frame, i, n int) {
	hops, mem := p.snap.Hops, p.mem
	counters := p.backends[:len(hops)]
	p.count.Forwarded[table.DR] += uint64(n - i)
	frames = frames[:n]
	for ; i < len(frames); i++ {
		k := i & (MaxBurst - 1)
		pkt, slot := &p.pkt[k], p.way[k]
		hop, bc := &hops[slot], &counters[slot]
		bc.Packets++
		bc.Bytes += uint64(pkt.End - uint16(pkt.L3))
		if pkt.Plain {
			rewrite.DRPlain(mem.head(frames[i]), &hop.Eth)
		} else {
			rewrite.DR(mem.Bytes(frames[i]), pkt, &hop.Eth)
		}
		p.send(int(hop.Out), frames[i])
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
		bc.Packets++
		bc.Bytes += uint64(pkt.End - uint16(pkt.L3))
		start, length := rewrite.TUN(p.mem.Chunk(f.Chunk), int(f.Off), pkt, be, p.hash[i])
		p.send(int(be.Out), Frame{Chunk: f.Chunk, Off: uint16(start), Len: uint16(length)})
		p.count.Forwarded[table.TUN]++
	}
}

// translate sends the packets from i to n-1 with another destination.
func (p *pipeline) translate(in int, frames []Frame, i, n int) {
	p.count.Forwarded[table.NAT] += uint64(n - i)
	for ; i < n; i++ {
		pkt, slot := &p.pkt[i], p.way[i]
		be, bc := &p.snap.Backends[slot], &p.backends[slot]
		bc.Packets++
		bc.Bytes += uint64(pkt.End - uint16(pkt.L3))
		b := p.mem.Bytes(frames[i])
		p.flows.At(p.cand[i]).SetHop(uint8(in), b)
		rewrite.NATRequest(b, pkt, be)
		p.send(int(be.Out), frames[i])
	}
}

// steady reports whether a packet with these TCP flags leaves a flow where it is. A second packet does not leave a
// UDP flow so: from then on the flow table holds it dearer.
func steady(e *flow.Entry, flags uint8) bool {
	s := e.State()
	return s == flow.StateEstablished && flags&leaves == 0 || s == flow.StateUDP && e.Packets > 1
}

// remember makes the packet's service the last one, and reports whether it did: a packet to no service, or to
// one whose packets an entry alone does not settle, leaves the last one.
func (p *pipeline) remember(pkt *packet.Packet) bool {
	slot := p.snap.Lookup(pkt.Dst, pkt.Ports.Dst(), pkt.Proto)
	if slot < 0 || p.snap.Services[slot].Singular {
		return false
	}
	svc := &p.snap.Services[slot]
	p.last = lastService{addr: pkt.Dst, key: serviceKey(pkt), ref: svc.Ref, mode: svc.Mode}
	return true
}

// stranger handles a TCP or UDP packet that remember does not want.
func (p *pipeline) stranger(in, i int, f Frame) {
	pkt := &p.pkt[i]
	if p.snap.Lookup(pkt.Dst, pkt.Ports.Dst(), pkt.Proto) < 0 {
		p.reply(in, i, f)
		return
	}
	p.transport(in, i, f)
}
