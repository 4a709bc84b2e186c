package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"xlvs/control/api"
	"xlvs/control/neigh"
	"xlvs/dataplane/steer"
)

const (
	two    = services0 + web0
	web0   = "\n  - {name: web, address: 203.0.113.10, port: 80, protocol: tcp, forward: dr, table_size: 251, health: {type: tcp}, backends: [{name: a, address: 10.1.0.1}, {name: b, address: 10.1.0.2}]}\n"
	plain  = services0 + "\n  - {name: web, address: 203.0.113.10, port: 80, protocol: tcp, forward: dr, table_size: 251, backends: [{name: a, address: 10.1.0.1}, {name: b, address: 10.1.0.2}]}\n"
	tunnel = services0 + "\n  - {name: web, address: 203.0.113.10, port: 80, protocol: tcp, forward: tun, table_size: 251, backends: [{name: a, address: 10.1.0.1}]}\n"

	services0 = head + "services:"
)

// bubble runs a test in fake time, with the loop running.
func bubble(t *testing.T, text string, test func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := started(t, text)
		stop := w.loop()
		defer stop()
		synctest.Wait()
		test(w)
	})
}

// A backend's death reaches the workers within 10 ms also while other results come all the time.
func TestDownIsNotDelayed(t *testing.T) {
	bubble(t, two, func(w *world) {
		w.result(true, "10.1.0.1:80", "10.1.0.2:80")
		time.Sleep(time.Second)
		w.result(false, "10.1.0.1:80")
		died := time.Now()
		for range 100 { // news for as long as it takes, each before the last was acted on
			w.result(true, "10.1.0.2:80")
			time.Sleep(time.Millisecond / 10)
			synctest.Wait()
			if strings.Join(w.takes("web"), "") == "b" {
				if d := time.Since(died); d > 10*time.Millisecond {
					t.Errorf("workers know after %v", d)
				}
				return
			}
		}
		t.Error("workers do not know after 10 ms")
	})
}

// What comes within a few milliseconds is one snapshot.
func TestResultsAreGathered(t *testing.T) {
	bubble(t, two, func(w *world) {
		before := w.engine.Snapshot().Generation
		w.result(true, "10.1.0.1:80")
		time.Sleep(2 * time.Millisecond)
		w.result(true, "10.1.0.2:80")
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if g := w.engine.Snapshot().Generation; g != before+1 {
			t.Errorf("%d snapshots for two results", g-before)
		}
		// Down and up again within that time moves nothing, but both are logged.
		w.result(false, "10.1.0.1:80")
		w.result(true, "10.1.0.1:80")
		time.Sleep(100 * time.Millisecond)
		synctest.Wait()
		if g := w.engine.Snapshot().Generation; g != before+1 {
			t.Errorf("a flap nobody could see published generation %d", g)
		}
		if downs, ups := len(w.lines("backend.down")), len(w.lines("backend.up")); downs != 1 || ups != 3 {
			t.Errorf("%d downs, %d ups logged", downs, ups)
		}
	})
}

// At the start the log has one table a service, whatever the number of results and the order in which they come.
func TestStartIsQuiet(t *testing.T) {
	for _, c := range []struct {
		name  string
		first func(w *world)
		want  []string
	}{
		{"all up, one by one", func(w *world) {
			w.result(true, "10.1.0.1:80")
			time.Sleep(100 * time.Millisecond)
			w.result(true, "10.1.0.2:80")
		}, []string{"table.published 2 251"}},
		{"all down", func(w *world) { w.result(false, "10.1.0.1:80", "10.1.0.2:80") }, []string{"table.published 0 0"}},
		{"one gives no result", func(w *world) { w.result(true, "10.1.0.2:80") }, []string{"table.published 1 251"}},
		{"nothing is known", func(*world) {}, []string{"table.published 0 0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, two, func(w *world) {
				if l := w.lines("table.published"); len(l) > 0 {
					t.Errorf("before any result: %v", l)
				}
				c.first(w)
				time.Sleep(10 * time.Second)
				synctest.Wait()
				if got := said(w.lines("table.published"), "backends", "slots_moved"); !slices.Equal(got, c.want) {
					t.Errorf("logged %v, want %v", got, c.want)
				}
				// From then on every change is told of.
				w.result(true, "10.1.0.1:80", "10.1.0.2:80")
				time.Sleep(time.Second)
				n := len(w.lines("table.published"))
				w.result(false, "10.1.0.1:80")
				time.Sleep(time.Second)
				if got := said(w.lines("table.published"), "backends"); len(got) != n+1 || got[n] != "table.published 1" {
					t.Errorf("logged %v", got)
				}
			})
		})
	}
}

// Without health checks there is nothing to wait for.
func TestStartWithoutChecks(t *testing.T) {
	w := started(t, plain)
	if got := said(w.lines(""), "backends", "generation"); !slices.Equal(got, []string{"config.applied 2 1", "neighbour.resolved", "neighbour.resolved", "table.published 2 1", "vip.announced"}) {
		t.Errorf("log %q", got)
	}
}

func TestStartNeedsInterfaces(t *testing.T) {
	w := newWorld(t, two)
	delete(w.neigh.facts, "eth1")
	if err := w.start(); err == nil || !strings.Contains(err.Error(), "interface eth1: there is none of that name here") {
		t.Errorf("error %v", err)
	}
}

// What the kernel refuses is tried again, and told of once.
func TestRetry(t *testing.T) {
	bubble(t, two, func(w *world) {
		w.path.mu.Lock()
		w.path.fail = func(steer.Rules) error { return errRefused }
		w.path.mu.Unlock()
		w.neigh.change(func() {
			f := w.neigh.facts["eth1"]
			f.Addrs = append(slices.Clone(f.Addrs), netip.MustParsePrefix("192.0.2.1/24"))
			w.neigh.facts["eth1"] = f
		})
		time.Sleep(10 * time.Second)
		w.path.mu.Lock()
		w.path.fail = nil
		w.path.mu.Unlock()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if l := said(w.lines("control.warning"), "part", "error"); !slices.Equal(l, []string{"control.warning reconcile " + errRefused.Error()}) {
			t.Errorf("warnings %v", l)
		}
		for _, want := range []string{"192.0.2.1", "192.0.2.255", "10.0.255.255", "10.1.255.255"} {
			if !slices.Contains(w.path.rules.Locals, netip.MustParseAddr(want)) {
				t.Errorf("%s is not among the director's own addresses %v", want, w.path.rules.Locals)
			}
		}
	})
}

func TestReloadThroughLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := started(t, two)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := w.Reload(ctx, parse(t, two)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("nobody runs the loop: %v", err)
		}
		stop := w.loop()
		must(t, w.Reload(t.Context(), parse(t, plain)))
		if got := strings.Join(w.takes("web"), ""); got != "ab" {
			t.Errorf("new flows go to %q when Reload returns", got)
		}
		if n := len(w.lines("config.applied")); n != 2 {
			t.Errorf("%d configurations are logged when Reload returns", n)
		}
		stop()
		if err := w.Reload(t.Context(), parse(t, plain)); err == nil || !strings.Contains(err.Error(), "about to end") {
			t.Errorf("the loop has ended: %v", err)
		}
	})
}

// A reload waits for next hops, but not for ever.
func TestReloadAwaitsHops(t *testing.T) {
	bubble(t, plain, func(w *world) {
		added := netip.MustParseAddr("10.1.0.3")
		w.neigh.errs[added] = fmt.Errorf("%v: %w", added, neigh.ErrPending)
		next := parse(t, strings.Replace(plain, "{name: b, address: 10.1.0.2}", "{name: c, address: 10.1.0.3}", 1))
		begun := time.Now()
		time.AfterFunc(20*time.Millisecond, func() { w.neigh.change(func() { delete(w.neigh.errs, added) }) })
		must(t, w.Reload(w.t.Context(), next))
		if _, b := w.entry("web", "c"); !b.Resolved || time.Since(begun) != 20*time.Millisecond {
			t.Errorf("after %v: %+v", time.Since(begun), b)
		}
		w.neigh.mu.Lock()
		w.neigh.errs[added] = fmt.Errorf("%v: %w", added, neigh.ErrPending)
		w.neigh.mu.Unlock()
		begun = time.Now()
		must(t, w.Reload(w.t.Context(), next))
		if d := time.Since(begun); d != hopsWithin {
			t.Errorf("a look-up that takes for ever held the loop up for %v", d)
		}
	})
}

// The API answers at any time: nothing slow is done under the lock.
func TestAPIWhileTheKernelIsSlow(t *testing.T) {
	w := started(t, two)
	release, entered := make(chan struct{}), make(chan struct{})
	w.path.fail = func(steer.Rules) error { close(entered); <-release; return nil }
	var wg sync.WaitGroup
	wg.Go(func() { _ = w.reload(parse(t, services(web, other))) })
	<-entered
	if n := len(w.Backends()); n != 2 {
		t.Errorf("%d backends", n)
	}
	if s := w.Status(make([]InterfaceInfo, 2)); s.Services != 1 || len(w.Services()) != 1 {
		t.Errorf("%+v", s)
	}
	close(release)
	wg.Wait()
}

// Everything at once, for the race detector.
func TestConcurrently(t *testing.T) {
	w := started(t, services(web, other))
	stop := w.loop()
	var wg sync.WaitGroup
	end := time.Now().Add(300 * time.Millisecond)
	often := func(do func(i int)) {
		wg.Go(func() {
			for i := 0; time.Now().Before(end); i++ {
				do(i)
			}
		})
	}
	often(func(i int) {
		w.inbox.put(healthUpdate(fmt.Sprint(1+i%5), i%3 > 0))
		time.Sleep(time.Millisecond / 10)
	})
	often(func(i int) {
		w.neigh.change(func() {
			f := w.neigh.facts["eth1"]
			f.Up, f.MAC = i%5 > 0, net.HardwareAddr{2, 0, 0, 0, 1, byte(i)}
			w.neigh.facts["eth1"] = f
		})
		time.Sleep(time.Millisecond)
	})
	often(func(int) { w.Status(make([]InterfaceInfo, 2)) })
	often(func(int) { w.Backends(); w.Services() })
	question, err := api.NewQuestion("tcp", "198.51.100.7:40000", "203.0.113.10:80")
	must(t, err)
	often(func(int) { w.Explain(question) })
	texts := []string{services(web), services(web, other), services(edit("nat", "dr"))}
	often(func(i int) {
		if err := w.Reload(t.Context(), parse(t, texts[i%3])); err != nil {
			t.Error(err)
		}
	})
	wg.Wait()
	stop()
	w.path.check()
}
