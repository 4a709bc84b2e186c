package dataplane

import (
	"xlvs/dataplane/offheap"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/rewrite"
	"xlvs/dataplane/table"
)

// noError says that a drop is not answered with an ICMP error.
var noError = rewrite.Error{}

// special handles what is neither TCP nor UDP.
func (p *pipeline) special(in, i int, f Frame) {
	pkt := &p.pkt[i]
	switch pkt.Kind {
	case packet.KindICMP:
		p.icmp(in, i, f)
	case packet.KindFragment:
		p.fragment(in, i, f)
	case packet.KindMalformed:
		p.drop(f, DropMalformed, in, i, noError)
	default:
		p.drop(f, DropNotOurs, in, i, noError)
	}
}

// refuse drops a packet that no backend takes, and tells the sender if the service says so.
func (p *pipeline) refuse(svc *table.Service, why Reason, in, i int, f Frame) {
	if why == DropNoBackend && svc.Reject {
		p.drop(f, why, in, i, rewrite.PortUnreachable())
		return
	}
	p.drop(f, why, in, i, noError)
}

// tooBig drops a packet that is larger than limit bytes and tells a sender that asked not to be fragmented, unless no
// host may be told of so small an MTU (ip_vs_xmit.c does the same).
func (p *pipeline) tooBig(f Frame, in, i, limit int) {
	e := noError
	if dontFragment(p.mem.Bytes(f), &p.pkt[i]) && limit >= rewrite.LeastMTU(p.pkt[i].V6) {
		e = rewrite.TooBig(limit)
	}
	p.drop(f, DropTooBig, in, i, e)
}

// drop counts a frame under its reason. With an ICMP error to send, the frame becomes that
// error, as the rate limit allows; else it is freed. The error's source is the address of the
// interface it leaves by, or the packet's own destination where the interface has none. What claims to come from the
// director itself is not answered.
func (p *pipeline) drop(f Frame, why Reason, in, i int, e rewrite.Error) {
	offheap.Add64(&p.count.Drops[why], 1)
	p.noteDrop(why)
	pkt := &p.pkt[i]
	if e == noError || !rewrite.MayAnswer(p.mem.Bytes(f), pkt) || p.snap.Ours(pkt.Src) || !p.limit.take(p.now) {
		p.mem.Free(f.Chunk)
		return
	}
	src := p.snap.Ports[in].V4
	if pkt.V6 {
		src = p.snap.Ports[in].V6
	}
	if src == (packet.Addr{}) {
		src = pkt.Dst
	}
	start, length, ok := rewrite.ICMP(p.mem.Chunk(f.Chunk), int(f.Off), pkt, src, e)
	if !ok {
		p.mem.Free(f.Chunk)
		return
	}
	f.Off, f.Len = uint16(start), uint16(length)
	offheap.Add64(&p.count.ICMPErrors, 1)
	p.send(in, in, f)
}

// limiter is a token bucket for the messages a director sends itself: as the kernel's
// icmp_msgs_per_sec and icmp_msgs_burst, 1000 a second and 50 at once.
type limiter struct {
	tokens uint32
	last   uint32
}

const limiterBurst = 50

func (l *limiter) take(now uint32) bool {
	if d := now - l.last; d > 0 {
		l.tokens = min(l.tokens+min(d, limiterBurst), limiterBurst)
		l.last = now
	}
	if l.tokens == 0 {
		return false
	}
	l.tokens--
	return true
}
