package flow

import (
	"math/bits"
	"sync/atomic"

	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// Peek copies entry i for a reader on another goroutine: a seqlock read. ok is false when the entry
// is free, or changed on every one of a few tries.
func (t *Table) Peek(i uint32, out *Entry) (ok bool) {
	if i == 0 || int(i) >= len(t.entries) {
		return false
	}
	e := &t.entries[i]
	for range 4 {
		seq := atomic.LoadUint32(&e.seq)
		if seq&1 != 0 {
			continue
		}
		out.Client.A = atomic.LoadUint64(&e.Client.A)
		out.Client.B = atomic.LoadUint64(&e.Client.B)
		out.Service = table.Ref(atomic.LoadUint32((*uint32)(&e.Service)))
		out.Ports = packet.Ports(atomic.LoadUint32((*uint32)(&e.Ports)))
		out.Backend = table.Ref(atomic.LoadUint32((*uint32)(&e.Backend)))
		out.meta = atomic.LoadUint32(&e.meta)
		out.LastSeen = atomic.LoadUint32(&e.LastSeen)
		out.Created = atomic.LoadUint32(&e.Created)
		out.Bytes = atomic.LoadUint64(&e.Bytes)
		out.Packets = atomic.LoadUint32(&e.Packets)
		out.l2 = atomic.LoadUint64(&e.l2)
		if atomic.LoadUint32(&e.seq) == seq {
			out.seq = seq
			s := out.State()
			return s != StateNone && s != StateDead
		}
	}
	return false
}

// peekAway is away for a reader that does not own the table.
func (b *bucket) peekAway() uint64 { return atomic.LoadUint64(&b.fp[2]) >> awayShift & awayMask }

// Life tells a copy's flow from others that have the same index before or after it.
func (e *Entry) Life() uint32 { return e.seq }

// Lives reports whether entry i still is the flow that a copy was made of. Only the table's owner may ask.
func (t *Table) Lives(i, life uint32) bool {
	s := t.entries[i].State()
	return t.entries[i].seq == life && s != StateNone && s != StateDead
}

// PeekReply is FindReply for a worker that does not own the table: it copies the flow that p answers, and returns its index.
func (t *Table) PeekReply(h uint64, p *packet.Packet, s *table.Snapshot, out *Entry) uint32 {
	n := t.home(h)
	b := &t.buckets[n]
	if i := t.peekReplyIn(b, h, p, s, out); i != 0 || b.peekAway() == 0 {
		return i
	}
	return t.peekReplyIn(&t.buckets[t.other(n, fingerprint(h))], h, p, s, out)
}

func (t *Table) peekReplyIn(b *bucket, h uint64, p *packet.Packet, s *table.Snapshot, out *Entry) uint32 {
	pat := pattern(h)
	for w := range b.fp {
		word := atomic.LoadUint64(&b.fp[w])
		for m := match(word, pat) & usedLanes[w]; m != 0; m &= m - 1 {
			i := atomic.LoadUint32(&b.idx[w*4+bits.TrailingZeros64(m)>>4])
			if t.Peek(i, out) && answers(out, s, p) {
				return i
			}
		}
	}
	return 0
}
