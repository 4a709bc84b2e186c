package control

import (
	"fmt"
	"slices"
	"time"

	"xlvs/dataplane/table"
)

// slots gives tenants stable slots of an array that flows refer to. A slot that became free is not
// given away before rest has passed, and then with another generation, so that a flow which still
// names the former tenant cannot be taken for the new one's.
//
// A change of tenants is two steps, so that one which fails in between loses nobody's slot: admit lets the new
// ones in beside the old ones, and keep then moves out whoever is not to stay.
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

// admit gives a slot to each key that has none. It refuses, changing nothing, when there are not enough.
func (s *slots) admit(keys []string, now time.Time) error {
	fresh := map[string]bool{}
	for _, k := range keys {
		if _, ok := s.byKey[k]; !ok {
			fresh[k] = true
		}
	}
	ripe := 0
	for ripe < len(s.vacant) && now.Sub(s.vacant[ripe].at) >= s.rest {
		ripe++
	}
	if free := ripe + s.limit - len(s.gens); len(fresh) > free {
		return fmt.Errorf("%d new ones, but %d of %d slots are free; slots that were given up are free again %v later",
			len(fresh), free, s.limit, s.rest)
	}
	for _, k := range keys { // in their order, so that the result does not depend on a map's
		if !fresh[k] {
			continue
		}
		delete(fresh, k)
		slot := len(s.gens)
		if ripe > 0 {
			slot = s.vacant[0].slot
			s.vacant, ripe = s.vacant[1:], ripe-1
			s.gens[slot]++
		} else {
			s.gens = append(s.gens, 0)
		}
		s.byKey[k] = table.MakeRef(slot, s.gens[slot])
	}
	return nil
}

// keep moves all tenants out but those named.
func (s *slots) keep(keys []string, now time.Time) {
	stay := make(map[string]bool, len(keys))
	for _, k := range keys {
		stay[k] = true
	}
	var left []int
	for k, r := range s.byKey {
		if !stay[k] {
			delete(s.byKey, k)
			left = append(left, r.Slot())
		}
	}
	slices.Sort(left)
	for _, slot := range left {
		s.vacant = append(s.vacant, vacancy{slot, now})
	}
}

// ref returns the slot of a tenant.
func (s *slots) ref(key string) table.Ref { return s.byKey[key] }

// size is the length of an array that has all slots given so far.
func (s *slots) size() int { return len(s.gens) }
