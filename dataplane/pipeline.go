package dataplane

import (
	"encoding/binary"

	"xlvs/dataplane/flow"
	"xlvs/dataplane/frag"
	"xlvs/dataplane/offheap"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/rewrite"
	"xlvs/dataplane/table"
)

// A pipeline is a packet's way through one worker. A burst goes through each stage as a whole, so that
// the cache misses of its packets overlap:
//
//	parse + hash → touch buckets → find candidates, touch entries → compare, decide, rewrite → outbox
//
// Where packets may open NAT flows, their replies' buckets are touched before the last stage.
//
// All of it belongs to the worker's goroutine. Nothing here allocates, locks, logs or calls the kernel.
type pipeline struct {
	mem    *Memory
	snap   *table.Snapshot
	flows  *flow.Table
	peers  []peer
	inbox  []*ring[news] // from each peer
	hasher packet.Hasher
	now    uint32

	count    *Counters
	backends []BackendCounters
	events   *ring[Event]
	sample   uint64 // log flows whose hash is a multiple; 0: none
	limit    limiter
	last     table.Gate // of the service of the packet before: packets to one service come in rows

	out  [table.MaxPorts]outbox
	pkt  [MaxBurst]packet.Packet
	hash [MaxBurst]uint64
	cand [MaxBurst]uint32
	way  [MaxBurst]uint32 // slot of the backend that a packet of a known flow goes to
	back [MaxBurst]uint64 // hashes of what may answer to new flows
	sink uint64
	seen flow.Entry // copy of a peer's flow

	seenAt origin // of seen
	fresh  [MaxBurst]news

	fragments fragments

	trace *Verdict // nil: nobody asks
}

// outbox collects the frames that leave by one port.
type outbox struct {
	n      int
	frames [MaxBurst]Frame
}

// burst takes frames that came in on port in, at most MaxBurst, and leaves each in an outbox or frees it.
func (p *pipeline) burst(in int, frames []Frame) {
	frames = frames[:min(len(frames), MaxBurst)]
	var bytes uint64
	for i, f := range frames {
		bytes += uint64(f.Len)
		p.hash[i] = p.hasher.Parse(p.mem.Bytes(f), &p.pkt[i])
	}
	unknown, sink := p.flows.Candidates(p.hash[:len(frames)], p.cand[:])
	p.sink = sink
	if unknown > 1 && p.flows.LooksAhead() {
		p.sink += p.touchReplies(len(frames))
	}
	p.deliver(in, frames)
	offheap.Add64(&p.count.Bursts, 1)
	offheap.Add64(&p.count.RxPackets, uint64(len(frames)))
	offheap.Add64(&p.count.RxBytes, bytes)
}

// transport handles a TCP or UDP packet: a client's to a service, or a NAT backend's reply.
func (p *pipeline) transport(in, i int, f Frame) {
	pkt := &p.pkt[i]
	slot := p.snap.Lookup(pkt.Dst, pkt.Ports.Dst(), pkt.Proto)
	if slot < 0 {
		p.reply(in, i, f)
		return
	}
	svc := &p.snap.Services[slot]
	p.noteService(svc)
	if pkt.TTL <= 1 {
		p.drop(f, DropTTL, in, i, rewrite.TimeExceeded())
		return
	}
	be, idx, why := p.route(svc, in, i, f)
	if be == nil {
		p.refuse(svc, why, in, i, f)
		return
	}
	if !be.Resolved {
		p.drop(f, DropNoNeighbour, in, i, noError)
		return
	}
	size := int(pkt.End) - int(pkt.L3)
	if size > int(be.Limit) && !p.cut(svc, &f, in, i, int(be.Limit)) {
		return
	}
	if idx != 0 {
		p.touch(svc, be, idx, i, size)
	}
	if svc.Mode == table.TUN && idx != 0 {
		p.flows.At(idx).SetHop(uint8(in), p.mem.Bytes(f)) // for errors about the tunnel
	}
	if pkt.TCPFlags&packet.FlagSYN != 0 && svc.ClampMSS != 0 {
		clamp(p.mem.Bytes(f), pkt, svc, be, p.snap.Ports[in].MTU)
	}
	p.noteAction(ActionForward)
	p.forward(svc.Mode, be, idx, in, i, f)
	if p.fragments.busy() {
		p.rest(&frag.Way{Kind: frag.ToBackend, Mode: svc.Mode, Service: svc.Ref, Backend: be.Ref, Hash: p.hash[i]}, in, i)
	}
}

// route finds the backend that packet i goes to, and its flow, 0 if it has none. Without a backend it says why.
func (p *pipeline) route(svc *table.Service, in, i int, f Frame) (*table.Backend, uint32, Reason) {
	if svc.OnePacket {
		if p.martian(i) {
			return nil, 0, DropMartian
		}
		be := p.choose(svc, in, i)
		p.noteBackend(be, FlowNone)
		return be, 0, DropNoBackend
	}
	key := p.key(svc, i)
	idx := p.cand[i]
	if idx == 0 || !p.flows.Holds(idx, &key) {
		idx = p.flows.Find(p.hash[i], &key) // a second look: an earlier packet of the burst may have opened it
	}
	if svc.QUIC != nil {
		if be := p.identified(svc, i, f); be != nil {
			return p.toNamed(svc, &key, be, idx, in, i)
		}
	}
	if idx != 0 {
		var be *table.Backend
		be, idx = p.follow(svc, idx, i)
		p.noteBackend(be, FlowHit)
		if idx != 0 {
			return be, idx, DropBackendGone
		}
	}
	if p.fragments.first {
		if be := p.elsewhere(p.hash[i], &key); be != nil && (be.Up || p.outlives(p.seen.State(), i)) {
			p.lead(svc, be, i)
			return be, 0, 0
		}
	}
	be, idx, why := p.open(svc, &key, nil, in, i)
	if be == nil {
		p.noteBackend(nil, FlowNone)
	}
	return be, idx, why
}

// roomForOuter is as much headroom as any outer header takes.
const roomForOuter = packet.IPv6Len + 16

// forward rewrites packet i for its backend and sends it. idx is its flow, 0 if it has none.
func (p *pipeline) forward(mode table.Mode, be *table.Backend, idx uint32, in, i int, f Frame) {
	pkt := &p.pkt[i]
	if mode == table.TUN && f.Off < roomForOuter && int(f.Off) < rewrite.TunOverhead(be) {
		p.drop(f, DropNoHeadroom, in, i, noError)
		return
	}
	bc := &p.backends[be.Ref.Slot()]
	bc.sent(uint64(pkt.End) - uint64(pkt.L3))
	offheap.Add64(&p.count.Forwarded[mode], 1)
	b := p.mem.Bytes(f)
	switch mode {
	case table.DR:
		rewrite.DR(b, pkt, &be.Eth)
	case table.NAT:
		if idx != 0 {
			p.flows.At(idx).SetHop(uint8(in), b)
		}
		rewrite.NATRequest(b, pkt, be)
	case table.TUN:
		start, length := rewrite.TUN(p.mem.Chunk(f.Chunk), int(f.Off), pkt, be, p.hash[i])
		f.Off, f.Len = uint16(start), uint16(length)
	}
	p.send(in, int(be.Out), f)
}

// touch updates a flow for a client's packet of size bytes of IP.
func (p *pipeline) touch(svc *table.Service, be *table.Backend, idx uint32, i, size int) {
	e := p.flows.At(idx)
	e.Count(p.now, uint64(size))
	flags := p.pkt[i].TCPFlags
	s := e.State()
	if s == flow.StateUDP {
		if e.Packets == 2 {
			p.flows.Settle(idx)
		}
		return
	}
	if s == flow.StateEstablished && flags&leaves == 0 {
		return
	}
	p.advance(idx, be, flow.Next(s, direction(svc), flags))
}

// advance changes the state of flow idx and the backend's numbers of active and inactive flows.
func (p *pipeline) advance(idx uint32, be *table.Backend, s flow.State) {
	old := p.flows.At(idx).State()
	if s == old {
		return
	}
	p.flows.SetState(idx, s)
	if was, is := old.Active(), s.Active(); was != is {
		bc := &p.backends[be.Ref.Slot()]
		bc.flows(was, -1)
		bc.flows(is, 1)
	}
}

// follow returns the backend of flow idx. Index 0 says that the packet is to open a flow afresh: a SYN
// that reuses the ports of a flow which is over (IPVS' conn_reuse_mode), or whose backend is
// down or gone; UDP leaves such a backend at once. A nil backend with an index means: gone, and nothing can be done.
func (p *pipeline) follow(svc *table.Service, idx uint32, i int) (*table.Backend, uint32) {
	e := p.flows.At(idx)
	be := p.snap.Backend(e.Backend)
	s := e.State()
	switch {
	case be != nil && be.Up:
		if !p.opens(i) || s == flow.StateEstablished || s.HalfOpen() {
			return be, idx
		}
		if s != flow.StateTimeWait && s != flow.StateClose && (s != flow.StateFinWait || svc.Mode == table.NAT) {
			return be, idx
		}
	case p.outlives(s, i):
		return be, idx
	}
	p.flows.Delete(idx)
	return nil, 0
}

// opens reports whether packet i is a TCP segment that a client opens a connection with.
func (p *pipeline) opens(i int) bool {
	return p.pkt[i].TCPFlags&(packet.FlagSYN|packet.FlagACK|packet.FlagRST) == packet.FlagSYN
}

// outlives reports whether packet i of a flow in state s stays with a backend that is down: an established connection may
// outlive its backend's health.
func (p *pipeline) outlives(s flow.State, i int) bool { return s != flow.StateUDP && !p.opens(i) }

// open picks a backend for a new flow, unless its packet names one, and remembers it. Without a backend it says why.
func (p *pipeline) open(svc *table.Service, key *flow.Key, be *table.Backend, in, i int) (*table.Backend, uint32, Reason) {
	pkt := &p.pkt[i]
	s := flow.StateUDP
	if pkt.Kind == packet.KindTCP {
		if pkt.TCPFlags&packet.FlagRST != 0 || !svc.SloppyTCP && pkt.TCPFlags&(packet.FlagSYN|packet.FlagACK) != packet.FlagSYN {
			return nil, 0, DropNoFlow
		}
		s = flow.Next(flow.StateNone, flow.InOnly, pkt.TCPFlags)
		if s == flow.StateNone {
			return nil, 0, DropNoFlow
		}
	}
	if p.martian(i) {
		return nil, 0, DropMartian
	}
	if be == nil {
		be = p.choose(svc, in, i)
	}
	if be == nil {
		return nil, 0, DropNoBackend
	}
	idx := p.flows.Insert(p.hash[i], key, be.Ref, s, uint8(in), p.now)
	if idx == 0 {
		offheap.Add64(&p.count.Stateless, 1)
		p.noteBackend(be, FlowNone)
		return be, 0, 0
	}
	if svc.Mode == table.NAT {
		p.flows.LinkReply(idx, be, p.now)
	}
	p.opened(be, idx, s, i)
	return be, idx, 0
}

// opened accounts for flow idx, which packet i opened.
func (p *pipeline) opened(be *table.Backend, idx uint32, s flow.State, i int) {
	p.noteBackend(be, FlowNew)
	offheap.Add64(&p.count.FlowsNew, 1)
	bc := &p.backends[be.Ref.Slot()]
	offheap.Add64(&bc.Flows, 1)
	bc.flows(s.Active(), 1)
	if p.sample != 0 && p.hash[i]>>16%p.sample == 0 {
		e := p.flows.At(idx)
		e.SetSampled()
		p.emit(EventFlowNew, e, p.hash[i])
	}
}

// send puts a frame that came in by port in into the outbox of port out.
func (p *pipeline) send(in, out int, f Frame) {
	if p.snap.Tagged {
		p.sendTagged(in, out, f)
		return
	}
	p.noteSent(out)
	p.put(out, f)
}

// put puts a frame into the outbox of interface out.
func (p *pipeline) put(out int, f Frame) {
	o := &p.out[out&(table.MaxPorts-1)]
	o.frames[o.n&(MaxBurst-1)] = f
	o.n++
}

// settle accounts for the flows that ended since the last burst.
func (p *pipeline) settle() {
	ended := p.flows.Ended()
	for k := range ended {
		e := &ended[k]
		if e.State() == flow.StateTemplate {
			continue
		}
		p.backends[e.Backend.Slot()].flows(e.State().Active(), -1)
		offheap.Add64(&p.count.FlowsEnded, 1)
		if e.Evicted() && e.State() != flow.StateTimeWait && e.State() != flow.StateClose {
			offheap.Add64(&p.count.FlowsEvicted, 1)
		}
		if e.Sampled() {
			p.emit(EventFlowEnd, e, p.flowHash(e))
		}
	}
	offheap.Put64(&p.count.Flows, uint64(p.flows.Len()))
}

// flowHash is the hash under which a flow was opened, for its last event; 0 if its service is gone.
func (p *pipeline) flowHash(e *flow.Entry) uint64 {
	svc := p.snap.Service(e.Service)
	if svc == nil {
		return 0
	}
	return p.hasher.Tuple(e.Client, svc.At(e.VIP()), e.Ports, svc.Proto)
}

func (p *pipeline) emit(k EventKind, e *flow.Entry, h uint64) {
	ev := Event{Kind: k, State: e.State(), Client: e.Client, Ports: e.Ports, Service: e.Service, Backend: e.Backend,
		Packets: e.Packets, Bytes: e.Bytes, Time: p.now, Duration: e.LastSeen - e.Created, Hash: h}
	if !p.events.put(&ev) {
		offheap.Add64(&p.count.EventsLost, 1)
	}
}

// dontFragment reports whether packet b must not be fragmented on its way: DF, or IPv6.
func dontFragment(b []byte, p *packet.Packet) bool {
	return p.V6 || binary.BigEndian.Uint16(b[int(p.L3)+6:])&0x4000 != 0
}
