package dataplane_test

import (
	"fmt"
	"testing"

	"xlvs/dataplane"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/table"
)

// goesTo sends c and returns the slot of the backend that received it, checked to the byte; -1 when nothing was sent.
func (l *lab) goesTo(s svc, c frametest.Spec) int {
	l.Helper()
	got := l.one(0, 0, 1, c.Build())
	if got == nil {
		return -1
	}
	for i := range l.e.Snapshot().Backends {
		b := &l.e.Snapshot().Backends[i]
		if b.Live && [6]byte(b.Eth[:6]) == [6]byte(got[:6]) {
			l.same("to the backend", got, s.toBackend(l, c, b, got))
			return i
		}
	}
	l.Fatalf("sent to no backend: % x", got)
	return -1
}

// establish opens a flow for client n and, for TCP, finishes its handshake. It returns its backend's slot.
func (l *lab) establish(s svc, n int) int {
	l.Helper()
	be := l.goesTo(s, s.client(0, n, syn))
	if !s.udp {
		if got := l.goesTo(s, s.client(0, n, ack)); got != be {
			l.Fatalf("the handshake's ACK went to backend %d, the SYN to %d", got, be)
		}
	}
	return be
}

// What becomes of flows in each state when their backend is down, or removed, or merely gets no new flows.
func TestBackendLeaves(t *testing.T) {
	const stays, moves, dropped = "stays", "moves", "dropped"
	for _, s := range matrix() {
		for _, how := range []string{"down", "removed", "drained", "table reshuffled"} {
			for _, tc := range []struct {
				name string
				open bool // handshake over
				next uint8
				down string // what the next packet does if the backend is down
				gone string // … or removed
				udp  bool
			}{
				{name: "established", open: true, next: ack, down: stays, gone: dropped},
				{name: "closing", open: true, next: fin, down: stays, gone: dropped},
				{name: "established, new SYN", open: true, next: syn, down: moves, gone: moves},
				{name: "half-open, SYN again", next: syn, down: moves, gone: moves},
				{name: "half-open, ACK", next: ack, down: stays, gone: dropped},
				{name: "datagrams", open: true, down: moves, gone: moves, udp: true},
			} {
				if tc.udp != s.udp {
					continue
				}
				t.Run(fmt.Sprintf("%v/%s/%s", s, how, tc.name), func(t *testing.T) {
					want := map[string]string{"down": tc.down, "removed": tc.gone, "drained": stays, "table reshuffled": stays}[how]
					l := newLab(t, 1)
					l.e.Publish(snapshot(t, s))
					const n = 7
					old := l.goesTo(s, s.client(0, n, syn))
					if tc.open {
						l.goesTo(s, s.client(0, n, ack))
					}
					l.e.Publish(snapshot(t, s.after(how, old)))
					l.delta()
					got := l.goesTo(s, s.client(0, n, tc.next))
					d := l.delta()
					switch want {
					case stays:
						if got != old {
							t.Errorf("went from backend %d to %d; drops %v", old, got, d.Drops)
						}
					case moves:
						if got < 0 || got == old || d.FlowsNew != 1 || d.FlowsEnded != 1 {
							t.Errorf("went from backend %d to %d with %d new flows, %d ended; drops %v", old, got, d.FlowsNew, d.FlowsEnded, d.Drops)
						}
						if again := l.goesTo(s, s.client(0, n, ack)); again != got {
							t.Errorf("moved to %d and then to %d", got, again)
						}
					case dropped:
						if got != -1 || d.Drops[dataplane.DropBackendGone] != 1 {
							t.Errorf("went to %d; drops %v", got, d.Drops)
						}
					}
				})
			}
		}
	}
}

// after is the service after something happened to backend slot be.
func (s svc) after(how string, be int) svc {
	switch how {
	case "down":
		s.off = []int{be}
	case "removed":
		s.gone = []int{be}
	case "drained":
		s.edit = func(v *table.Service) {
			for i, m := range v.Slots {
				if v.Members[m].Slot() == be {
					v.Slots[i] = uint16((int(m) + 1) % len(v.Members))
				}
			}
		}
	case "table reshuffled":
		s.edit = func(v *table.Service) {
			for i, m := range v.Slots {
				v.Slots[i] = uint16((int(m) + 1) % len(v.Members))
			}
		}
	}
	return s
}

// A backend's or a service's slot with a new tenant does not inherit flows.
func TestSlotReused(t *testing.T) {
	for _, s := range matrix() {
		t.Run(s.String(), func(t *testing.T) {
			l := newLab(t, 1)
			l.e.Publish(snapshot(t, s))
			be := l.establish(s, 3)
			next := s
			next.edit = func(v *table.Service) { v.Ref = table.MakeRef(0, 2) }
			next.be = func(_ int, b *table.Backend) { b.Service = table.MakeRef(0, 2) }
			l.e.Publish(snapshot(t, next))
			got := l.goesTo(s, s.client(0, 3, ack))
			if s.udp && got != be || !s.udp && got != -1 {
				t.Errorf("a flow of the slot's former service went to %d", got)
			}
			if !s.udp {
				l.last.FlowsNew = 1
				if d := l.delta(); d.Drops[dataplane.DropNoFlow] != 1 {
					t.Errorf("drops %v", d.Drops)
				}
			}
		})
	}
}

// A SYN on a flow that is over opens it afresh (conn_reuse_mode of IPVS), on whatever backend the table says now.
func TestReuseOfAFlowThatIsOver(t *testing.T) {
	for _, s := range matrix() {
		if s.udp {
			continue
		}
		for name, closing := range map[string][]uint8{"fin": {fin, ack}, "rst": {rst}} {
			t.Run(s.String()+"/"+name, func(t *testing.T) {
				l := newLab(t, 1)
				l.e.Publish(snapshot(t, s))
				old := l.establish(s, 5)
				for _, f := range closing {
					if got := l.goesTo(s, s.client(0, 5, f)); got != old {
						t.Fatalf("flags %#x went to %d, the flow is on %d", f, got, old)
					}
				}
				if s.mode == table.NAT && name == "fin" {
					b := &l.e.Snapshot().Backends[old]
					in, want := reply(s.client(0, 5, fin), b, fin)
					l.same("the backend's FIN", l.one(0, 1, 0, in.Build()), want.Build())
					l.goesTo(s, s.client(0, 5, ack))
				}
				l.e.Publish(snapshot(t, s.after("table reshuffled", old)))
				l.delta()
				if got := l.goesTo(s, s.client(0, 5, syn)); got == old || got < 0 {
					t.Errorf("a new connection went to %d, the old one's backend is %d", got, old)
				}
				if d := l.delta(); d.FlowsNew != 1 || d.FlowsEnded != 1 || d.FlowsEvicted != 0 {
					t.Errorf("new %d, ended %d, evicted %d", d.FlowsNew, d.FlowsEnded, d.FlowsEvicted)
				}
			})
		}
	}
}

// Every flow ends after its timeout, and the numbers of active and inactive flows come back to zero.
func TestFlowsExpire(t *testing.T) {
	for _, s := range matrix() {
		t.Run(s.String(), func(t *testing.T) {
			l := newLab(t, 1, func(o *dataplane.Options) { o.Flows = 4096 })
			snap := snapshot(t, s)
			l.e.Publish(snap)
			const n = 200
			for c := range n {
				l.goesTo(s, s.client(0, c, syn))
				if c%2 == 0 {
					l.goesTo(s, s.client(0, c, ack))
				}
				if c%4 == 0 {
					l.goesTo(s, s.client(0, c, rst))
				}
			}
			active, inactive := l.flows()
			wantActive := int64(0)
			if !s.udp {
				wantActive = n - n/4 // SYN_RECV and ESTABLISHED; CLOSE is inactive
			}
			if active != wantActive || active+inactive != n || l.e.FlowTable(0).Used != n {
				t.Fatalf("%d active, %d inactive flows of %d, want %d active", active, inactive, n, wantActive)
			}
			steps := []struct {
				at   uint32
				left int
			}{{9_000, n}, {10_000 + 20_000, n - n/4}, {60_000 + 20_000, n - n/4 - n/2}, {900_000 + 20_000, 0}}
			if s.udp {
				steps = []struct {
					at   uint32
					left int
				}{{299_000, n}, {320_000, 0}}
			}
			for _, st := range steps {
				for l.now < 1000+st.at {
					l.now += 50
					l.e.Step(0, l.now)
				}
				if got := l.e.FlowTable(0).Used; got != st.left {
					t.Errorf("after %d ms %d flows are left, want %d", st.at, got, st.left)
				}
			}
			if active, inactive := l.flows(); active != 0 || inactive != 0 {
				t.Errorf("%d active and %d inactive flows are left of none", active, inactive)
			}
			if d := l.delta(); d.FlowsNew != n || d.FlowsEnded != n || d.FlowsEvicted != 0 {
				t.Errorf("new %d, ended %d, evicted %d", d.FlowsNew, d.FlowsEnded, d.FlowsEvicted)
			}
		})
	}
}

// flows sums the backends' numbers of flows.
func (l *lab) flows() (active, inactive int64) {
	for i := range l.e.Snapshot().Backends {
		c := l.e.Backend(i)
		active, inactive = active+c.Active, inactive+c.Inactive
	}
	return active, inactive
}

// However many flows a burst ends, none is forgotten in the count: new flows far beyond the table's size, from
// many frames in one poll.
func TestCountsUnderEviction(t *testing.T) {
	for _, s := range matrix() {
		t.Run(s.String(), func(t *testing.T) {
			l := newLab(t, 1)
			l.e.Publish(snapshot(t, s))
			for n := 0; n < 20_000; n += 120 {
				for k := range 60 {
					l.inject(0, 0, s.flood(n+k))
					l.inject(0, 1, s.flood(n+60+k))
				}
				l.e.Step(0, l.now)
				l.ports[0][0].Sent()
				l.ports[0][1].Sent()
				l.now++
				c := l.e.Counters()
				active, inactive := l.flows()
				if used := uint64(l.e.FlowTable(0).Used); c.FlowsNew-c.FlowsEnded != used || uint64(active+inactive) != used {
					t.Fatalf("after %d: %d new − %d ended, %d active, %d inactive, but %d in the table", n, c.FlowsNew, c.FlowsEnded, active, inactive, used)
				}
			}
			c := l.e.Counters()
			if c.FlowsEvicted == 0 || c.Stateless != 0 || c.Forwarded[s.mode] != c.RxPackets {
				t.Errorf("evicted %d, stateless %d, forwarded %d of %d", c.FlowsEvicted, c.Stateless, c.Forwarded[s.mode], c.RxPackets)
			}
		})
	}
}

func (l *lab) inject(worker, port int, f []byte) {
	l.Helper()
	if !l.ports[worker][port].Inject(f) {
		l.Fatal("frame not taken")
	}
}

// flood is the opening packet of client n of many.
func (s svc) flood(n int) []byte {
	c := s.client(0, n%250, syn)
	f := c.Build()
	l4 := 34
	if s.v6 {
		l4 = 54
	}
	f[l4], f[l4+1] = byte(n>>8), byte(n)
	return f
}
