package flow

import (
	"math/bits"

	"xlvs/dataplane/offheap"
	"xlvs/dataplane/table"
)

// Insert adds a flow under hash h and returns its index. It makes room if it must: in a full
// bucket, or when no entry is free, it evicts a half-open flow or another that a flood can make, else an expired one, else the
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
	offheap.PutSeq(&e.seq, e.seq|1)
	offheap.Put64(&e.Client.A, k.Client.A)
	offheap.Put64(&e.Client.B, k.Client.B)
	offheap.Put32((*uint32)(&e.Service), uint32(k.Service))
	offheap.Put32((*uint32)(&e.Ports), uint32(k.Ports))
	offheap.Put32((*uint32)(&e.Backend), uint32(be))
	offheap.Put64(&e.l2, uint64(k.VIP)<<48)
	offheap.Put32(&e.meta, uint32(s)|uint32(in)<<8)
	offheap.Put32(&e.LastSeen, now)
	offheap.Put32(&e.Created, now)
	offheap.Put64(&e.Bytes, 0)
	offheap.Put32(&e.Packets, 0)
	offheap.PutSeq(&e.seq, e.seq+1)
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
	offheap.Put64(&b.fp[2], b.fp[2]|1<<(guestShift+lane))
	home := &t.buckets[n]
	offheap.Put64(&home.fp[2], home.fp[2]+1<<awayShift)
}

// setLane writes the index first, so that a reader which sees the fingerprint finds it.
func (t *Table) setLane(b *bucket, lane int, fp uint64, i uint32) {
	offheap.Put32(&b.idx[lane], i)
	offheap.Put64(&b.fp[lane>>2], b.fp[lane>>2]|fp<<(uint(lane&3)*16))
	t.entries[i].addRef(1)
	if t.entries[i].cheap() {
		b.mark(lane, true)
	}
}

// unset frees a lane of bucket n.
func (t *Table) unset(n uint64, lane int) {
	b := &t.buckets[n]
	fp := b.lane(lane)
	offheap.Put64(&b.fp[lane>>2], b.fp[lane>>2]&^(0xffff<<(uint(lane&3)*16)))
	b.mark(lane, false)
	t.entries[b.idx[lane]].addRef(-1)
	if b.guests()>>lane&1 != 0 {
		offheap.Put64(&b.fp[2], b.fp[2]&^(1<<(guestShift+lane)))
		home := &t.buckets[t.other(n, fp)]
		offheap.Put64(&home.fp[2], home.fp[2]-1<<awayShift)
	}
}

// cheap reports whether a flood can make such a flow with one packet: half-open, UDP that was heard of once, or
// what is remembered of a client. Such flows must go before those that somebody answered.
func (e *Entry) cheap() bool {
	s := e.State()
	return s.HalfOpen() || s == StateUDP && e.Packets <= 1 || s == StateTemplate
}

// mark notes whether the flow in a lane is cheap.
func (b *bucket) mark(lane int, cheap bool) {
	w := b.fp[2] &^ (1 << (cheapShift + lane))
	if cheap {
		w |= 1 << (cheapShift + lane)
	}
	offheap.Put64(&b.fp[2], w)
}

// SetState changes the state of flow i.
func (t *Table) SetState(i uint32, s State) {
	e := &t.entries[i]
	was := e.cheap()
	e.setState(s)
	if was != e.cheap() {
		t.remark(i)
	}
}

// Settle tells the table that a second packet of UDP flow i was counted: it is no flood's any more.
func (t *Table) Settle(i uint32) { t.remark(i) }

// remark brings the marks of flow i's lanes up to date.
func (t *Table) remark(i uint32) {
	e := &t.entries[i]
	svc, be := t.snap.Former(e.Service, e.Backend)
	if svc != nil {
		t.markLanes(t.hasher.Tuple(e.Client, svc.At(e.VIP()), e.Ports, proto(e)), i, e.cheap())
	}
	if be != nil && (e.refs() > 1 || svc != nil && svc.QUIC != nil) { // NAT: a second link, or the only one of a flow aside
		t.markLanes(t.replyHash(e, be), i, e.cheap())
	}
}

// markLanes marks the lane that holds entry i under hash h.
func (t *Table) markLanes(h uint64, i uint32, cheap bool) {
	n := t.home(h)
	for _, m := range [2]uint64{n, t.other(n, fingerprint(h))} {
		b := &t.buckets[m]
		for lane := range b.idx {
			if b.idx[lane] == i && b.lane(lane) == fingerprint(h) {
				b.mark(lane, cheap)
				return
			}
		}
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
	e.setState(StateDead)
}

// Ended returns copies of the flows that were deleted, evicted or swept since the last call. The slice is
// valid until the next call of any method. Whoever wants to know of every flow calls it after each burst.
func (t *Table) Ended() []Entry {
	e := t.ended
	t.ended = t.ended[:0]
	return e
}

// evict frees a lane of bucket n, never one of entry keep. It reports whether it could. A cheap flow goes
// first, whichever: the bucket says which lanes have one, and a flood of them must not cost a look at each.
func (t *Table) evict(n uint64, now, keep uint32) bool {
	b := &t.buckets[n]
	victim := -1
	if cheap := b.cheap(); cheap != 0 {
		if victim = t.turn(cheap); b.idx[victim] == keep {
			victim = -1
		}
	}
	if victim < 0 {
		if victim = t.oldest(b, now, keep); victim < 0 {
			return false
		}
	}
	if e := &t.entries[b.idx[victim]]; e.State() != StateDead && !t.Expired(e, now) {
		offheap.Put32(&e.meta, e.meta|flagEvicted)
	}
	t.clearLane(n, victim)
	return true
}

// oldest returns the lane of the flow not seen for longest, an expired one before the others; -1 where there is none but keep.
// Which it will be cannot be guessed, so the search has no branch that depends on it: the greatest score wins, made of
// expired or not, age and, the lower the greater, lane.
func (t *Table) oldest(b *bucket, now, keep uint32) int {
	best := uint64(0)
	for lane, i := range &b.idx {
		i &= -b.taken(lane)
		e := &t.entries[i]
		s, age := e.State()&15, now-e.LastSeen
		expired := uint64(uint32(t.snap.TimeoutsOf(e.Service)[s]-age) >> 31)
		score := (expired|over[s])<<48 | (uint64(age)+1)<<8 | uint64(lanes-lane)
		if i == 0 || i == keep {
			score = 0
		}
		best = max(best, score)
	}
	if best == 0 {
		return -1
	}
	return lanes - int(best&0xff)
}

// over is 1 for the states of what is no flow any more.
var over = [16]uint64{StateNone: 1, StateDead: 1}

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
	// Rather what is cheap in some of the next buckets than an answered flow here: in a table that answered flows fill to nine
	// tenths, sixty-four are enough.
	for step := range uint64(64) {
		if m := (n + step) & uint64(len(t.buckets)-1); t.buckets[m].cheap() != 0 {
			n = m
			break
		}
	}
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
