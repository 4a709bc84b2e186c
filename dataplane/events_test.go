package dataplane_test

import (
	"fmt"
	"testing"

	"xlvs/dataplane"
	"xlvs/dataplane/flow"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// Each sampled flow is reported when it opens and when it ends, and no other is, even if its service is gone by then.
func TestEvents(t *testing.T) {
	for _, every := range []int{0, 1, 8} {
		for _, gone := range []bool{false, true} {
			for _, s := range matrix() {
				t.Run(fmt.Sprintf("%v/every=%d/gone=%v", s, every, gone), func(t *testing.T) { testEvents(t, s, every, gone) })
			}
		}
	}
}

func testEvents(t *testing.T, s svc, every int, gone bool) {
	const n = 200
	l := newLab(t, 1, func(o *dataplane.Options) { o.FlowSample, o.Flows = every, 4096 })
	l.e.Publish(snapshot(t, s))
	backend := map[packet.Ports]int{}
	for c := range n {
		spec := s.client(0, c, syn)
		backend[packet.MakePorts(spec.Src.Port(), vport)] = l.goesTo(s, spec)
	}
	opened := l.now
	if gone {
		snap, err := table.New(&table.Snapshot{Timeouts: flow.DefaultTimeouts(), Ports: l.e.Snapshot().Ports})
		if err != nil {
			t.Fatal(err)
		}
		l.e.Publish(snap)
	}
	for l.e.FlowTable(0).Used > 0 && l.now < 400_000 {
		l.now += 50
		l.e.Step(0, l.now)
	}
	evs := make([]dataplane.Event, 4*n)
	evs = evs[:l.e.ReadEvents(0, evs)]
	started := map[packet.Ports]dataplane.Event{}
	ended := 0
	for _, e := range evs {
		if e.Service != table.MakeRef(0, 1) || e.Backend.Slot() != backend[e.Ports] {
			t.Fatalf("event %+v names service %v, backend %v", e, e.Service, e.Backend)
		}
		switch e.Kind {
		case dataplane.EventFlowNew:
			started[e.Ports] = e
			if e.Time != opened {
				t.Errorf("opened at %d, not %d", e.Time, opened)
			}
		case dataplane.EventFlowEnd:
			ended++
			if st, ok := started[e.Ports]; !ok || st.Client != e.Client {
				t.Errorf("a flow ended that was not reported before: %+v", e)
			}
			if e.Packets != 1 || e.Bytes == 0 {
				t.Errorf("flow ended with %d packets, %d bytes", e.Packets, e.Bytes)
			}
		}
	}
	if ended != len(started) {
		t.Errorf("%d flows started, %d ended", len(started), ended)
	}
	if every == 0 && len(started) != 0 || every == 1 && len(started) != n || every == 8 && (len(started) == 0 || len(started) > n/2) {
		t.Errorf("%d of %d flows sampled, one in %d was asked for", len(started), n, every)
	}
}

// A full ring loses events, counts them, and goes on afterwards.
func TestEventRingFull(t *testing.T) {
	s := svc{}
	l := newLab(t, 1, func(o *dataplane.Options) { o.FlowSample, o.EventRing = 1, 16 })
	l.e.Publish(snapshot(t, s))
	for c := range 40 {
		l.goesTo(s, s.client(0, c, syn))
	}
	evs := make([]dataplane.Event, 64)
	if n, lost := l.e.ReadEvents(0, evs), l.e.Counters().EventsLost; n != 16 || lost != 24 {
		t.Errorf("%d events read, %d lost", n, lost)
	}
	l.goesTo(s, s.client(0, 41, syn))
	if n := l.e.ReadEvents(0, evs); n != 1 {
		t.Errorf("%d events after the overflow", n)
	}
}
