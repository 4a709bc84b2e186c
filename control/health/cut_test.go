package health

import (
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A target that falls while this host cuts it off comes up with the first success, at once when the cut is over; one that fell
// before, or falls afterwards, does not.
func TestCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		m := w.monitor(t, 0)
		x := target(1, Spec{Interval: 10 * time.Second, Timeout: 5 * time.Second, Rise: 3, Fall: 2})
		dead := func(is bool) { w.set(func() { w.dead[x.Addr.String()] = is }) }
		after := func(d time.Duration) (up []bool) {
			time.Sleep(d)
			synctest.Wait()
			for _, u := range w.take() {
				up = append(up, u.Up)
			}
			return up
		}
		m.Set([]Target{x})
		if got := after(time.Second); !slices.Equal(got, []bool{true}) {
			t.Fatalf("first result: %v", got)
		}
		m.Cut(x.ID, true)
		dead(true)
		if got := after(30 * time.Second); !slices.Equal(got, []bool{false}) {
			t.Fatalf("cut off: %v", got)
		}
		x.Spec.Interval = 11 * time.Second // a reload leaves it as it is
		m.Set([]Target{x})
		dead(false)
		m.Cut(x.ID, false)
		if got := after(time.Millisecond); !slices.Equal(got, []bool{true}) {
			t.Errorf("the cut is over: %v", got)
		}

		dead(true)
		if got := after(40 * time.Second); !slices.Equal(got, []bool{false}) {
			t.Fatalf("down by its own fault: %v", got)
		}
		m.Cut(x.ID, true)
		m.Cut(x.ID, false)
		dead(false)
		if got := after(10 * time.Second); len(got) != 0 {
			t.Errorf("a cut excuses what fell before it: %v", got)
		}
		if got := after(30 * time.Second); !slices.Equal(got, []bool{true}) {
			t.Errorf("after Rise successes: %v", got)
		}

		// A check that is under way when the cut ends has no result, and another one begins.
		w.set(func() { w.delay = 4 * time.Second })
		m.Cut(x.ID, true)
		for n := w.count(x.Addr.String()); w.count(x.Addr.String()) == n; {
			time.Sleep(time.Second)
		}
		before, _ := m.Status(x.ID)
		n := w.count(x.Addr.String())
		m.Cut(x.ID, false)
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if s, _ := m.Status(x.ID); s.Checks != before.Checks || w.count(x.Addr.String()) != n+1 {
			t.Errorf("%d checks with a result and %d begun, want %d and %d", s.Checks, w.count(x.Addr.String()), before.Checks, n+1)
		}
		m.Cut("nobody", true)
		m.Close()
	})
}

// Who gives no answer at all is told of, who refuses is not.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var silent []netip.Addr
		m := New(Options{Dial: w.dial, Silence: func(a netip.Addr) { silent = append(silent, a) }})
		x := target(1, Spec{Interval: time.Second, Timeout: time.Second / 2})
		w.set(func() { w.dead[x.Addr.String()] = true })
		m.Set([]Target{x})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if len(silent) != 0 {
			t.Errorf("refused connections are silence: %v", silent)
		}
		w.set(func() { w.delay = time.Hour })
		time.Sleep(5 * time.Second)
		m.Close()
		if len(silent) < 3 || silent[0] != x.Addr.Addr() {
			t.Errorf("told of %v", silent)
		}
	})
}
