package maglev

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// genBackends draws up to 40 backends with distinct names.
func genBackends(t *rapid.T) []Backend {
	return rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Backend {
		return Backend{
			Name:   rapid.StringMatching(`[a-z][a-z0-9-]{0,7}`).Draw(t, "name"),
			Weight: rapid.OneOf(rapid.IntRange(0, 3), rapid.IntRange(0, MaxWeight)).Draw(t, "weight"),
		}
	}), 0, 40, func(b Backend) string { return b.Name }).Draw(t, "backends")
}

func genSize(t *rapid.T) uint64 {
	return NextPrime(rapid.Uint64Range(40*MinSlotsPerMember, 2000).Draw(t, "size"))
}

func TestEveryTableIsComplete(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		backends, size := genBackends(t), genSize(t)
		table, err := New(backends, size)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, b := range backends {
			if b.Weight > 0 {
				want = append(want, b.Name)
			}
		}
		slices.Sort(want)
		if !slices.Equal(want, table.Names()) {
			t.Fatalf("names %v, want %v", table.Names(), want)
		}
		if len(want) > 0 && uint64(len(table.Slots())) != size {
			t.Fatalf("%d slots of %d", len(table.Slots()), size)
		}
		for i, n := range table.Counts() {
			if n == 0 {
				t.Fatalf("%s has a weight above 0 and no slot", want[i])
			}
		}
	})
}

func TestOrderOfBackendsDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		backends, size := genBackends(t), genSize(t)
		a, err := New(backends, size)
		if err != nil {
			t.Fatal(err)
		}
		b, err := New(rapid.Permutation(backends).Draw(t, "shuffled"), size)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(a.Slots(), b.Slots()) || Moved(a, b) != 0 {
			t.Fatal("the table depends on the order of the backends")
		}
	})
}

func TestACommonFactorDoesNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		backends, size := genBackends(t), genSize(t)
		factor := rapid.IntRange(1, 100).Draw(t, "factor")
		multiplied := slices.Clone(backends)
		for i := range backends {
			backends[i].Weight %= MaxWeight / 100
			multiplied[i].Weight = backends[i].Weight * factor
		}
		a, err := New(backends, size)
		if err != nil {
			t.Fatal(err)
		}
		b, err := New(multiplied, size)
		if err != nil {
			t.Fatal(err)
		}
		if Moved(a, b) != 0 {
			t.Fatalf("%d slots moved when all weights were multiplied by %d", Moved(a, b), factor)
		}
	})
}

func TestTurnsStayBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		backends, size := genBackends(t), genSize(t)
		members, err := check(backends, size)
		if err != nil {
			t.Fatal(err)
		}
		if len(members) == 0 {
			return
		}
		total := 0
		list := turns(members, size)
		for i, n := range list {
			if n < 1 || n > MaxTurns(size) {
				t.Fatalf("%d turns for weight %d", n, members[i].Weight)
			}
			for j := range list[:i] {
				if members[j].Weight >= members[i].Weight && list[j] < n {
					t.Fatalf("weight %d has %d turns, weight %d has %d", members[i].Weight, n, members[j].Weight, list[j])
				}
			}
			total += n
		}
		if uint64(total) > size/2 {
			t.Fatalf("%d turns in a table of %d slots", total, size)
		}
	})
}

func TestLookupStaysInside(t *testing.T) {
	table := build(t, equal(7, 1), 101)
	rapid.Check(t, func(t *rapid.T) {
		hash := rapid.Uint64().Draw(t, "hash")
		if i := table.Lookup(hash); i != int(table.Slots()[Slot(hash, 101)]) || i < 0 || i > 6 {
			t.Fatalf("Lookup(%#x) = %d", hash, i)
		}
	})
}

func TestPrimes(t *testing.T) {
	composite := make([]bool, 3000)
	for n := uint64(2); n < 3000; n++ {
		for k := 2 * n; k < 3000; k += n {
			composite[k] = true
		}
		if IsPrime(n) == composite[n] {
			t.Errorf("IsPrime(%d) = %t", n, IsPrime(n))
		}
	}
	if IsPrime(0) || IsPrime(1) || PrevPrime(1) != 0 || NextPrime(65536) != 65537 || PrevPrime(65536) != 65521 {
		t.Error("primes at the edges are wrong")
	}
}

// judgeTable checks that slots name live backends and no others, each at least once, and that the order of the
// configuration does not matter.
func judgeTable(t *testing.T, backends []Backend, table *Table) {
	t.Helper()
	weights := map[string]int{}
	for _, b := range backends {
		if b.Weight > 0 {
			weights[b.Name] = b.Weight
		}
	}
	names, counts := table.Names(), table.Counts()
	if len(names) != len(weights) {
		t.Fatalf("%d names of %d live backends", len(names), len(weights))
	}
	for i, n := range names {
		if weights[n] == 0 || counts[i] == 0 {
			t.Fatalf("%q with weight %d has %d slots", n, weights[n], counts[i])
		}
	}
	turned := slices.Clone(backends)
	slices.Reverse(turned)
	again, err := New(turned, uint64(len(table.Slots())))
	if len(names) > 0 && (err != nil || !slices.Equal(again.Names(), names) || !slices.Equal(again.Slots(), table.Slots())) {
		t.Fatalf("the same backends in another order: %v, %v", again, err)
	}
}

// FuzzNew feeds names and weights of any kind: New must return, with a whole table or an error.
func FuzzNew(f *testing.F) {
	f.Add([]byte("web1\x01web2\x02"), uint16(101))
	f.Add([]byte{0, 0, 0}, uint16(4))
	f.Fuzz(func(t *testing.T, data []byte, size uint16) {
		var backends []Backend
		for len(data) >= 3 {
			n := min(int(data[0]%8), len(data)-3)
			backends = append(backends, Backend{string(data[3 : 3+n]), int(data[1])<<8 + int(data[2]) - 1})
			data = data[3+n:]
		}
		table, err := New(backends, uint64(size))
		if err != nil {
			return
		}
		if len(table.Names()) > 0 && len(table.Slots()) != int(size) {
			t.Fatalf("%d slots of %d", len(table.Slots()), size)
		}
		if Moved(table, table) != 0 {
			t.Fatal("a table differs from itself")
		}
		judgeTable(t, backends, table)
	})
}
