package control

import (
	"fmt"
	"time"

	"xlvs/dataplane/table"
)

// slots gives tenants stable slots of an array that flows refer to. A slot that became free is not
// given away before rest has passed, and then with another generation, so that a flow which still
// names the former tenant cannot be taken for the new one's.
type slots struct {
	rest   time.Duration
	limit  int
	byKey  map[string]table.Ref
	gens   []uint8
	vacant []vacancy // oldest first
}

type vacancy struct {
	slot int
	at   time.Time
}

func newSlots(limit int, rest time.Duration) *slots {
	return &slots{rest: rest, limit: limit, byKey: map[string]table.Ref{}}
}

// assign makes keys the tenants: those that stay keep their slots, those that are missing move
// out, new ones move in. It refuses, changing nothing, when there are not enough slots.
func (s *slots) assign(keys []string, now time.Time) error {
	want := make(map[string]bool, len(keys))
	fresh := 0
	for _, k := range keys {
		if want[k] {
			continue
		}
		want[k] = true
		if _, ok := s.byKey[k]; !ok {
			fresh++
		}
	}
	ripe := 0
	for ripe < len(s.vacant) && now.Sub(s.vacant[ripe].at) >= s.rest {
		ripe++
	}
	if fresh > ripe+s.limit-len(s.gens) {
		return fmt.Errorf("%d new entries, but %d of %d slots are free; slots that were given up are free again %v later",
			fresh, ripe+s.limit-len(s.gens), s.limit, s.rest)
	}
	for k, r := range s.byKey {
		if !want[k] {
			delete(s.byKey, k)
			s.vacant = append(s.vacant, vacancy{r.Slot(), now})
		}
	}
	for _, k := range keys {
		if _, ok := s.byKey[k]; ok {
			continue
		}
		if ripe > 0 {
			slot := s.vacant[0].slot
			s.vacant, ripe = s.vacant[1:], ripe-1
			s.gens[slot]++
			s.byKey[k] = table.MakeRef(slot, s.gens[slot])
			continue
		}
		s.gens = append(s.gens, 0)
		s.byKey[k] = table.MakeRef(len(s.gens)-1, 0)
	}
	return nil
}

// ref returns the slot of a tenant.
func (s *slots) ref(key string) table.Ref { return s.byKey[key] }

// size is the length of an array that has all slots given so far.
func (s *slots) size() int { return len(s.gens) }
