package flow

import "xlvs/dataplane/offheap"

// Free entries are in a pool, as many as it holds, and beyond that in the free entries themselves: each of those in
// the list has the numbers of eight others in it. A list of one link each would make every new flow wait for the
// memory of the entry before it.
const (
	poolSize = 64
	spilled  = 8
)

// alloc returns an entry that is free, or 0.
func (t *Table) alloc() uint32 {
	if t.pooled == 0 && t.free != 0 {
		t.unspill()
	}
	switch {
	case t.pooled > 0:
		t.pooled--
		t.used++
		return t.pool[t.pooled]
	case int(t.fresh) < len(t.entries):
		t.fresh++
		t.used++
		return t.fresh - 1
	}
	return 0
}

// release frees an entry that no bucket names any more.
func (t *Table) release(i uint32) {
	e := &t.entries[i]
	offheap.Put32(&e.meta, 0)
	offheap.PutSeq(&e.seq, e.seq+2) // a reader that took the state before must not take what comes after
	t.used--
	if t.pooled < poolSize {
		t.pool[t.pooled] = i
		t.pooled++
		return
	}
	t.spill(i)
}

// spill moves eight entries from the pool into free entry i, and makes that the first of the list. The
// oldest ones go: the one freed last is the one most likely still in cache.
func (t *Table) spill(i uint32) {
	e, p := &t.entries[i], &t.pool
	offheap.Put64(&e.Client.A, uint64(p[0])|uint64(p[1])<<32)
	offheap.Put64(&e.Client.B, uint64(p[2])|uint64(p[3])<<32)
	offheap.Put64(&e.Bytes, uint64(p[4])|uint64(p[5])<<32)
	offheap.Put64(&e.l2, uint64(p[6])|uint64(p[7])<<32)
	offheap.Put32(&e.LastSeen, t.free)
	t.free = i
	copy(p[:], p[spilled:])
	t.pooled -= spilled
}

// unspill takes the first entry of the list, and the eight that it holds, into the pool, which must have room for nine.
func (t *Table) unspill() {
	i := t.free
	e := &t.entries[i]
	p := t.pool[t.pooled : t.pooled+spilled+1]
	for k, w := range [4]uint64{e.Client.A, e.Client.B, e.Bytes, e.l2} {
		p[2*k], p[2*k+1] = uint32(w), uint32(w>>32)
	}
	p[spilled] = i
	t.pooled += spilled + 1
	t.free = e.LastSeen
}

// touchFree loads the next n entries that alloc will give, so that n new flows wait for memory once and not n times.
func (t *Table) touchFree(n int) (sink uint64) {
	for t.pooled < n && t.pooled+spilled < poolSize && t.free != 0 {
		t.unspill()
	}
	for _, i := range t.pool[max(t.pooled-n, 0):t.pooled] {
		sink += t.entries[i].Client.B
	}
	return sink
}
