package flow

import (
	"math/bits"
	"sync/atomic"

	"xlvs/dataplane/table"
)

// Insert adds a flow under hash h and returns its index. It makes room if it must: in a full
// bucket, or when no entry is free, it evicts an expired flow, else the oldest half-open one, else the
// one not seen for longest. Evicted flows are returned by the next Ended. Insert returns 0 only when
// nothing near h can be evicted; the caller then forwards without an entry.
func (t *Table) Insert(h uint64, k *Key, be table.Ref, s State, in uint8, now uint32) uint32 {
	i := t.alloc()
	if i == 0 {
		if i = t.scavenge(h, now); i == 0 {
			return 0
		}
	}
	e := &t.entries[i]
	atomic.StoreUint32(&e.seq, e.seq|1)
	put64(&e.Client.A, k.Client.A)
	put64(&e.Client.B, k.Client.B)
	put32((*uint32)(&e.Service), uint32(k.Service))
	put32((*uint32)(&e.Ports), uint32(k.Ports))
	put32((*uint32)(&e.Backend), uint32(be))
	put64(&e.l2, uint64(k.VIP)<<48)
	put32(&e.meta, uint32(s)|uint32(in)<<8)
	e.LastSeen, e.Created, e.Bytes, e.Packets = now, now, 0, 0
	atomic.StoreUint32(&e.seq, e.seq+1)
	if !t.link(h, i, now) {
		t.release(i)
		return 0
	}
	return i
}

// LinkReply makes NAT flow i findable by its backend's replies.
func (t *Table) LinkReply(i uint32, be *table.Backend, now uint32) {
	t.link(t.replyHash(&t.entries[i], be), i, now)
}

func freeLane(b *bucket) int {
	for w := range b.fp {
		if m := match(b.fp[w], 0) & usedLanes[w]; m != 0 {
			return w*4 + bits.TrailingZeros64(m)>>4
		}
	}
	return -1
}

// link puts entry i into a free lane of h's bucket, else of its second one; where both are full it moves
// a flow of the first to that one's other bucket, and only where no flow can be moved it evicts one, never i itself.
func (t *Table) link(h uint64, i, now uint32) bool {
	n, fp := t.home(h), fingerprint(h)
	lane := freeLane(&t.buckets[n])
	if lane < 0 {
		if m := t.other(n, fp); freeLane(&t.buckets[m]) >= 0 {
			t.linkGuest(n, m, fp, i)
			return true
		}
		if !t.displace(n) {
			t.evict(n, now, i)
		}
		if lane = freeLane(&t.buckets[n]); lane < 0 {
			return false
		}
	}
	t.setLane(&t.buckets[n], lane, fp, i)
	return true
}

// displace moves a flow of the full bucket n to its other bucket, if one of them has room there.
func (t *Table) displace(n uint64) bool {
	b := &t.buckets[n]
	for lane := range b.idx {
		fp, i := b.lane(lane), b.idx[lane]
		m := t.other(n, fp)
		// A guest stays: moved home while a reader looks there first and here second, it would be seen in neither place.
		if b.guests()>>lane&1 != 0 || freeLane(&t.buckets[m]) < 0 {
			continue
		}
		t.linkGuest(n, m, fp, i) // there first, and then gone from here
		t.unset(n, lane)
		return true
	}
	return false
}

// linkGuest puts an entry of bucket n into bucket m.
func (t *Table) linkGuest(n, m, fp uint64, i uint32) {
	b := &t.buckets[m]
	lane := freeLane(b)
	t.setLane(b, lane, fp, i)
	put64(&b.fp[2], b.fp[2]|1<<(48+lane))
	home := &t.buckets[n]
	put64(&home.fp[2], home.fp[2]+1<<32)
}

// setLane writes the index first, so that a reader which sees the fingerprint finds it.
func (t *Table) setLane(b *bucket, lane int, fp uint64, i uint32) {
	put32(&b.idx[lane], i)
	put64(&b.fp[lane>>2], b.fp[lane>>2]|fp<<(uint(lane&3)*16))
	t.entries[i].addRef(1)
}

// unset frees a lane of bucket n.
func (t *Table) unset(n uint64, lane int) {
	b := &t.buckets[n]
	fp := b.lane(lane)
	put64(&b.fp[lane>>2], b.fp[lane>>2]&^(0xffff<<(uint(lane&3)*16)))
	t.entries[b.idx[lane]].addRef(-1)
	if b.guests()>>lane&1 != 0 {
		put64(&b.fp[2], b.fp[2]&^(1<<(48+lane)))
		home := &t.buckets[t.other(n, fp)]
		put64(&home.fp[2], home.fp[2]-1<<32)
	}
}

// unlink takes entry i out of h's bucket, or its second one.
func (t *Table) unlink(h uint64, i uint32) {
	n := t.home(h)
	if away := t.buckets[n].away(); !t.unlinkIn(n, h, i) && away > 0 {
		t.unlinkIn(t.other(n, fingerprint(h)), h, i)
	}
}

func (t *Table) unlinkIn(n, h uint64, i uint32) bool {
	b, pat := &t.buckets[n], pattern(h)
	for w := range b.fp {
		for m := match(b.fp[w], pat) & usedLanes[w]; m != 0; m &= m - 1 {
			lane := w*4 + bits.TrailingZeros64(m)>>4
			if b.idx[lane] == i {
				t.unset(n, lane)
				return true
			}
		}
	}
	return false
}

func (t *Table) alloc() uint32 {
	i := t.free
	if i != 0 {
		t.free = t.entries[i].LastSeen
	} else if int(t.fresh) < len(t.entries) {
		i = t.fresh
		t.fresh++
	} else {
		return 0
	}
	t.used++
	return i
}

func (t *Table) release(i uint32) {
	e := &t.entries[i]
	put32(&e.meta, 0)
	atomic.StoreUint32(&e.seq, e.seq+2) // a reader that took the state before must not take LastSeen after
	put32(&e.LastSeen, t.free)
	t.free = i
	t.used--
}

// Delete ends flow i. Its buckets are found through the snapshot; where that does not even remember the
// service or backend, Sweep clears what remains and frees the entry then.
func (t *Table) Delete(i uint32) {
	e := &t.entries[i]
	if s := e.State(); s == StateNone || s == StateDead {
		return
	}
	t.end(e)
	t.unlinkAll(i)
}

// end records that a flow is over.
func (t *Table) end(e *Entry) {
	if len(t.ended) < cap(t.ended) {
		t.ended = append(t.ended, *e)
	}
}

// unlinkAll takes entry i out of the buckets that still hold it, and frees it if that succeeds.
func (t *Table) unlinkAll(i uint32) {
	e := &t.entries[i]
	svc, be := t.snap.Former(e.Service, e.Backend)
	if e.refs() > 0 && svc != nil {
		t.unlink(t.hasher.Tuple(e.Client, svc.At(e.VIP()), e.Ports, proto(e)), i)
	}
	if e.refs() > 0 && be != nil {
		t.unlink(t.replyHash(e, be), i)
	}
	if e.refs() == 0 {
		t.release(i)
		return
	}
	e.SetState(StateDead)
}

// Ended returns copies of the flows that were deleted, evicted or swept since the last call. The slice is
// valid until the next call of any method. Whoever wants to know of every flow calls it after each burst.
func (t *Table) Ended() []Entry {
	e := t.ended
	t.ended = t.ended[:0]
	return e
}

// rank is the first thing that counts when a flow must go: dead ones first, then half-open ones.
var rank = func() (r [16]uint64) {
	r[StateNone], r[StateDead] = 2, 2
	for s := range numStates {
		if s.HalfOpen() {
			r[s] = 1
		}
	}
	return r
}()

// evict frees a lane of bucket n, never one of entry keep. It reports whether it could. Which lane it is cannot be
// guessed, so the search has no branch that depends on it: the greatest score wins, made of rank, age and, the lower the greater, lane.
func (t *Table) evict(n uint64, now, keep uint32) bool {
	b := &t.buckets[n]
	best := uint64(0)
	for lane, i := range &b.idx {
		i &= -b.taken(lane)
		e := &t.entries[i]
		s, age := e.State()&15, now-e.LastSeen
		expired := uint64(uint32(t.timeouts[s]-age) >> 31)
		score := max(rank[s], expired<<1)<<48 | (uint64(age)+1)<<8 | uint64(lanes-lane)
		if i == 0 || i == keep {
			score = 0
		}
		best = max(best, score)
	}
	if best == 0 {
		return false
	}
	victim := lanes - int(best&0xff)
	if best>>48 < 2 {
		t.entries[b.idx[victim]].meta |= flagEvicted
	}
	t.clearLane(n, victim)
	return true
}

// clearLane ends the flow in a lane. The lane is free then, also when the flow is dead already or
// its hash can no longer be computed.
func (t *Table) clearLane(n uint64, lane int) {
	i := t.buckets[n].idx[lane]
	e := &t.entries[i]
	s := e.State()
	if s != StateNone && s != StateDead {
		t.end(e)
	}
	t.unset(n, lane)
	switch {
	case e.refs() == 0:
		t.release(i)
	case s != StateDead: // a NAT flow's other lane
		t.unlinkAll(i)
	}
}

// scavenge finds an entry to reuse when none is free: it evicts in h's bucket and then in those after it.
func (t *Table) scavenge(h uint64, now uint32) uint32 {
	n := t.home(h)
	for step := range uint64(64) {
		if len(t.ended) > maxEnded/2 {
			return 0
		}
		if t.evict((n+step)&uint64(len(t.buckets)-1), now, 0) {
			if i := t.alloc(); i != 0 {
				return i
			}
		}
	}
	return 0
}

// sweepCycle is how long Sweep aims to take for the whole table; maxSweep bounds what it does in a millisecond.
const (
	sweepCycle = 8000
	maxSweep   = 64
)

// Sweep looks for expired flows in the buckets that are due at time now, and deletes them: the
// whole table in about eight seconds, larger ones more slowly, at most 64 buckets for each millisecond since the last
// call, and no more than for 100.
func (t *Table) Sweep(now uint32) {
	elapsed := now - t.swept
	if elapsed == 0 {
		return
	}
	t.swept = now
	quota := min(uint32(len(t.buckets)/sweepCycle+1), maxSweep) * min(elapsed, 100)
	for ; quota > 0 && len(t.ended)+lanes <= maxEnded/2; quota-- {
		t.sweepBucket(uint64(t.hand), now)
		t.hand = (t.hand + 1) & uint32(len(t.buckets)-1)
	}
}

func (t *Table) sweepBucket(n uint64, now uint32) {
	b := &t.buckets[n]
	if b.empty() {
		return
	}
	for lane := range b.idx {
		if b.lane(lane) == 0 {
			continue
		}
		e := &t.entries[b.idx[lane]]
		if s := e.State(); s == StateDead || s == StateNone || t.Expired(e, now) {
			t.clearLane(n, lane)
		}
	}
}

// SweepAll sweeps the whole table at once: for tests and for offline runs with a virtual clock. It stops, and
// returns false, when Ended must be called before it can go on.
func (t *Table) SweepAll(now uint32) bool {
	for n := range t.buckets {
		if len(t.ended)+lanes > maxEnded {
			return false
		}
		t.sweepBucket(uint64(n), now)
	}
	return true
}
