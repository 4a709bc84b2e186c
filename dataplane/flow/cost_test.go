package flow

import (
	"fmt"
	"testing"

	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// filled returns a table with n flows out of twice as many entries, and their keys and hashes.
func filled(t testing.TB, n int, nat bool) (*Table, []Key, []uint64, *table.Backend) {
	t.Helper()
	tab := newTable(t, max(2*n, MinEntries))
	snap := testSnapshot(t, ones(4), ones(12))
	tab.Use(snap)
	svc := 0
	if nat {
		svc = 1
	}
	h := packet.NewHasher("test")
	v, be := &snap.Services[svc], &snap.Backends[svc*perService]
	keys, hashes := make([]Key, n), make([]uint64, n)
	for i := range keys {
		keys[i] = Key{Client: testAddr(false, 3+i>>16, i&0xffff), Service: v.Ref, Ports: packet.MakePorts(uint16(i), 80)}
		hashes[i] = h.Tuple(keys[i].Client, v.Addr, keys[i].Ports, v.Proto)
		insert(tab, keys, hashes, i, be, nat)
	}
	tab.Ended()
	return tab, keys, hashes, be
}

func insert(tab *Table, keys []Key, hashes []uint64, i int, be *table.Backend, nat bool) {
	e := tab.Insert(hashes[i], &keys[i], be.Ref, StateEstablished, 0, uint32(i))
	if nat {
		tab.LinkReply(e, be, uint32(i))
	}
}

func TestNoAllocations(t *testing.T) {
	for _, nat := range []bool{false, true} {
		tab, keys, hashes, be := filled(t, 4096, nat)
		i, now := 0, uint32(10_000)
		for name, f := range map[string]func(){
			"find":   func() { tab.Find(hashes[i], &keys[i]) },
			"delete": func() { tab.Delete(tab.Find(hashes[i], &keys[i])) },
			"insert": func() { insert(tab, keys, hashes, i, be, nat) },
			"sweep":  func() { now += 100_000; tab.Sweep(now) },
		} {
			if n := testing.AllocsPerRun(2000, func() { f(); i = (i + 1) % len(keys); tab.Ended() }); n != 0 {
				t.Errorf("%s allocates %v times (NAT: %v)", name, n, nat)
			}
		}
	}
}

func sizes(b *testing.B, f func(b *testing.B, n int)) {
	for _, n := range []int{1 << 10, 1 << 16, 1 << 20} {
		b.Run(fmt.Sprintf("flows=%d", n), func(b *testing.B) { f(b, n) })
	}
}

var sink uint32

// One look-up after the other, in an order that no prefetcher guesses.
func BenchmarkFind(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		tab, keys, hashes, _ := filled(b, n, false)
		b.ResetTimer()
		for i := range b.N {
			k := i * 0x9e3779b1 & (n - 1)
			sink += tab.Find(hashes[k], &keys[k])
		}
	})
}

// As the pipeline does it: a burst touches its buckets, then its entries, and only then compares.
func BenchmarkFindBurst(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		tab, keys, hashes, _ := filled(b, n, false)
		var cand [64]uint32
		var hash [64]uint64
		b.ResetTimer()
		for i := 0; i < b.N; i += len(cand) {
			for j := range hash {
				hash[j] = hashes[(i+j)*0x9e3779b1&(n-1)]
			}
			_, s := tab.Candidates(hash[:], cand[:])
			for j, c := range cand {
				if k := (i + j) * 0x9e3779b1 & (n - 1); tab.Holds(c, &keys[k]) {
					sink++
				}
			}
			sink += uint32(s)
		}
	})
}

// One flow ends and opens again with each operation.
func BenchmarkInsertDelete(b *testing.B) {
	for _, nat := range []bool{false, true} {
		b.Run(fmt.Sprintf("nat=%v", nat), func(b *testing.B) {
			sizes(b, func(b *testing.B, n int) {
				tab, keys, hashes, be := filled(b, n, nat)
				b.ResetTimer()
				for i := range b.N {
					k := i * 0x9e3779b1 & (n - 1)
					if e := tab.Find(hashes[k], &keys[k]); e != 0 {
						tab.Delete(e)
					}
					insert(tab, keys, hashes, k, be, nat)
					tab.Ended()
				}
			})
		})
	}
}

// A quiet table costs little to sweep.
func BenchmarkSweep(b *testing.B) {
	sizes(b, func(b *testing.B, n int) {
		tab, _, _, _ := filled(b, n, false)
		now := uint32(n)
		b.ResetTimer()
		for range b.N {
			now++
			tab.Sweep(now & 0xffff)
		}
	})
}
