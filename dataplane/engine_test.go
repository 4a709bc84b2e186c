package dataplane_test

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"xlvs/dataplane"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/memio"
	"xlvs/dataplane/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cpus returns n CPUs that this process may use, one of them several times if there are fewer.
func cpus(t *testing.T, n int) (list []int) {
	t.Helper()
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		t.Fatal(err)
	}
	for c := 0; len(list) < n; c = (c + 1) % 1024 {
		if set.IsSet(c) {
			list = append(list, c)
		}
	}
	return list
}

func eventually(t *testing.T, what func() string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%s: not after 10 s", what())
		}
	}
}

// said describes what was waited for, with the counters as they stand.
func (l *lab) said(what string) func() string {
	return func() string {
		return fmt.Sprintf("%s; worker 0 %+v; worker 1 %+v", what, l.e.Worker(0), l.e.Worker(l.e.Workers()-1))
	}
}

// Two pinned workers under load, their snapshot changing all the time: requests at one, replies at the other.
func TestEngineUnderLoad(t *testing.T) {
	// Workers that never sleep take a P each: what else runs needs some of its own.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(6))
	for _, idle := range []dataplane.IdlePolicy{{}, {Sleep: true, Spin: time.Millisecond}} {
		s, n := svc{mode: table.NAT}, 100
		if idle.Sleep {
			n = 8 // memio has nothing to poll: a frame waits until the sleep ends by itself
		}
		list := cpus(t, 2)
		l := newLab(t, 2, func(o *dataplane.Options) {
			o.Idle, o.FlowSample, o.EventRing = idle, 1, 64
			for i := range o.Workers {
				o.Workers[i].CPU = list[i]
			}
		})
		up := snapshot(t, s)
		l.e.Publish(up)
		if err := l.e.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { publishAndWatch(l, s, up, done) })
		stop := sync.OnceFunc(func() { close(done); wg.Wait() })
		t.Cleanup(stop)
		requests, replies := l.talk(s, n)
		stop()
		l.e.Stop()
		if requests == 0 || replies == 0 {
			t.Errorf("%d requests and %d replies came through", requests, replies)
		}
		for w := range 2 {
			if n := memio.InHand(l.mems[w], l.ports[w]...); n != 0 {
				t.Errorf("worker %d leaked %d chunks", w, n)
			}
		}
		c := l.e.Counters()
		if sum := c.Forwarded[table.NAT] + c.Replies + dropped(c); sum != c.RxPackets {
			t.Errorf("%d frames received, %d accounted for: %+v", c.RxPackets, sum, c)
		}
		if (c.Sleeps > 0) != idle.Sleep {
			t.Errorf("slept %d times with %+v", c.Sleeps, idle)
		}
		if err := l.e.Close(); err != nil {
			t.Error(err)
		}
	}
}

func dropped(c dataplane.Counters) (n uint64) {
	for _, d := range c.Drops {
		n += d
	}
	return n
}

// publishAndWatch swaps snapshots and reads all that observers read, until done.
func publishAndWatch(l *lab, s svc, up *table.Snapshot, done chan struct{}) {
	down := snapshot(l, s.after("down", 1))
	evs := make([]dataplane.Event, 16)
	for i := 0; ; i++ {
		select {
		case <-done:
			l.e.Publish(up)
			return
		default:
		}
		if i%2 == 0 {
			l.e.Publish(down)
		} else {
			l.e.Publish(up)
		}
		l.e.Counters()
		l.e.Backend(1)
		l.e.FlowTable(0)
		l.e.Port(1, 1)
		l.e.ReadEvents(0, evs)
		runtime.Gosched()
	}
}

// talk opens n connections at worker 0, answers each at worker 1, and checks what comes out.
func (l *lab) talk(s svc, n int) (requests, replies int) {
	for c := range n {
		spec := s.client(0, c, syn)
		before := dropped(l.e.Worker(0))
		l.inject(0, 0, spec.Build())
		var out [][]byte
		eventually(l.TB.(*testing.T), l.said("request"), func() bool {
			out = l.ports[0][1].Sent()
			return len(out) == 1 || dropped(l.e.Worker(0)) > before
		})
		if len(out) == 0 {
			continue
		}
		requests++
		f, err := frametest.Decode(out[0])
		if err != nil {
			l.Fatal(err)
		}
		var b *table.Backend
		for i := range l.e.Snapshot().Backends {
			if x := &l.e.Snapshot().Backends[i]; x.Live && x.Addr.Netip() == f.IP.Dst {
				b = x
			}
		}
		in, want := reply(spec, b, synack)
		l.inject(1, 1, in.Build())
		eventually(l.TB.(*testing.T), l.said("reply"), func() bool { out = l.ports[1][0].Sent(); return len(out) == 1 })
		l.same("reply", out[0], want.Build())
		replies++
	}
	return requests, replies
}

func TestStopWakesASleeper(t *testing.T) {
	l := newLab(t, 2, func(o *dataplane.Options) { o.Idle.Sleep = true })
	if err := l.e.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, l.said("both asleep"), func() bool { return l.e.Worker(0).Sleeps > 0 && l.e.Worker(1).Sleeps > 0 })
	l.e.Stop()
	l.e.Stop()
	if err := l.e.Close(); err != nil {
		t.Error(err)
	}
	if err := l.e.Close(); err != nil {
		t.Error(err)
	}
}

// A worker that cannot be pinned fails the start, says why, and leaves none running.
func TestStartFails(t *testing.T) {
	l := newLab(t, 2, func(o *dataplane.Options) { o.Workers[1].CPU = 1000 })
	err := l.e.Start()
	if !errors.Is(err, unix.EINVAL) {
		t.Fatalf("Start = %v", err)
	}
	if n := l.e.Worker(0).Polls; n != l.e.Worker(0).Polls {
		t.Error("a worker is still running")
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := dataplane.New(dataplane.Options{Flows: 1024}); err == nil {
		t.Error("an engine without workers")
	}
	for _, flows := range []int{0, 1023, 1<<26 + 1, -1} {
		if _, err := dataplane.New(dataplane.Options{Flows: flows, Workers: []dataplane.WorkerOptions{{CPU: -1}}}); err == nil {
			t.Errorf("an engine with %d flows", flows)
		}
	}
}

// A port that is out of order is counted, and does not stop the worker.
func TestPortErrors(t *testing.T) {
	s := svc{}
	l := newLab(t, 1)
	l.e.Publish(snapshot(t, s))
	l.ports[0][1].FailFlush(errors.New("down"))
	l.goesTo(s, s.client(0, 1, syn))
	l.goesTo(s, s.client(0, 2, syn))
	if n := l.e.Counters().PortErrors; n != 2 {
		t.Errorf("%d port errors", n)
	}
}
