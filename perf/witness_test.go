package perf

import (
	"testing"
	"time"

	"xlvs/dataplane/table"
)

// TestWitness: it tells what is wrong from what cannot be helped.
func TestWitness(t *testing.T) {
	const established, fresh = 5, rebuildFlows + 5
	for _, c := range []struct {
		name              string
		flow              uint32
		backend           uint16
		dead, known       int32
		misdirected, late int
	}{
		{name: "an established flow stays", flow: established, backend: 7},
		{name: "it stays with a dead backend", flow: established, backend: 7, dead: 7, known: 7},
		{name: "it moves", flow: established, backend: 8, misdirected: 1},
		{name: "it leaves a dead backend", flow: established, backend: 8, dead: 7, known: 7, misdirected: 1},
		{name: "a new flow", flow: fresh, backend: 9},
		{name: "a new flow avoids the dead", flow: fresh, backend: 9, dead: 7, known: 7},
		{name: "a new flow goes to the dead before anybody can know", flow: fresh, backend: 7, dead: 7, late: 1},
		{name: "while the one known to be dead is another", flow: fresh, backend: 7, dead: 7, known: 6, late: 1},
		{name: "a new flow goes to the dead", flow: fresh, backend: 7, dead: 7, known: 7, misdirected: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, err := newWitness()
			if err != nil {
				t.Fatal(err)
			}
			w.see(established, 7, 0)
			w.news(c.dead, c.dead == 0)
			w.known = c.known
			w.see(c.flow, c.backend, w.dead.Load())
			if w.misdirected != c.misdirected || w.late != c.late || (w.longest > 0) != (c.late > 0) || w.longest > time.Since(w.start) {
				t.Errorf("%d misdirected, %d late, the last after %v", w.misdirected, w.late, w.longest)
			}
		})
	}
}

// TestUp finds backends by the number in their MAC address.
func TestUp(t *testing.T) {
	s, err := balanced{mode: table.DR, services: 1, backends: 3, slots: 251}.snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if !up(s, 2) || up(s, 3) {
		t.Error("backend 2 is up, and there is no backend 3")
	}
	s.Backends[2].Up = false
	if up(s, 2) {
		t.Error("backend 2 is down")
	}
}
