package dataplane_test

import (
	"testing"
	"time"

	"xlvs/dataplane/frametest"
	"xlvs/dataplane/table"
)

// goTo checks that the fragments of c come out of worker 1 whole, at backend b.
func (l *lab) goTo(s svc, c frametest.Spec, parts [][]byte, b *table.Backend) {
	l.Helper()
	if s.mode == table.NAT {
		c.Dst = addrPort(b)
	}
	l.whole("fragments", l.step(1, 0, parts...)[1], c, [6]byte(b.Eth[:6]), [6]byte(b.Eth[6:]))
}

// A flow whose backend is dead is left at once where its packets come to another worker in fragments, too: by datagrams, not by
// the segments of a connection.
func TestFragmentsOfAnothersFlowToDeadBackend(t *testing.T) {
	for _, s := range matrix() {
		t.Run(s.String(), func(t *testing.T) {
			l := newLab(t, 2)
			l.e.Publish(snapshot(t, s))
			first := s.client(0, 1, syn)
			home := l.picked(first)
			l.one(0, 0, 1, first.Build())
			s.off = []int{home.Ref.Slot()}
			l.e.Publish(snapshot(t, s))
			c, parts := s.large(1, 1400)
			if !s.udp {
				l.goTo(s, c, parts, home)
				return
			}
			b := l.picked(c)
			if b.Ref == home.Ref {
				t.Fatal("a dead backend is picked")
			}
			l.goTo(s, c, parts, b)
			for range 400 { // the owner has not been told to keep the flow
				l.step(0, 0)
				l.step(1, 0)
				l.now += uint32(time.Second.Milliseconds())
			}
			if n := l.e.FlowTable(0).Used; n != 0 {
				t.Errorf("%d flows to a dead backend are still there after their time", n)
			}
		})
	}
}

// A first fragment with a connection ID goes where that says at the other worker as well, and opens no second flow beside one that
// leads there.
func TestQUICFragmentsElsewhere(t *testing.T) {
	for _, s := range matrix() {
		if !s.udp {
			continue
		}
		t.Run(s.String(), func(t *testing.T) {
			s.edit = quicService(2)
			l := newLab(t, 2)
			l.e.Publish(snapshot(t, s))
			c := s.client(0, 5, 0)
			home := l.goesTo(s, c)
			other, third := (home+1)%3, (home+2)%3
			c.Payload = shortHeader(2, 2, other)
			l.goesTo(s, c) // with NAT a flow that stands aside
			for round, be := range []int{home, other, third, third} {
				c := c
				c.DF, c.Payload = false, append(shortHeader(2, 2, be), make([]byte, 4000)...)
				b := &l.e.Snapshot().Backends[be]
				l.goTo(s, c, frametest.Fragments(c.Build(), 1400, uint32(round)), b)
				if s.mode == table.NAT {
					for worker := range 2 {
						in, want := reply(c, b, 0)
						in.Payload, want.Payload = nil, nil
						l.same("reply", l.one(worker, 1, 0, in.Build()), want.Build())
					}
				}
				want := 0
				if s.mode == table.NAT && be == third {
					want = 1 // its replies need one
				}
				if n := l.e.FlowTable(1).Used; n != want {
					t.Errorf("fragments for server %d (the flow's is %d): the second worker has %d flows, want %d", be, home, n, want)
				}
			}
			c.Payload = nil
			if got := l.goesTo(s, c); got != home {
				t.Errorf("a packet that names no server goes to %d, want %d as before", got, home)
			}
		})
	}
}

// Where nobody knows the flow, a first fragment opens it at the server that it names; where the flow leads to a dead one, too.
func TestQUICFragmentsOpenAFlow(t *testing.T) {
	for _, s := range matrix() {
		if !s.udp {
			continue
		}
		s.edit = quicService(2)
		for _, known := range []bool{false, true} {
			l := newLab(t, 2)
			l.e.Publish(snapshot(t, s))
			c := s.client(0, 5, 0)
			home := l.picked(c).Ref.Slot()
			if known {
				l.goesTo(s, c)
				dead := s
				dead.off = []int{home}
				l.e.Publish(snapshot(t, dead))
			}
			be := (home + 1) % 3
			c.DF, c.Payload = false, append(shortHeader(2, 2, be), make([]byte, 4000)...)
			l.goTo(s, c, frametest.Fragments(c.Build(), 1400, 3), &l.e.Snapshot().Backends[be])
			if n := l.e.FlowTable(1).Used; n != 1 {
				t.Errorf("%v: %d flows, want 1", s, n)
			}
		}
	}
}
