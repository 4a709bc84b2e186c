package flow

import (
	"testing"

	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// Flows of one client's port to several NAT backends: each is found by its replies and by its backend, the client's packets
// find the first one alone, and each ends for itself.
func TestAside(t *testing.T) {
	const svc, clients = 2, 200
	h := packet.NewHasher("aside")
	tab, err := New(MinEntries, h)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tab.Close(); err != nil {
			t.Fatal(err)
		}
	}()
	snap := testSnapshot(t, ones(4), ones(12))
	snap.Services[svc].QUIC = &table.QUIC{Len: 1}
	tab.Use(snap)
	m := &model{table: tab, hasher: h, snap: snap}
	be := func(n int) *table.Backend { return &snap.Backends[svc*perService+n] }
	flows := map[int][perService]uint32{}
	for c := range clients {
		k, hash := m.key(svc, c)
		first := tab.Insert(hash, &k, be(0).Ref, StateUDP, 1, 5)
		tab.LinkReply(first, be(0), 5)
		flows[c] = [perService]uint32{first, tab.InsertAside(&k, be(1), 1, 5), tab.InsertAside(&k, be(2), 1, 5)}
	}
	expect := func(when string, live [perService]bool) {
		t.Helper()
		for c := range clients {
			k, hash := m.key(svc, c)
			if got := tab.Find(hash, &k); live[0] && got != flows[c][0] || !live[0] && got != 0 {
				t.Fatalf("%s: client %d finds flow %d, its flows are %v", when, c, got, flows[c])
			}
			for n := range perService {
				want := uint32(0)
				if live[n] {
					want = flows[c][n]
				}
				if got := tab.FindAside(&k, be(n)); got != want {
					t.Fatalf("%s: to backend %d client %d finds flow %d, want %d", when, n, c, got, want)
				}
				reply := packet.Packet{Src: be(n).Addr, Dst: k.Client, Ports: packet.MakePorts(be(n).Port, k.Ports.Src()), Proto: packet.ProtoUDP}
				if got := tab.FindReply(h.Flow(&reply), &reply); got != want {
					t.Fatalf("%s: the reply of backend %d to client %d finds flow %d, want %d", when, n, c, got, want)
				}
			}
		}
	}
	cheap := func() (n int) {
		for i := range tab.buckets {
			for l := range lanes {
				n += int(tab.buckets[i].cheap() >> l & 1)
			}
		}
		return n
	}
	expect("opened", [perService]bool{true, true, true})
	if n := cheap(); n != 4*clients {
		t.Errorf("%d links of flows heard of once, want %d", n, 4*clients)
	}
	for c := range clients {
		for _, i := range flows[c] {
			tab.At(i).Count(6, 100)
			tab.At(i).Count(6, 100)
			tab.Settle(i)
		}
	}
	if n := cheap(); n != 0 {
		t.Errorf("%d links are marked as a flood's after second packets", n)
	}
	for c := range clients {
		tab.Delete(flows[c][1])
	}
	expect("one aside has ended", [perService]bool{true, false, true})
	for c := range clients {
		tab.Delete(flows[c][0])
	}
	expect("the first has ended", [perService]bool{false, false, true})
	if n := tab.Len(); n != clients {
		t.Errorf("%d flows are left, want %d", n, clients)
	}
	tab.Ended()
	for !tab.SweepAll(10_000_000) {
		tab.Ended()
	}
	expect("all have expired", [perService]bool{})
	if n := tab.Len(); n != 0 {
		t.Errorf("%d flows are left after a sweep", n)
	}
	for n := range tab.buckets {
		if b := &tab.buckets[n]; !b.empty() || b.away() != 0 || b.guests() != 0 || b.cheap() != 0 {
			t.Fatalf("bucket %d of an empty table: % x", n, b.fp)
		}
	}
}
