package flow

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// In flow number n of this test everything follows from n, so that a reader recognizes a mixture of two.
type numbered struct {
	snap   *table.Snapshot
	hasher packet.Hasher
}

func (x numbered) key(n int) Key {
	return Key{Client: testAddr(false, 3, n), Service: x.snap.Services[1].Ref, Ports: packet.MakePorts(uint16(n), 80)}
}

func (x numbered) backend(n int) *table.Backend { return &x.snap.Backends[perService+n%perService] }

func (x numbered) hash(k Key) uint64 {
	return x.hasher.Tuple(k.Client, x.snap.Services[1].Addr, k.Ports, packet.ProtoTCP)
}

func (x numbered) reply(n int) packet.Packet {
	be := x.backend(n)
	return packet.Packet{Src: be.Addr, Dst: testAddr(false, 3, n), Ports: packet.MakePorts(be.Port, uint16(n)), Proto: packet.ProtoTCP}
}

// problem says what is wrong with an entry that a reader saw.
func (x numbered) problem(e *Entry) error {
	n := int(e.Ports.Src())
	mac := [6]byte{2, 0, 0, 0, byte(n >> 8), byte(n)}
	switch {
	case e.Client != testAddr(false, 3, n), e.Service != x.snap.Services[1].Ref, e.Ports.Dst() != 80, e.Backend != x.backend(n).Ref,
		e.State() != StateEstablished:
		return fmt.Errorf("a mixture: %+v", *e)
	case e.MAC() != mac && e.MAC() != [6]byte{}:
		return fmt.Errorf("flow %d with MAC %v", n, e.MAC())
	case e.MAC() == mac && e.In() != uint8(n)&7:
		return fmt.Errorf("flow %d with port %d", n, e.In())
	case e.LastSeen < 1_000_000 || e.Created != 1_000_000+uint32(n):
		return fmt.Errorf("flow %d created %d, seen %d", n, e.Created, e.LastSeen)
	}
	return nil
}

// Readers on other cores see each flow whole or not at all, while the owner opens, changes and ends flows.
func TestReadersNeverSeeAMixture(t *testing.T) {
	tab := newTable(t, MinEntries)
	x := numbered{testSnapshot(t, ones(4), ones(12)), packet.NewHasher("test")}
	tab.Use(x.snap)
	var stop atomic.Bool
	var wg sync.WaitGroup
	var seen, answered atomic.Int64
	for range 2 {
		wg.Go(func() {
			var e Entry
			for !stop.Load() {
				if tab.Peek(rand.Uint32N(uint32(tab.Cap()+2)), &e) {
					seen.Add(1)
					if err := x.problem(&e); err != nil {
						t.Error("Peek: ", err)
						return
					}
				}
				n := rand.IntN(2000)
				p := x.reply(n)
				if tab.PeekReply(x.hasher.Flow(&p), &p, x.snap, &e) != 0 {
					answered.Add(1)
					if err := x.problem(&e); err != nil || int(e.Ports.Src()) != n {
						t.Errorf("PeekReply(%d): %+v, %v", n, e, err)
						return
					}
				}
			}
		})
	}
	for round := 0; round < 400_000 || seen.Load() == 0 || answered.Load() == 0; round++ {
		n := rand.IntN(2000)
		k := x.key(n)
		h := x.hash(k)
		switch i := tab.Find(h, &k); {
		case i == 0:
			if i = tab.Insert(h, &k, x.backend(n).Ref, StateEstablished, uint8(n)&7, 1_000_000+uint32(n)); i != 0 {
				tab.LinkReply(i, x.backend(n), 1_000_000)
				tab.At(i).SetHop(uint8(n)&7, []byte{6: 2, 10: byte(n >> 8), 11: byte(n), 13: 0})
			}
		case round%3 == 0:
			tab.Delete(i)
		default:
			tab.At(i).Count(1_000_000+uint32(round), 60)
		}
		tab.Ended()
		if round%1024 == 0 {
			runtime.Gosched()
		}
	}
	stop.Store(true)
	wg.Wait()
	if t.Failed() {
		return
	}
	t.Logf("%d entries and %d replies were read", seen.Load(), answered.Load())
}

func TestPeekOutside(t *testing.T) {
	tab := newTable(t, MinEntries)
	var e Entry
	for _, i := range []uint32{0, 1, uint32(tab.Cap()) + 1, 1 << 31} {
		if tab.Peek(i, &e) {
			t.Errorf("Peek(%d) found a flow in an empty table", i)
		}
	}
}

// A reader looks into a second bucket when the owner would, and not because the bits beside that count are set.
func TestReadersLookNoFurtherThanTheOwner(t *testing.T) {
	tab := newTable(t, MinEntries)
	x := numbered{testSnapshot(t, ones(4), ones(12)), packet.NewHasher("test")}
	tab.Use(x.snap)
	for n := range MinEntries {
		k := x.key(n)
		if i := tab.Insert(x.hash(k), &k, x.backend(n).Ref, StateSynRecv, 0, 1); i != 0 {
			tab.LinkReply(i, x.backend(n), 1)
		}
	}
	home, away := 0, 0
	for i := range tab.buckets {
		b := &tab.buckets[i]
		if b.peekAway() != b.away() {
			t.Errorf("bucket %d: a reader takes %d flows for away, the owner %d", i, b.peekAway(), b.away())
		}
		if b.away() > 0 {
			away++
		} else if b.cheap()&0xf != 0 {
			home++
		}
	}
	if home == 0 || away == 0 {
		t.Errorf("%d buckets with half-open flows at home, %d with flows away: nothing was shown", home, away)
	}
}
