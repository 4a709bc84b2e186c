package dataplane

import (
	"xlvs/dataplane/flow"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// A worker may meet packets of flows that another one owns: a NAT backend's replies arrive at the queue that the network
// card's hash of them names, and first fragments at the queue for packets without ports. It reads the flow in the owner's
// table, forwards, and leaves the owner word of what it must know, in a ring that it alone writes and the owner alone
// reads: so that a download does not end for want of requests, and a server's FIN and RST count.
//
// Not each packet is told of. The owner's LastSeen is in the copy that was read anyway, so word is left only when it has grown old,
// when the state is to change, or when a UDP flow is answered for the first time. What is lost, because the ring is full, the next
// packet finds untold and tells again.

// news is what a worker tells of one packet.
type news struct {
	idx, life uint32 // of the flow, in its owner's table: see flow.Table.Lives
	time      uint32
	size      uint16 // bytes of IP
	flags     uint8  // TCP
	dir       flow.Direction
}

// A peer is another worker, as this one sees it.
type peer struct {
	flows *flow.Table // read only
	to    *ring[news]
	told  [toldSize]news // what was left there last, by the flow's index
}

const (
	newsRing = 1024
	// newsBurst bounds how much news a worker takes of one peer in a poll.
	newsBurst = 256
	toldSize  = 64
	// A flow is told of when it has not been seen by its owner for a part of its timeout.
	tellAfter = 8
	// untilHeeded is how long the owner may take to act on news, in milliseconds: it sleeps for sleepFor at most. Until then what
	// was told is not told again.
	untilHeeded = sleepFor + 20
)

// origin says where a peer's flow is.
type origin struct {
	peer int
	idx  uint32
}

// direction is how a client's packets travel through the state table of their service's flows.
func direction(svc *table.Service) flow.Direction {
	if svc.Mode == table.NAT {
		return flow.In
	}
	return flow.InOnly
}

// introduce makes each two workers peers.
func introduce(workers []*worker) {
	for _, w := range workers {
		for _, other := range workers {
			if other == w {
				continue
			}
			r := newRing[news](newsRing)
			w.peers = append(w.peers, peer{flows: other.flows, to: r})
			other.inbox = append(other.inbox, r)
		}
	}
}

// lead accounts for packet i of the flow that was found last, another worker's: it goes to be, and the owner is told.
func (p *pipeline) lead(svc *table.Service, be *table.Backend, i int) {
	p.noteBackend(be, FlowHit)
	p.tell(direction(svc), &p.pkt[i], int(p.pkt[i].End)-int(p.pkt[i].L3))
}

// tell leaves word for the owner of the flow that was found last, of which p.seen is a copy, about a packet of size bytes.
func (p *pipeline) tell(d flow.Direction, pkt *packet.Packet, size int) {
	e, o := &p.seen, &p.peers[p.seenAt.peer]
	s := e.State()
	next, answered := flow.Next(s, d, pkt.TCPFlags), s == flow.StateUDP && e.Packets <= 1
	old := int32(p.now-e.LastSeen) > int32(p.snap.TimeoutsOf(e.Service)[s]/tellAfter)
	if next == s && !answered && !old {
		return
	}
	n := news{idx: p.seenAt.idx, life: e.Life(), time: p.now, size: uint16(size), flags: pkt.TCPFlags, dir: d}
	last := &o.told[n.idx%toldSize]
	if last.idx == n.idx && last.life == n.life && last.flags == n.flags && n.time-last.time < untilHeeded {
		return
	}
	if o.to.put(&n) {
		*last = n
	}
}

// heed acts on what other workers told of this worker's flows, and returns how much that was.
func (p *pipeline) heed() (total int) {
	for _, r := range p.inbox {
		for left := newsBurst; left > 0; {
			n := r.read(p.fresh[:min(left, len(p.fresh))])
			if n == 0 {
				break
			}
			for k := range p.fresh[:n] {
				p.take(&p.fresh[k])
			}
			left -= n
			total += n
		}
	}
	return total
}

// take does for a flow what its owner would have done with the packet.
func (p *pipeline) take(n *news) {
	if !p.flows.Lives(n.idx, n.life) {
		return
	}
	e := p.flows.At(n.idx)
	at := n.time
	if int32(at-p.now) > 0 {
		at = p.now // the other worker's poll began later
	}
	if int32(at-e.LastSeen) < 0 {
		at = e.LastSeen
	}
	e.Count(at, uint64(n.size))
	if e.State() == flow.StateUDP {
		if e.Packets == 2 {
			p.flows.Settle(n.idx)
		}
		return
	}
	if be := p.snap.Backend(e.Backend); be != nil {
		p.advance(n.idx, be, flow.Next(e.State(), n.dir, n.flags))
	}
}
