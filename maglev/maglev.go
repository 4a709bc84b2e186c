// Package maglev builds the lookup tables of Maglev hashing (Eisenbud et al., "Maglev: A Fast and
// Reliable Software Network Load Balancer", NSDI 2016, section 3.4) out of named, weighted backends.
//
// It wraps github.com/dgryski/go-maglev, which fills the tables. That package never returns
// from a table of composite size or without live names, and knows no weights; this one checks
// its input first, and gives weights by turns.
//
// # Weights
//
// In Maglev's population, backends take turns at claiming their next preferred slot. A backend of
// weight w takes w turns in a round, all out of its one preference list, by being listed w
// times under its one name. So its preferences depend on its name alone, never on a
// weight, its own or another's. Weights are divided by their greatest common divisor first, and
// a changed divisor (ten backends of weight 100, one of which goes to 99) changes only how the turns
// interleave: 0.2 % of the slots move there, where 0.1 % have to. Suffixed virtual names ("web1#2")
// were measured too: the same change moves 89 % of the slots, for every backend gains or
// loses 99 preference lists at once.
//
// Turn k (from 0) of a backend with w turns has its place at (k+½)/w of the round, so that a round
// cut short by the end of the table is still proportional; at equal weights slots differ by at most one.
//
// # Bounds
//
// Repeated names walk the same preference list again, so building costs about the heaviest backend's
// turns times one unweighted build. Turns are therefore bounded (see [MaxTurns]): where the reduced
// weights exceed the bound, they are scaled to it in proportion, and a weight above 0 keeps at least one turn.
package maglev

import (
	"fmt"
	"sort"

	dgryski "github.com/dgryski/go-maglev"
)

// Limits of a table.
const (
	MaxMembers = 1<<16 - 1 // backends with a weight above 0: a slot is a uint16
	MaxWeight  = 1<<16 - 1
	MaxSize    = 1 << 24 // slots

	// MinSlotsPerMember is what New insists on, RecommendedSlotsPerMember what
	// the paper's section 5.3 takes for an imbalance of at most 1 %.
	MinSlotsPerMember         = 4
	RecommendedSlotsPerMember = 100
)

// A Backend is one member of a table. Its Name alone decides which slots it prefers, so the
// name must be the same on every director of a fleet.
type Backend struct {
	Name   string
	Weight int // 0: no slots
}

// A Table maps hashes to backend names. It is immutable, so any number of goroutines may use it.
type Table struct {
	size  uint64
	names []string
	slots []uint16
}

// New builds a table of size slots, a prime, from backends in any order: the same set
// of backends gives the same table on every machine. Without a backend whose weight is
// above 0 the table is valid and empty. The errors are written for whoever wrote the configuration.
func New(backends []Backend, size uint64) (*Table, error) {
	members, err := check(backends, size)
	if err != nil {
		return nil, err
	}
	t := &Table{size: size, names: make([]string, len(members))}
	for i, m := range members {
		t.names[i] = m.Name
	}
	if len(members) == 0 {
		return t, nil
	}
	owners := order(turns(members, size))
	listed := make([]string, len(owners))
	for i, owner := range owners {
		listed[i] = t.names[owner]
	}
	built := dgryski.New(listed, size)
	t.slots = make([]uint16, size)
	for i := range t.slots {
		t.slots[i] = owners[built.Lookup(uint64(i))]
	}
	return t, nil
}

// check returns the backends with a weight above 0, sorted by name.
func check(backends []Backend, size uint64) ([]Backend, error) {
	seen := make(map[string]bool, len(backends))
	members := make([]Backend, 0, len(backends))
	for i, b := range backends {
		switch {
		case b.Name == "":
			return nil, fmt.Errorf("backend %d has no name; give it one, for its place in the table follows from it", i+1)
		case seen[b.Name]:
			return nil, fmt.Errorf("two backends are called %q; names must differ within a service", b.Name)
		case b.Weight < 0 || b.Weight > MaxWeight:
			return nil, fmt.Errorf("backend %s has weight %d; use 0 (no new flows) to %d", b.Name, b.Weight, MaxWeight)
		}
		seen[b.Name] = true
		if b.Weight > 0 {
			members = append(members, b)
		}
	}
	if err := CheckSize(size, len(members)); err != nil {
		return nil, err
	}
	sort.Slice(members, func(i, j int) bool { return members[i].Name < members[j].Name })
	return members, nil
}

// CheckSize says whether a table of size slots can serve members backends with a
// weight above 0, and what to do if not.
func CheckSize(size uint64, members int) error {
	switch {
	case members > MaxMembers:
		return fmt.Errorf("%d backends with a weight above 0 are too many for one table; use at most %d", members, MaxMembers)
	case size > MaxSize:
		return fmt.Errorf("a table of %d slots is too large; use a prime of at most %d", size, PrevPrime(MaxSize))
	case !IsPrime(size):
		return fmt.Errorf("table size %d is not a prime, which Maglev hashing needs; use %s", size, nearby(size))
	case size < uint64(members)*MinSlotsPerMember:
		recommended := NextPrime(min(uint64(members)*RecommendedSlotsPerMember, PrevPrime(MaxSize)))
		return fmt.Errorf("a table of %d slots is too small for %s; use %d or another prime of about %d slots per backend (%d is the least)",
			size, plural(members), recommended, RecommendedSlotsPerMember, NextPrime(uint64(members)*MinSlotsPerMember))
	}
	return nil
}

func plural(backends int) string {
	if backends == 1 {
		return "1 backend"
	}
	return fmt.Sprintf("%d backends", backends)
}

// Names returns the backends that have slots, sorted. The caller must not change it.
func (t *Table) Names() []string { return t.names }

// Slots returns the table itself: each of its Size elements is an index into Names. It is
// empty when there are no Names. The caller must not change it.
func (t *Table) Slots() []uint16 { return t.slots }

// Size returns the number of slots asked for, also of an empty table.
func (t *Table) Size() uint64 { return t.size }

// Lookup returns the index into Names of the backend for hash, or -1 when the table is empty.
func (t *Table) Lookup(hash uint64) int {
	if len(t.slots) == 0 {
		return -1
	}
	return int(t.slots[Slot(hash, len(t.slots))])
}

// Counts returns how many slots each of Names has.
func (t *Table) Counts() []int {
	counts := make([]int, len(t.names))
	for _, s := range t.slots {
		counts[s]++
	}
	return counts
}

// Slot maps a hash to one of size slots: the upper 32 bits of hash, taken as a fraction of 2³²,
// times size (Lemire's multiply-high, where a division by a run-time prime would cost ten times as much).
// size must be below 2³². The data plane and Lookup both use it, so that they agree.
func Slot(hash uint64, size int) int { return int((hash >> 32) * uint64(size) >> 32) }

// Moved returns how many slots lead to another name in next than in old. All count
// when old is nil or empty or the sizes differ; when next is empty, all of old's count.
func Moved(old, next *Table) (slots int) {
	if next == nil || len(next.slots) == 0 {
		if old == nil {
			return 0
		}
		return len(old.slots)
	}
	if old == nil || len(old.slots) != len(next.slots) {
		return len(next.slots)
	}
	same := translate(old.names, next.names)
	for i, s := range next.slots {
		if same[old.slots[i]] != int(s) {
			slots++
		}
	}
	return slots
}

// translate returns for each of the sorted names from its index in the sorted names to, or -1.
func translate(from, to []string) []int {
	index := make([]int, len(from))
	for i, name := range from {
		index[i] = -1
		if j := sort.SearchStrings(to, name); j < len(to) && to[j] == name {
			index[i] = j
		}
	}
	return index
}
