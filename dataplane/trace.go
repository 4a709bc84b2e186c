package dataplane

import (
	"xlvs/dataplane/frag"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// Action is what became of a frame.
type Action uint8

// The actions. ActionNone is what a frame has that is neither sent nor dropped yet: one that waits for another.
const (
	ActionNone    Action = iota
	ActionForward        // sent to a backend
	ActionReply          // a NAT backend's reply, sent to its client
	ActionAnswer         // answered by the director itself
	ActionDrop           // dropped under a Reason, with or without an ICMP error to its sender
)

// FlowUse is what a frame had to do with the flow table.
type FlowUse uint8

// The uses.
const (
	FlowNone FlowUse = iota // no flow, and none opened
	FlowHit                 // of a known flow
	FlowNew                 // opened one
)

func (u FlowUse) String() string { return [...]string{"none", "hit", "new"}[u] }

// A Verdict tells what became of a frame, for replays and tests. Service and Backend are nil where none was
// found; both belong to the snapshot.
type Verdict struct {
	Action  Action
	Reason  Reason // of ActionDrop
	Service *table.Service
	Backend *table.Backend
	Flow    FlowUse
	Chunk   uint32    // of ActionNone: the chunk that the frame waits in
	Out     []uint8   // the ports that its frames left by, in their order
	Settled []Settled // what became of frames that had waited, in that order; whoever traces empties it
}

// HoldTimeout is how long a frame waits for another at most, in milliseconds.
const HoldTimeout = frag.HoldTimeout

// A Settled frame had waited in a chunk until now. Its frames left after those of the frame in hand.
type Settled struct {
	Chunk   uint32
	Verdict Verdict
}

// Trace makes worker i write what becomes of each frame into v, the last of a burst's frames winning: whoever wants
// every verdict gives Step one frame at a time. All frames then take the long way. A nil v ends it. The worker must not run.
func (e *Engine) Trace(i int, v *Verdict) { e.workers[i].trace = v }

// deliverTraced is deliver without its short way, so that every frame meets the places where verdicts are noted.
func (p *pipeline) deliverTraced(in int, frames []Frame) {
	trunk := in
	for i, f := range frames {
		*p.trace = Verdict{Settled: p.trace.Settled}
		in = p.enter(trunk, &p.pkt[i], f)
		if p.pkt[i].Kind > packet.KindUDP {
			p.special(in, i, f)
			continue
		}
		p.transport(in, i, f)
	}
}

// The functions below note a part of the verdict where there is a trace, and cost a comparison where there is none.

func (p *pipeline) noteService(s *table.Service) {
	if p.trace != nil {
		p.trace.Service = s
	}
}

func (p *pipeline) noteBackend(b *table.Backend, u FlowUse) {
	if p.trace != nil {
		p.trace.Backend, p.trace.Flow = b, u
	}
}

func (p *pipeline) noteAction(a Action) {
	if p.trace != nil {
		p.trace.Action = a
	}
}

func (p *pipeline) noteDrop(why Reason) {
	if p.trace != nil {
		p.trace.Action, p.trace.Reason = ActionDrop, why
	}
}

func (p *pipeline) noteHeld(f Frame) {
	if p.trace != nil {
		p.trace.Chunk = f.Chunk
	}
}

func (p *pipeline) noteSent(out int) {
	if p.trace != nil {
		p.trace.Out = append(p.trace.Out, uint8(out))
	}
}

// noteSettled returns where the verdict of a frame is noted that waited in a chunk; nil where v is. It is good until the next call.
func (v *Verdict) noteSettled(chunk uint32) *Verdict {
	if v == nil {
		return nil
	}
	v.Settled = append(v.Settled, Settled{Chunk: chunk})
	return &v.Settled[len(v.Settled)-1].Verdict
}

// resume brings back what was noted in v before, but for the frames that left.
func (v *Verdict) resume(before Verdict) {
	if v != nil {
		before.Out = v.Out
		*v = before
	}
}

// soFar returns what was noted in v, for resume.
func (v *Verdict) soFar() (noted Verdict) {
	if v != nil {
		noted = *v
	}
	return noted
}

// Expire ends all flows of worker i whose time has run out by now, at once: for clocks that jump. The worker must not run.
func (e *Engine) Expire(i int, now uint32) {
	w := e.workers[i]
	w.now = now
	for !w.flows.SweepAll(now) {
		w.settle()
	}
	w.settle()
}

// A Choice is where a new flow would go, and how that comes about.
type Choice struct {
	Service *table.Service // nil: none has the address, port and protocol
	Backend *table.Backend // nil: the service has none for new flows
	Hash    uint64         // that selects the slot
	Slot    int            // of the service's table
}

// Choose works out where a new flow would go now, without opening it. Where clients are persistent, it is where one goes
// of whom nothing is remembered.
func (e *Engine) Choose(src, dst packet.Addr, ports packet.Ports, proto uint8) (c Choice) {
	s := e.snap.Load()
	slot := s.Lookup(dst, ports.Dst(), proto)
	if slot < 0 {
		return c
	}
	c.Service = &s.Services[slot]
	c.Hash = spread(&e.hasher, c.Service, src, dst, ports, proto)
	c.Backend = s.Pick(c.Service, c.Hash)
	c.Slot = int((c.Hash >> 32) * uint64(len(c.Service.Slots)) >> 32) // as Snapshot.Pick
	return c
}
