package dataplane_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"xlvs/dataplane"
	"xlvs/dataplane/flow"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// split is a NAT flow whose requests are worker 0's, and whose replies are worker 1's.
type split struct {
	*lab
	s       svc
	request frametest.Spec
	be      *table.Backend
}

func newSplit(t *testing.T, s svc, edit ...func(*dataplane.Options)) *split {
	t.Helper()
	l := newLab(t, 2, append(edit, func(o *dataplane.Options) { o.FlowSample, o.EventRing = 1, 8192 })...)
	l.e.Publish(snapshot(t, s))
	x := &split{lab: l, s: s, request: s.client(0, 1, syn)}
	x.be = l.picked(x.request)
	x.ask(syn)
	if !s.udp {
		if !x.answer(synack) {
			t.Fatal("no SYN-ACK came through")
		}
		x.ask(ack)
	}
	return x
}

// ask sends a client's packet and says whether it came through.
func (x *split) ask(flags uint8) bool {
	x.Helper()
	c := x.request
	c.Flags = flags
	return x.one(0, 0, 1, c.Build()) != nil
}

// answer sends a server's and says whether it came through, right to the byte.
func (x *split) answer(flags uint8) bool {
	x.Helper()
	in, want := reply(x.request, x.be, flags)
	got := x.one(1, 1, 0, in.Build())
	if got != nil {
		x.same("reply", got, want.Build())
	}
	return got != nil
}

// pass lets time pass at both workers, in steps of a second at most.
func (x *split) pass(d time.Duration) {
	for end := x.now + uint32(d.Milliseconds()); x.now != end; {
		x.now += min(1000, end-x.now)
		for x.e.Step(0, x.now)+x.e.Step(1, x.now) > 0 { // what has something to do polls again at once
		}
	}
}

// ended returns the last event of the flow, nil while it lives.
func (x *split) ended() *dataplane.Event {
	evs := make([]dataplane.Event, 64)
	for n := x.e.ReadEvents(0, evs); n > 0; n = x.e.ReadEvents(0, evs) {
		for i := range evs[:n] {
			if e := &evs[i]; e.Kind == dataplane.EventFlowEnd && e.Client == packet.FromNetip(x.request.Src.Addr()) && e.Ports.Src() == x.request.Src.Port() {
				return e
			}
		}
	}
	return nil
}

// A flow in which only the server speaks lives for as long as it does, and then for its timeout.
func TestRepliesElsewhereKeepAFlow(t *testing.T) {
	brief := func(v *table.Service) {
		own := flow.DefaultTimeouts()
		own[flow.StateUDP], own[flow.StateEstablished] = 8_000, 8_000
		v.Timeouts = &own
	}
	for _, tc := range []struct {
		udp, own          bool
		pause, stays, end time.Duration
	}{
		{udp: true, pause: 200 * time.Second, stays: 299 * time.Second, end: 310 * time.Second},
		{udp: false, pause: 600 * time.Second, stays: 899 * time.Second, end: 910 * time.Second},
		{udp: true, own: true, pause: 5 * time.Second, stays: 7 * time.Second, end: 17 * time.Second},
		{udp: false, own: true, pause: 5 * time.Second, stays: 7 * time.Second, end: 17 * time.Second},
	} {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprintf("udp=%v/own=%v/v6=%v", tc.udp, tc.own, v6), func(t *testing.T) {
				s := svc{mode: table.NAT, udp: tc.udp, v6: v6}
				if tc.own {
					s.edit = brief
				}
				x := newSplit(t, s)
				for range 10 {
					x.pass(tc.pause)
					if !x.answer(ack) {
						t.Fatalf("a reply after %v of silence found no flow; drops %v", tc.pause, x.e.Counters().Drops)
					}
				}
				x.pass(tc.stays)
				if !x.answer(ack) {
					t.Fatalf("a reply after %v of silence found no flow", tc.stays)
				}
				if e := x.ended(); e != nil {
					t.Fatalf("the flow ended: %+v", e)
				}
				x.pass(tc.end)
				if x.answer(ack) {
					t.Errorf("a reply after %v of silence came through", tc.end)
				}
				if e := x.ended(); e == nil || e.Packets < 11 {
					t.Errorf("the flow's last event is %+v", e)
				}
			})
		}
	}
}

// Many replies of a flow are told of once in a while: what is told counts in the flow's numbers.
func TestRepliesElsewhereAreFewNews(t *testing.T) {
	x := newSplit(t, svc{mode: table.NAT})
	x.pass(800 * time.Second)
	for range 100 {
		for range 50 {
			x.answer(ack)
		}
		x.now++
	}
	x.pass(2000 * time.Second)
	if e := x.ended(); e == nil || e.Packets != 3 {
		t.Errorf("5000 replies within 100 ms, and two packets of the client, counted as %+v; want 3 packets", e)
	}
}

// What a server says of the connection's end counts, whichever worker hears it.
func TestEndHeardElsewhere(t *testing.T) {
	for _, tc := range []struct {
		what     string
		do       func(*split)
		end      flow.State
		within   time.Duration
		reopened int // new flows that a SYN on the same ports opens
	}{
		{"the server resets", func(x *split) { x.answer(frametest.RST) }, flow.StateClose, 10 * time.Second, 1},
		{"the server closes", func(x *split) { x.answer(fin | ack) }, flow.StateFinWait, 120 * time.Second, 0},
		{"the server closes, then the client", func(x *split) { x.answer(fin | ack); x.e.Step(0, x.now); x.ask(fin | ack) }, flow.StateTimeWait, 120 * time.Second, 1},
		{"the client closes, then the server", func(x *split) { x.ask(fin | ack); x.answer(fin | ack) }, flow.StateTimeWait, 120 * time.Second, 1},
		{"the client closes, and the server says so again and again", func(x *split) {
			x.ask(fin | ack)
			for range 5 {
				x.answer(fin | ack)
			}
		}, flow.StateTimeWait, 120 * time.Second, 1},
	} {
		t.Run(tc.what, func(t *testing.T) {
			x := newSplit(t, svc{mode: table.NAT})
			tc.do(x)
			x.pass(tc.within - time.Second)
			if e := x.ended(); e != nil {
				t.Fatalf("ended after less than %v: %+v", tc.within, e)
			}
			x.pass(10 * time.Second)
			if e := x.ended(); e == nil || e.State != tc.end {
				t.Fatalf("last event %+v, want one of a flow in state %v", e, tc.end)
			}

			x = newSplit(t, svc{mode: table.NAT})
			tc.do(x)
			x.e.Step(0, x.now)
			x.delta()
			if x.ask(syn); int(x.delta().FlowsNew) != tc.reopened {
				t.Errorf("a SYN on the same ports opened %d flows, want %d", 1-tc.reopened, tc.reopened)
			}
		})
	}
}

// News of a flow that is over is not taken for news of the one that has its entry now.
func TestStaleNews(t *testing.T) {
	x := newSplit(t, svc{mode: table.NAT})
	x.e.Step(0, x.now)
	x.answer(frametest.RST) // told, and not yet heeded: the owner first handles what it received
	rst, again := x.request, x.request
	rst.Flags, again.Flags = frametest.RST, syn
	x.delta()
	x.step(0, 0, rst.Build(), again.Build())
	if d := x.delta(); d.FlowsNew != 1 || d.FlowsEnded != 1 {
		t.Fatalf("%d flows opened, %d ended", d.FlowsNew, d.FlowsEnded)
	}
	if b := x.e.Backend(x.be.Ref.Slot()); b.Active != 1 || b.Inactive != 0 {
		t.Errorf("the new flow is not half-open: %d active, %d inactive", b.Active, b.Inactive)
	}
}

// A UDP flow that was answered is no flood's, whichever worker saw the answer.
func TestAnswerElsewhereKeepsAFlowInAFlood(t *testing.T) {
	for _, answered := range []bool{true, false} {
		s := svc{mode: table.NAT, udp: true}
		x := newSplit(t, s)
		if answered {
			x.answer(0)
			x.e.Step(0, x.now)
		}
		for n := range 8 * 1024 {
			c := s.client(0, n%250, 0)
			c.Src = addrPortOn(x.be, uint16(1024+n)) // any address but the client's
			x.step(0, 0, c.Build())
		}
		if gone := x.ended() != nil; gone == answered {
			t.Errorf("answered: %v; gone after a flood: %v", answered, gone)
		}
	}
}

// First fragments that arrive at another worker keep their flow, too.
func TestFragmentsElsewhereKeepAFlow(t *testing.T) {
	for _, mode := range []table.Mode{table.DR, table.TUN, table.NAT} {
		s := svc{mode: mode, udp: true}
		x := newSplit(t, s)
		_, parts := s.large(1, 1400)
		for range 5 {
			x.pass(200 * time.Second)
			x.step(1, 0, parts...)
		}
		if e := x.ended(); e != nil || x.e.FlowTable(1).Used != 0 {
			t.Errorf("%v: the flow ended: %+v; the other worker has %d", mode, e, x.e.FlowTable(1).Used)
		}
	}
}

// More news than a ring holds is lost, and told again by the packets that follow.
func TestNewsRingFull(t *testing.T) {
	const flows = 3000
	s := svc{mode: table.NAT, udp: true}
	x := newSplit(t, s, func(o *dataplane.Options) { o.Flows = 1 << 13 })
	replies := make([][]byte, flows)
	for n := range flows {
		c := s.client(0, n, 0)
		x.step(0, 0, c.Build())
		in, _ := reply(c, x.picked(c), 0)
		replies[n] = in.Build()
	}
	for range 6 {
		x.pass(100 * time.Second)
		for range 20 {
			for _, f := range replies {
				x.step(1, 1, f)
			}
			x.pass(200 * time.Millisecond)
		}
	}
	if used := x.e.FlowTable(0).Used; used < flows {
		t.Errorf("%d of %d flows are left, and all of them had replies", used, flows)
	}
}

// Two workers that run: a flow with a timeout of a second lives on replies alone, for longer than that.
func TestRepliesElsewhereUnderWay(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(6)) // workers that do not sleep take a P each
	for _, idle := range []dataplane.IdlePolicy{{}, {Sleep: true, Spin: time.Millisecond}} {
		s := svc{mode: table.NAT, udp: true, edit: func(v *table.Service) {
			own := flow.DefaultTimeouts()
			own[flow.StateUDP] = 1000
			v.Timeouts = &own
		}}
		l := newLab(t, 2, func(o *dataplane.Options) { o.Idle = idle })
		l.e.Publish(snapshot(t, s))
		if err := l.e.Start(); err != nil {
			t.Fatal(err)
		}
		c := s.client(0, 1, 0)
		l.inject(0, 0, c.Build())
		eventually(t, l.said("request"), func() bool { return len(l.ports[0][1].Sent()) == 1 })
		in, want := reply(c, l.picked(c), 0)
		for opened := l.e.Now(); l.e.Now()-opened < 2500; {
			l.inject(1, 1, in.Build())
			var out [][]byte
			eventually(t, l.said("reply"), func() bool { out = l.ports[1][0].Sent(); return len(out) == 1 })
			l.same("reply", out[0], want.Build())
		}
		l.e.Stop()
		if n := l.e.Worker(0).FlowsEnded; n != 0 {
			t.Errorf("%+v: the flow ended", idle)
		}
	}
}
