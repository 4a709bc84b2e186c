package flow

// largeTable is how many buckets do not stay in the cache next to a core: 4 MiB of them.
const largeTable = 1 << 16

// LooksAhead reports whether it is worth while to load ahead what opening a NAT flow will look at besides its own bucket: there may
// be such flows, and it does not stay in the cache.
func (t *Table) LooksAhead() bool { return len(t.buckets) >= largeTable && t.snap.Translates() }

// TouchReplies loads the buckets that LinkReply will put flows into, and where one is full, the other that the flow may go to, so that the
// cache misses of a burst overlap. The result only keeps the loads alive.
func (t *Table) TouchReplies(hashes []uint64) (sink uint64) {
	sink = t.touchBuckets(hashes)
	for _, h := range hashes {
		n := t.home(h)
		if freeLane(&t.buckets[n]) < 0 {
			sink += t.buckets[t.other(n, fingerprint(h))].fp[0]
		}
	}
	return sink
}

// touchVictims loads what Insert will look at when it has to make room for the flows that are not known.
func (t *Table) touchVictims(hashes []uint64, found []uint32) (sink uint64) {
	for i, h := range hashes {
		if found[i] != 0 {
			continue
		}
		b := &t.buckets[t.home(h)]
		if cheap := b.cheap(); cheap != 0 {
			sink += t.entries[b.idx[t.turn(cheap)]].Client.B
			continue
		}
		for lane, k := range &b.idx {
			sink += t.entries[k&-b.taken(lane)].Client.B
		}
	}
	if t.LooksAhead() {
		sink += t.touchPartners(hashes, found)
	}
	return sink
}

// touchPartners loads the other buckets of the NAT flows that will be evicted first.
func (t *Table) touchPartners(hashes []uint64, found []uint32) (sink uint64) {
	for i, h := range hashes {
		n := t.home(h)
		b := &t.buckets[n]
		cheap := b.cheap()
		if found[i] != 0 || cheap == 0 {
			continue
		}
		e := &t.entries[b.idx[t.turn(cheap)]]
		svc, be := t.snap.Former(e.Service, e.Backend)
		if e.refs() < 2 || svc == nil || be == nil {
			continue
		}
		m := t.home(t.replyHash(e, be))
		if m == n {
			m = t.home(t.hasher.Tuple(e.Client, svc.At(e.VIP()), e.Ports, proto(e)))
		}
		sink += t.buckets[m].fp[0]
	}
	return sink
}
