package control

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"xlvs/dataplane/table"
)

// TestSlots holds slots against what flows rely on: a tenant never moves, no two share a slot, and a Ref that was given up
// names nobody until 256 tenants later, none of which came before the slot had rested.
func TestSlots(t *testing.T) {
	const limit, rest = 6, time.Minute
	rapid.Check(t, func(t *rapid.T) {
		s := newSlots(limit, rest)
		now := time.Unix(0, 0)
		owner := map[table.Ref]string{} // of all times
		left := map[int]time.Time{}     // slot: when it was given up
		present := map[string]table.Ref{}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
			want := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "key")) }), 0, 7).Draw(t, "keys")
			err := s.admit(want, now)
			union := map[string]bool{}
			for k := range present {
				union[k] = true
			}
			resting := 0
			for slot, at := range left {
				if _, taken := byslot(present)[slot]; !taken && now.Sub(at) < rest {
					resting++
				}
			}
			for _, k := range want {
				union[k] = true
			}
			if fits := len(union)+resting <= limit; fits != (err == nil) {
				t.Fatalf("%d tenants, %d slots resting of %d: %v", len(union), resting, limit, err)
			}
			if err != nil {
				if len(s.byKey) != len(present) {
					t.Fatal("a refusal changed something")
				}
				continue
			}
			for k := range union {
				r, ok := s.byKey[k]
				if !ok {
					t.Fatalf("%s has no slot", k)
				}
				if old, stayed := present[k]; stayed && old != r {
					t.Fatalf("%s moved from %#x to %#x", k, old, r)
				} else if !stayed {
					if was, used := owner[r]; used {
						t.Fatalf("%#x was %s's and is %s's", r, was, k)
					}
					if at, ok := left[r.Slot()]; ok && now.Sub(at) < rest {
						t.Fatalf("slot %d rested for %v only", r.Slot(), now.Sub(at))
					}
					owner[r] = k
				}
				if r.Slot() >= s.size() {
					t.Fatalf("slot %d of %d", r.Slot(), s.size())
				}
			}
			// The change is adopted or taken back.
			stay := want
			if rapid.Bool().Draw(t, "back") {
				stay = nil
				for k := range present {
					stay = append(stay, k)
				}
			}
			before := make(map[string]table.Ref, len(s.byKey))
			for k, r := range s.byKey {
				before[k] = r
			}
			s.keep(stay, now)
			present = map[string]table.Ref{}
			for _, k := range stay {
				present[k] = before[k]
			}
			if len(s.byKey) != len(present) || len(byslot(present)) != len(present) {
				t.Fatalf("tenants %v, want %v", s.byKey, present)
			}
			for k, r := range before {
				if _, stays := present[k]; !stays {
					left[r.Slot()] = now
				} else if s.ref(k) != r {
					t.Fatalf("%s moved by keep", k)
				}
			}
		}
	})
}

func byslot(m map[string]table.Ref) map[int]bool {
	out := map[int]bool{}
	for _, r := range m {
		out[r.Slot()] = true
	}
	return out
}

func TestSlotGenerationWraps(t *testing.T) {
	s := newSlots(1, time.Minute)
	now := time.Unix(0, 0)
	for i := range 300 {
		k := fmt.Sprint(i)
		must(t, s.admit([]string{k}, now))
		if r := s.ref(k); r != table.MakeRef(0, uint8(i)) {
			t.Fatalf("tenant %d: %#x", i, r)
		}
		s.keep(nil, now)
		if err := s.admit([]string{"early"}, now.Add(time.Minute-1)); err == nil {
			t.Fatal("the slot had no rest")
		}
		now = now.Add(time.Minute)
	}
}
