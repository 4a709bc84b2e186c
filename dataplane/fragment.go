package dataplane

import (
	"xlvs/dataplane/frag"
	"xlvs/dataplane/offheap"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/rewrite"
	"xlvs/dataplane/table"
)

const (
	fragmentedDatagrams = 1024 // that a worker remembers
	maxHeldFragments    = 256  // that wait for their first, and no more than an eighth of the packet memory
	maxPieces           = 64   // that one packet is cut into
	leastPiece          = 24   // bytes of data: a piece with a TCP header has its checksum, too
)

// fragments is a pipeline's state about datagrams in fragments.
type fragments struct {
	table  *frag.Table
	first  bool     // the frame in hand is a first fragment, and wants to know its way
	way    frag.Way // that it went
	n      int      // pieces that were cut off the frame in hand
	pieces [maxPieces]Frame
	extra  int    // frames sent beyond the one that each received frame is worth
	flush  func() // empties the outboxes
}

func newFragments(chunks int, flush func()) fragments {
	return fragments{table: frag.New(fragmentedDatagrams, min(maxHeldFragments, chunks/8)), flush: flush}
}

func (s *fragments) busy() bool { return s.first || s.n != 0 }

// room makes sure that one more frame can be sent: an outbox holds no more than a burst.
func (s *fragments) room() {
	if s.extra%MaxBurst == 0 {
		s.flush()
	}
	s.extra++
}

// done leaves the outboxes with room for the rest of the burst.
func (s *fragments) done() {
	if s.extra > 0 {
		s.extra = 0
		s.flush()
	}
}

// fragment handles any fragment. The first one of a datagram has the ports and goes the way of a whole packet; the others
// follow it, and wait for it if they come before.
func (p *pipeline) fragment(in, i int, f Frame) {
	pkt, s := &p.pkt[i], &p.fragments
	b := p.mem.Bytes(f)
	part, ok := pkt.Fragment(b)
	if !ok {
		p.drop(f, DropFragment, in, i, noError)
		return
	}
	if part.Whole() { // RFC 6946: no other fragment has to do with it
		p.whole(in, i, f, b)
		return
	}
	p.expireFragments()
	key := frag.Key{Src: pkt.Src, Dst: pkt.Dst, ID: part.ID, Proto: part.Proto}
	if pkt.V6 {
		key.Proto = 0
	}
	d := s.table.Find(p.hasher.Tuple(pkt.Src, pkt.Dst, packet.Ports(part.ID), key.Proto), &key, p.now)
	p.freeOrphans(DropFragTimeout)
	switch s.table.Judge(d, &part) {
	case frag.Fine:
		p.accept(d, &part, in, i, f)
	case frag.Duplicate:
		p.drop(f, DropFragment, in, i, noError)
	case frag.Late:
		p.drop(f, DropFragTimeout, in, i, noError)
	default:
		p.freeOrphans(DropOverlap)
		p.drop(f, DropOverlap, in, i, noError)
	}
	s.table.Settle(d)
	s.done()
}

// whole handles a first fragment, or a packet that is its only one, as a TCP or UDP packet.
func (p *pipeline) whole(in, i int, f Frame, b []byte) {
	if !p.pkt[i].ParseFirst(b) {
		p.drop(f, DropFragment, in, i, noError)
		return
	}
	p.hash[i], p.cand[i] = p.hasher.Flow(&p.pkt[i]), 0
	p.transport(in, i, f)
}

// accept handles a fragment of datagram d that may go on.
func (p *pipeline) accept(d uint32, part *packet.Fragment, in, i int, f Frame) {
	s := &p.fragments
	way := s.table.Way(d)
	switch {
	case part.Offset == 0:
		s.first, s.way = true, frag.Way{Kind: frag.Nowhere}
		p.whole(in, i, f, p.mem.Bytes(f))
		s.first = false
		*way = s.way
		p.release(d, way, i)
	case way.Kind != frag.Unknown:
		p.follows(way, in, i, f)
	case !s.table.Hold(d, frag.Held{Chunk: f.Chunk, Off: f.Off, Len: f.Len, In: uint8(in)}, p.now):
		p.drop(f, DropFragment, in, i, noError)
	default:
		p.noteHeld(f)
	}
}

// release sends what waited for datagram d's first fragment after it.
func (p *pipeline) release(d uint32, way *frag.Way, i int) {
	first := p.trace // these have verdicts of their own
	defer func() { p.trace = first }()
	for h, ok := p.fragments.table.Take(d); ok; h, ok = p.fragments.table.Take(d) {
		p.trace = first.noteSettled(h.Chunk)
		f := Frame{Chunk: h.Chunk, Off: h.Off, Len: h.Len}
		p.hasher.Parse(p.mem.Bytes(f), &p.pkt[i])
		p.fragments.room()
		p.follows(way, int(h.In), i, f)
	}
}

// rest is called when the frame in hand has been sent on its way: the pieces that were cut off it follow, and if it is a
// first fragment, its way is remembered.
func (p *pipeline) rest(way *frag.Way, in, i int) {
	defer p.trace.resume(p.trace.soFar()) // the verdict is the first piece's
	s := &p.fragments
	s.way = *way
	n := s.n
	s.n = 0
	for _, f := range s.pieces[:n] {
		p.hasher.Parse(p.mem.Bytes(f), &p.pkt[i])
		s.room()
		p.follows(way, in, i, f)
	}
	if !s.first {
		s.done()
	}
}

// follows sends a later fragment, packet i, the way that the first one went.
func (p *pipeline) follows(way *frag.Way, in, i int, f Frame) {
	pkt := &p.pkt[i]
	svc, be := p.snap.Service(way.Service), p.snap.Backend(way.Backend)
	if way.Kind == frag.Nowhere {
		p.drop(f, DropFragment, in, i, noError)
		return
	}
	p.noteService(svc)
	p.noteBackend(be, FlowHit)
	limit := 0
	switch {
	case svc == nil || be == nil || int(way.Out) >= len(p.snap.Ports):
		p.drop(f, DropBackendGone, in, i, noError)
		return
	case !be.Resolved:
		p.drop(f, DropNoNeighbour, in, i, noError)
		return
	case pkt.TTL <= 1: // RFC 1122, 3.2.2: no error about a later fragment
		p.drop(f, DropTTL, in, i, noError)
		return
	case way.Kind == frag.ToBackend:
		limit = int(be.Limit)
	default:
		limit = int(p.snap.Ports[way.Out].MTU)
	}
	if int(pkt.End)-int(pkt.L3) > limit && !p.cut(svc, &f, in, i, limit) {
		return
	}
	p.sendPart(way, be, in, i, f)
	if p.fragments.n != 0 {
		p.rest(way, in, i)
	}
}

func (p *pipeline) sendPart(way *frag.Way, be *table.Backend, in, i int, f Frame) {
	pkt, b := &p.pkt[i], p.mem.Bytes(f)
	switch {
	case way.Kind == frag.ToClient:
		p.noteAction(ActionReply)
		p.countReply(be, pkt)
		rewrite.NATReplyFragment(b, pkt, way.Addr, &way.Eth)
		p.send(in, int(way.Out), f)
	case way.Mode == table.NAT:
		p.noteAction(ActionForward)
		p.countForward(table.NAT, be, pkt)
		rewrite.NATFragment(b, pkt, be)
		p.send(in, int(be.Out), f)
	default:
		p.noteAction(ActionForward)
		p.hash[i] = way.Hash
		p.forward(way.Mode, be, 0, in, i, f)
	}
}

// countForward counts what a backend is sent.
func (p *pipeline) countForward(mode table.Mode, be *table.Backend, pkt *packet.Packet) {
	bc := &p.backends[be.Ref.Slot()]
	bc.sent(uint64(pkt.End) - uint64(pkt.L3))
	offheap.Add64(&p.count.Forwarded[mode], 1)
}

// cut makes a packet of more than limit bytes fit: an IPv4 packet that may be fragmented loses all but its first piece, and
// the others wait for rest (RFC 2003, 3.1 leaves the choice; the inner packet is what is fragmented, so that the
// backend's tunnel has nothing to reassemble). Of others, and where the service forbids it, the sender is told, and false returned.
func (p *pipeline) cut(svc *table.Service, f *Frame, in, i, limit int) bool {
	pkt, s := &p.pkt[i], &p.fragments
	b := p.mem.Bytes(*f)
	if svc.NoFragment || dontFragment(b, pkt) {
		p.tooBig(*f, in, i, limit)
		return false
	}
	if packet.Fold(packet.Sum(b[pkt.L3:pkt.L4], 0)) != 0xffff {
		p.drop(*f, DropMalformed, in, i, noError) // its pieces would get a header checksum that is right
		return false
	}
	step, n := rewrite.Fragment4(pkt, limit)
	if step < leastPiece || n > maxPieces {
		p.drop(*f, DropTooBig, in, i, noError)
		return false
	}
	if p.mem.Available() < n-1 {
		p.drop(*f, DropNoMemory, in, i, noError)
		return false
	}
	if pkt.Unfinished {
		pkt.Finish(b, pkt.Src, pkt.Dst)
		pkt.Unfinished = false
	}
	for k := 1; k < n; k++ {
		chunk, _ := p.mem.Alloc()
		length := rewrite.Piece4(p.mem.Chunk(chunk)[f.Off:], b, pkt, k, n, step)
		s.pieces[k-1] = Frame{Chunk: chunk, Off: f.Off, Len: uint16(length)}
	}
	s.n = n - 1
	f.Len = uint16(rewrite.Piece4(b, b, pkt, 0, n, step))
	pkt.End = f.Len
	offheap.Add64(&p.count.Fragmented, 1)
	return true
}

// freeOrphans frees fragments that will not be sent any more.
func (p *pipeline) freeOrphans(why Reason) {
	for _, h := range p.fragments.table.Orphans() {
		p.mem.Free(h.Chunk)
		offheap.Add64(&p.count.Drops[why], 1)
		if v := p.trace.noteSettled(h.Chunk); v != nil {
			v.Action, v.Reason = ActionDrop, why
		}
	}
}

// expireFragments drops the fragments that have waited for too long.
func (p *pipeline) expireFragments() {
	if p.fragments.table.Held() > 0 {
		p.fragments.table.Sweep(p.now)
		p.freeOrphans(DropFragTimeout)
	}
	offheap.Put64(&p.count.FragmentsHeld, uint64(p.fragments.table.Held()))
}

// dropHeld gives the chunks of all fragments that wait back.
func (p *pipeline) dropHeld() {
	if p.fragments.table != nil && p.count != nil {
		p.fragments.table.Clear()
		p.freeOrphans(DropFragTimeout)
	}
}
