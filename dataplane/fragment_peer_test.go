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
