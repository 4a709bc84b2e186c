package flow

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"xlvs/dataplane/packet"
)

// victims are the flows of which bucket n must give up one: any of those that a flood can make; else of the
// expired ones, else of all, the one not seen for longest. None if the bucket is empty.
func victims(t *Table, n uint64, now uint32) []uint32 {
	var cheap []uint32
	best, class, age := uint32(0), -1, uint32(0)
	b := &t.buckets[n]
	for lane, i := range b.idx {
		if b.lane(lane) == 0 {
			continue
		}
		e := &t.entries[i]
		if e.State().HalfOpen() || e.State() == StateUDP && e.Packets <= 1 || e.State() == StateTemplate {
			cheap = append(cheap, i)
		}
		c := 0
		if t.Expired(e, now) {
			c = 1
		}
		if a := now - e.LastSeen; c > class || c == class && a > age {
			best, class, age = i, c, a
		}
	}
	if len(cheap) > 0 {
		return cheap
	}
	if best == 0 {
		return nil
	}
	return []uint32{best}
}

// nearVictims are those of the first of 16 buckets from n on that has a flow which a flood can make; else of n.
func nearVictims(t *Table, n uint64, now uint32) []uint32 {
	for step := range uint64(16) {
		v := victims(t, (n+step)&uint64(len(t.buckets)-1), now)
		if len(v) > 0 && t.entries[v[0]].cheap() {
			return v
		}
	}
	return victims(t, n, now)
}

func (e *Entry) key() *Key { return &Key{e.Client, e.Service, e.Ports, e.VIP()} }

// A full table gives up the right flow: one that a flood can make before an expired one before the least recently used of the bucket.
func TestEvictionOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := packet.NewHasher("evict")
		tab, err := New(MinEntries, h)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := tab.Close(); err != nil {
				t.Fatal(err)
			}
		}()
		m := &model{T: t, table: tab, hasher: h, services: ones(4), backends: ones(12), live: map[Key]*modelFlow{}, now: 2_000_000}
		m.use()
		for c := range tab.Cap() {
			m.now = 2_000_000 - rapid.Uint32Range(0, 1_000_000).Draw(t, "age")
			m.insert(0, c, 0, rapid.SampledFrom(tcpStates).Draw(t, "state"))
		}
		m.now = 2_000_000
		for range 50 {
			c := rapid.IntRange(3000, 9000).Draw(t, "client")
			k, hash := m.key(0, c)
			if m.live[k] != nil {
				continue
			}
			n := tab.home(hash)
			full := tab.Len() == tab.Cap()
			var want []Entry
			for _, i := range nearVictims(tab, n, m.now) {
				want = append(want, *tab.At(i))
			}
			if !full || len(want) == 0 {
				continue
			}
			if tab.Insert(hash, &k, m.snap.Backends[0].Ref, StateSynRecv, 0, m.now) == 0 {
				t.Fatal("no room")
			}
			ended := tab.Ended()
			if len(ended) != 1 || !slices.ContainsFunc(want, func(e Entry) bool { return ended[0].sameKey(e.key()) }) {
				t.Fatalf("%d flows were evicted, %+v instead of one of %+v", len(ended), ended, want)
			}
			delete(m.live, *ended[0].key())
			m.live[k] = &modelFlow{hash: hash, be: m.snap.Backends[0].Ref, state: StateSynRecv, seen: m.now}
		}
		m.check()
	})
}

// Flows that crowd into few buckets find room elsewhere, and evict no one, long before the table is full; a full
// one evicts. NAT's reply never evicts its own flow.
func TestCrowdedBuckets(t *testing.T) {
	tab := newTable(t, 4096)
	snap := testSnapshot(t, ones(4), ones(12))
	tab.Use(snap)
	h := packet.NewHasher("test")
	var evicted, open int
	for c := 0; open < 5000; c++ {
		k := Key{Client: testAddr(false, 3+c>>16, c&0xffff), Service: snap.Services[1].Ref, Ports: packet.MakePorts(uint16(c), 80)}
		hash := h.Tuple(k.Client, snap.Services[1].Addr, k.Ports, packet.ProtoTCP)
		if tab.home(hash) > 255 { // a quarter of the buckets
			continue
		}
		be := &snap.Backends[perService]
		i := tab.Insert(hash, &k, be.Ref, StateEstablished, 0, uint32(1000+c))
		if i == 0 {
			t.Fatal("no room")
		}
		tab.LinkReply(i, be, uint32(1000+c))
		if tab.Find(hash, &k) != i {
			t.Fatalf("flow %d evicted itself", open)
		}
		open++
		evicted += len(tab.Ended())
		// The replies spread over all buckets: ten lanes in each are room for far more.
		if open == 2000 && evicted > 0 {
			t.Errorf("%d of 2000 flows were evicted from a table for %d", evicted, tab.Cap())
		}
	}
	if evicted == 0 || tab.Len() != open-evicted {
		t.Errorf("%d of %d evicted, %d left", evicted, open, tab.Len())
	}
}

// However many flows of services that are gone fill the table, a new flow's search for room stays within what
// Ended can hold, and no flow's end is lost.
func TestFullOfStrangers(t *testing.T) {
	tab := newTable(t, MinEntries)
	h := packet.NewHasher("test")
	snap := testSnapshot(t, ones(4), ones(12))
	tab.Use(snap)
	insert := func(svc, c int, now uint32) {
		v, be := &snap.Services[svc], &snap.Backends[svc*perService]
		k := Key{Client: testAddr(false, 3, c), Service: v.Ref, Ports: packet.MakePorts(uint16(c), 80)}
		if i := tab.Insert(h.Tuple(k.Client, v.Addr, k.Ports, v.Proto), &k, be.Ref, StateEstablished, 0, now); i != 0 {
			if svc == 1 {
				tab.LinkReply(i, be, now)
			}
		}
	}
	opened, ended := 0, 0
	for c := range 2000 {
		insert(1, c, 1000)
		opened++
		ended += len(tab.Ended())
	}
	former := snap
	snap = testSnapshot(t, []uint8{1, 0, 1, 1}, ones(12))
	snap.Services[1] = former.Services[1]
	snap.Services[1].Live = false
	copy(snap.Backends[perService:2*perService], former.Backends[perService:])
	tab.Use(snap)
	before := tab.Len()
	if opened-ended != before {
		t.Fatalf("%d flows opened, %d ended, %d in the table", opened, ended, before)
	}
	for c := range 64 { // one burst
		insert(0, c, 2000)
	}
	young := 0 // evicted from buckets where no stranger was left
	for _, e := range tab.Ended() {
		if e.Service != table1 {
			young++
		}
		ended++
	}
	if young > 6 {
		t.Errorf("%d of 64 new flows were evicted, though older ones were there", young)
	}
	if cap(tab.ended) != maxEnded {
		t.Errorf("the list of ended flows grew to %d", cap(tab.ended))
	}
	for range 3 {
		for !tab.SweepAll(2_000_000) {
			ended += len(tab.Ended())
		}
		ended += len(tab.Ended())
	}
	if tab.Len() != 0 || ended < opened+1 {
		t.Errorf("%d flows left; %d opened, %d ended", tab.Len(), opened, ended)
	}
}

const table1 = 1<<24 | 1 // Ref of service 1
