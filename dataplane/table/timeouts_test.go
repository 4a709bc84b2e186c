package table

import "testing"

func TestTimeoutsOf(t *testing.T) {
	own := func(udp uint32) *Timeouts { return &Timeouts{11: udp} }
	s := &Snapshot{Timeouts: Timeouts{1: 900, 11: 300}, Services: make([]Service, 6)}
	for i, v := range []Service{{}, {Timeouts: own(5)}, {Persist: 77}, {Timeouts: own(5)}, {Timeouts: own(6), Persist: 77}, {Timeouts: own(8)}} {
		v.Ref, v.Live, v.Port, v.Addr = MakeRef(i, 3), i != 5, uint16(i+1), addr(false, 1)
		s.Services[i] = v
	}
	snap, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		what               string
		slot               int
		first, udp, client uint32
	}{
		{"without its own", 0, 900, 300, 0},
		{"with its own", 1, 0, 5, 0},
		{"that remembers clients", 2, 900, 300, 77},
		{"with the same ones", 3, 0, 5, 0},
		{"with its own that remembers clients", 4, 0, 6, 77},
		{"that was removed", 5, 0, 8, 0},
		{"in no slot", 6, 900, 300, 0},
		{"far beyond", 1<<24 - 1, 900, 300, 0},
	} {
		if got, want := *snap.TimeoutsOf(MakeRef(tc.slot, 3)), (Timeouts{1: tc.first, 11: tc.udp, TemplateTimeout: tc.client}); got != want {
			t.Errorf("a service %s: %v, want %v", tc.what, got, want)
		}
	}
	if n := len(snap.timeouts.sets); n != 5 {
		t.Errorf("%d sets of timeouts for five different ones", n)
	}
}

// Where no service has its own, one index serves all.
func TestTimeoutsOfAll(t *testing.T) {
	s := one()
	s.Timeouts[3] = 8
	snap, err := New(s)
	if err != nil {
		t.Fatal(err)
	}
	if got := snap.TimeoutsOf(MakeRef(2, 1)); len(snap.timeouts.of) != 1 || got[3] != 8 {
		t.Errorf("%d indices, %v", len(snap.timeouts.of), got)
	}
}
