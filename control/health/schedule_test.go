package health

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// A world is a fake network of backends that can be killed, slow or short of descriptors, in synctest's fake time.
type world struct {
	mu      sync.Mutex
	dead    map[string]bool
	delay   time.Duration
	short   bool
	dials   map[string][]time.Time
	now, in int // dials under way, and the most that ever were
	updates []Update
}

func newWorld() *world { return &world{dead: map[string]bool{}, dials: map[string][]time.Time{}} }

func (w *world) dial(ctx context.Context, _, address string) (net.Conn, error) {
	w.mu.Lock()
	w.dials[address] = append(w.dials[address], time.Now())
	w.now++
	w.in = max(w.in, w.now)
	delay := w.delay
	w.mu.Unlock()
	defer func() { w.mu.Lock(); w.now--; w.mu.Unlock() }()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(delay):
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.short:
		return nil, &net.OpError{Op: "dial", Err: syscall.EMFILE}
	case w.dead[address]:
		return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	}
	a, b := net.Pipe()
	b.Close()
	return a, nil
}

func (w *world) note(u Update) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.updates = append(w.updates, u)
}

func (w *world) take() []Update {
	w.mu.Lock()
	defer w.mu.Unlock()
	u := w.updates
	w.updates = nil
	return u
}

func (w *world) set(f func()) { w.mu.Lock(); f(); w.mu.Unlock() }

func (w *world) count(address string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.dials[address])
}

func (w *world) monitor(t *testing.T, concurrency int) *Monitor {
	m := New(Options{Dial: w.dial, Notify: w.note, Concurrency: concurrency})
	t.Cleanup(m.Close)
	return m
}

func target(n int, spec Spec) Target {
	spec.Type = TCP
	return Target{ID: fmt.Sprint("b", n), Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(n >> 8), byte(n)}), 80), Spec: spec}
}

func TestDetection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		m := w.monitor(t, 0)
		var targets []Target
		for i := range 1000 {
			targets = append(targets, target(i, Spec{Interval: 200 * time.Millisecond, Timeout: time.Second, Rise: 2, Fall: 2}))
		}
		m.Set(targets)
		time.Sleep(201 * time.Millisecond)
		synctest.Wait()
		if u := w.take(); len(u) != 1000 || !u[0].Up {
			t.Fatalf("%d first results after one interval, want 1000", len(u))
		}
		// All at one instant would be a burst; spread evenly there are 5 a millisecond.
		burst := map[time.Duration]int{}
		for _, d := range w.dials {
			burst[d[0].Sub(w.dials[targets[0].Addr.String()][0]).Truncate(time.Millisecond)]++
		}
		for at, n := range burst {
			if n > 40 {
				t.Errorf("%d checks within the millisecond at %v", n, at)
			}
		}

		died := time.Now()
		w.set(func() {
			for _, x := range targets {
				w.dead[x.Addr.String()] = true
			}
		})
		time.Sleep(time.Second)
		synctest.Wait()
		down := w.take()
		if len(down) != 1000 {
			t.Fatalf("%d of 1000 were reported down", len(down))
		}
		for _, u := range down {
			if u.Up || u.At.Sub(died) > 400*time.Millisecond {
				t.Errorf("%s: up %v after %v, want down within two intervals", u.ID, u.Up, u.At.Sub(died))
			}
			if !strings.HasPrefix(u.Reason, "connection refused by 10.0.") {
				t.Errorf("reason %q", u.Reason)
			}
		}
		m.Close()
	})
}

func TestLongIntervalIsCheckedSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		m := w.monitor(t, 0)
		x := target(1, Spec{Interval: time.Minute})
		m.Set([]Target{x})
		time.Sleep(startWindow)
		synctest.Wait()
		if len(w.take()) != 1 {
			t.Error("no result within the start window")
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		for i, d := range w.dials[x.Addr.String()] {
			if i > 0 && d.Sub(w.dials[x.Addr.String()][i-1]) > time.Minute {
				t.Errorf("check %d came %v after the one before", i, d.Sub(w.dials[x.Addr.String()][i-1]))
			}
		}
		if n := w.count(x.Addr.String()); n < 10 || n > 12 {
			t.Errorf("%d checks in ten minutes", n)
		}
		m.Close()
	})
}

func TestChecksDoNotOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.delay = time.Hour
		m := w.monitor(t, 0)
		m.Set([]Target{target(1, Spec{Interval: 100 * time.Millisecond, Timeout: 350 * time.Millisecond, Fall: 2})})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if w.in != 1 {
			t.Errorf("%d checks of one target at once", w.in)
		}
		u := w.take()
		if len(u) != 1 || u[0].Reason != "no answer in 350ms" || u[0].Latency != 350*time.Millisecond {
			t.Errorf("updates %+v", u)
		}
		if n := w.count("10.0.0.1:80"); n < 24 || n > 26 {
			t.Errorf("%d checks in 10 s, want one every 400 ms", n)
		}
		m.Close()
	})
}

func TestConcurrencyIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.delay = 10 * time.Millisecond
		m := w.monitor(t, 8)
		var targets []Target
		for i := range 100 {
			targets = append(targets, target(i, Spec{Interval: 200 * time.Millisecond}))
		}
		m.Set(targets)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if w.in > 8 {
			t.Errorf("%d checks at once, want at most 8", w.in)
		}
		if len(w.take()) != 100 {
			t.Error("not every target had its result")
		}
		m.Close()
	})
}

func TestSetIsDesiredState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		m := w.monitor(t, 0)
		spec := Spec{Interval: time.Second, Rise: 2, Fall: 3, Status: []int{200}}
		a, b := target(1, spec), target(2, spec)
		m.Set([]Target{a, b})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		w.take()

		// The same again, many times: nothing restarts, so the pace stays what it was.
		before := w.count(a.Addr.String())
		for range 100 {
			m.Set([]Target{a, b})
			time.Sleep(100 * time.Millisecond)
		}
		if n := w.count(a.Addr.String()) - before; n < 10 || n > 11 {
			t.Errorf("%d checks in 10 s while Set was called with no change", n)
		}

		// Another spec keeps the state: no update, and one failure does not take it down.
		a.Spec.Fall = 2
		w.set(func() { w.dead[a.Addr.String()] = true })
		m.Set([]Target{a, b})
		for w.count(a.Addr.String()) == before {
			time.Sleep(10 * time.Millisecond)
		}
		if s, _ := m.Status(a.ID); !s.Up || !s.Known {
			t.Errorf("after a new spec: %+v", s)
		}
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if u := w.take(); len(u) != 1 || u[0].ID != a.ID || u[0].Up {
			t.Errorf("updates %+v, want a down", u)
		}

		// Another address: its first result decides, and it is news only because it differs.
		a.Addr = netip.MustParseAddrPort("10.9.9.9:80")
		m.Set([]Target{a, b})
		time.Sleep(time.Second)
		synctest.Wait()
		if u := w.take(); len(u) != 1 || !u[0].Up {
			t.Errorf("updates %+v, want an up", u)
		}

		// Removed: no more checks.
		m.Set([]Target{b})
		synctest.Wait()
		n := w.count(a.Addr.String())
		time.Sleep(5 * time.Second)
		if w.count(a.Addr.String()) != n {
			t.Error("a removed target is still checked")
		}
		if _, ok := m.Status(a.ID); ok {
			t.Error("a removed target still has a status")
		}
		m.Close()
	})
}

func TestLocalShortageIsNoVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		m := w.monitor(t, 0)
		x := target(1, Spec{Interval: 100 * time.Millisecond, Fall: 1})
		m.Set([]Target{x})
		time.Sleep(time.Second)
		synctest.Wait()
		w.take()
		w.set(func() { w.short = true })
		time.Sleep(time.Second)
		synctest.Wait()
		s, _ := m.Status(x.ID)
		if u := w.take(); len(u) != 0 || !s.Up || s.Skipped == 0 || !strings.Contains(s.Last.Reason, "this host could not") {
			t.Errorf("updates %v, status %+v", u, s)
		}
		m.Close()
	})
}

func TestCallbackMayUseMonitor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var m *Monitor
		var calls atomic.Int32
		m = New(Options{Dial: w.dial, Notify: func(u Update) {
			if s, ok := m.Status(u.ID); !ok || !s.Up {
				t.Errorf("status %+v", s)
			}
			m.Set(nil)
			calls.Add(1)
		}})
		m.Set([]Target{target(1, Spec{Interval: time.Second})})
		time.Sleep(5 * time.Second)
		m.Close()
		m.Close()
		m.Set([]Target{target(1, Spec{})}) // of no effect
		if calls.Load() != 1 {
			t.Errorf("%d calls, want 1", calls.Load())
		}
	})
}
