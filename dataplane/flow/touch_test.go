package flow

import "testing"

// What is loaded ahead is what is used then: the sums of the loads are those of the right buckets.
func TestTouchesTheRightBuckets(t *testing.T) {
	tab, keys, hashes, be := filled(t, 4*largeTable, true)
	if !tab.LooksAhead() {
		t.Fatal("not a large table of NAT flows")
	}
	for k, h := range hashes { // cheap ones are evicted first
		tab.SetState(tab.Find(h, &keys[k]), StateSynRecv)
	}
	// where is the buckets that have an entry.
	where := map[uint32][]uint64{}
	for n := range tab.buckets {
		for lane, i := range tab.buckets[n].idx {
			if tab.buckets[n].lane(lane) != 0 {
				where[i] = append(where[i], uint64(n))
			}
		}
	}
	partners := 0
	for k, h := range hashes[:10_000] {
		e := tab.At(tab.Find(h, &keys[k]))
		reply := tab.ReplyTuple(e.Client, e.Ports, proto(e), be)
		if reply != tab.replyHash(e, be) {
			t.Fatalf("flow %d: its reply's hash is not that of its link", k)
		}
		b := tab.buckets[tab.home(reply)]
		want := b.fp[0]
		if freeLane(&b) < 0 {
			want += tab.buckets[tab.other(tab.home(reply), fingerprint(reply))].fp[0]
		}
		if got := tab.TouchReplies([]uint64{reply}); got != want {
			t.Fatalf("flow %d: reply's bucket: %#x, want %#x", k, got, want)
		}

		n := tab.home(h)
		cheap := tab.buckets[n].cheap()
		if cheap == 0 {
			continue
		}
		victim := tab.buckets[n].idx[tab.turn(cheap)]
		at := where[victim]
		if len(at) != 2 || at[0] != n && at[1] != n || at[0] == at[1] {
			continue // in another bucket than its own: a look at its own is no help, and does no harm
		}
		other := at[0] + at[1] - n
		v := tab.At(victim)
		if tab.home(tab.replyHash(v, be)) != other && tab.home(tab.hasher.Tuple(v.Client, tab.snap.Service(v.Service).At(v.VIP()), v.Ports, proto(v))) != other {
			continue // the same
		}
		partners++
		if got := tab.touchPartners([]uint64{h}, []uint32{0}); got != tab.buckets[other].fp[0] {
			t.Fatalf("flow %d: the bucket of its victim's other link: %#x, want %#x", k, got, tab.buckets[other].fp[0])
		}
		if got := tab.touchPartners([]uint64{h}, []uint32{1}); got != 0 {
			t.Fatal("what is known evicts nothing")
		}
	}
	if partners < 1000 {
		t.Errorf("%d victims had another bucket", partners)
	}
}
