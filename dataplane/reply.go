package dataplane

import (
	"xlvs/dataplane/flow"
	"xlvs/dataplane/frag"
	"xlvs/dataplane/offheap"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/rewrite"
	"xlvs/dataplane/table"
)

// reply handles what a NAT backend sends to a client: found in this worker's flows, or in
// another's, which it may only read.
func (p *pipeline) reply(in, i int, f Frame) {
	pkt := &p.pkt[i]
	idx := p.cand[i]
	e := p.flows.At(idx)
	if !p.flows.Answers(idx, pkt) {
		e, idx = p.findReply(p.hash[i], pkt)
	}
	if e == nil {
		why := DropNotOurs
		if p.snap.Replies(pkt.Src, pkt.Ports.Src(), pkt.Proto) {
			why = DropReplyNoFlow
		}
		p.drop(f, why, in, i, noError)
		return
	}
	svc, be := p.snap.Service(e.Service), p.snap.Backend(e.Backend)
	if svc == nil || be == nil || int(e.In()) >= len(p.snap.Ports) {
		p.drop(f, DropReplyNoFlow, in, i, noError)
		return
	}
	p.noteService(svc)
	p.noteBackend(be, FlowHit)
	if pkt.TTL <= 1 {
		p.drop(f, DropTTL, in, i, rewrite.TimeExceeded())
		return
	}
	out := &p.snap.Ports[e.In()]
	size := int(pkt.End) - int(pkt.L3)
	if size > int(out.MTU) && !p.cut(svc, &f, in, i, int(out.MTU)) {
		return
	}
	if idx == 0 {
		p.tell(flow.Out, pkt, size)
	} else {
		e.Count(p.now, uint64(size))
		if s := e.State(); s == flow.StateUDP {
			if e.Packets == 2 {
				p.flows.Settle(idx)
			}
		} else if s != flow.StateEstablished || pkt.TCPFlags&leaves != 0 {
			p.advance(idx, be, flow.Next(s, flow.Out, pkt.TCPFlags))
		}
	}
	b := p.mem.Bytes(f)
	bc := &p.backends[be.Ref.Slot()]
	bc.answered(uint64(size))
	p.noteAction(ActionReply)
	offheap.Add64(&p.count.Replies, 1)
	offheap.Add64(&p.count.ReplyBytes, uint64(size))
	eth := table.Eth(e.MAC(), out.MAC)
	if pkt.TCPFlags&packet.FlagSYN != 0 && svc.ClampMSS != 0 {
		clamp(b, pkt, svc, be, out.MTU)
	}
	rewrite.NATReply(b, pkt, svc.At(e.VIP()), e.Ports.Dst(), &eth)
	p.send(in, int(e.In()), f)
	if p.fragments.busy() {
		p.rest(&frag.Way{Kind: frag.ToClient, Service: svc.Ref, Backend: be.Ref, Out: e.In(), Addr: svc.At(e.VIP()), Eth: eth}, in, i)
	}
}

// findReply returns the flow that pkt, whose hash is h, answers, and its index, which is 0 where another
// worker owns the flow; nil if there is none.
func (p *pipeline) findReply(h uint64, pkt *packet.Packet) (*flow.Entry, uint32) {
	if idx := p.flows.FindReply(h, pkt); idx != 0 {
		return p.flows.At(idx), idx
	}
	for k := range p.peers {
		if i := p.peers[k].flows.PeekReply(h, pkt, p.snap, &p.seen); i != 0 {
			p.seenAt = origin{k, i}
			return &p.seen, 0
		}
	}
	return nil, 0
}
