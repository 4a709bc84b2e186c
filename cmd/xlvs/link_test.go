package main_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"xlvs/control/api"
	"xlvs/dataplane/table"
	"xlvs/testenv"
	"xlvs/testenv/demo"
)

// TestLinkGoesDownAndUp takes an interface of the director down and up again while clients ask all the time.
func TestLinkGoesDownAndUp(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name, ifname string
		lab          testenv.Options
	}{
		{"switched", "eth0", testenv.Options{Servers: 2}},
		{"client side", "eth0", testenv.Options{Servers: 2, Layout: testenv.Routed}},
		{"server side", "eth1", testenv.Options{Servers: 2, Layout: testenv.Routed, Queues: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t, setup{lab: c.lab, config: testenv.ConfigOptions{Interval: 100 * time.Millisecond}, warnings: true})
			load := loadAll(t, w)
			until(t, "every row is served under load", load.allServed())
			fatal(t, w.Director.SetLink(c.ifname, false))
			w.await(t, "the link is down", func(e demo.Event) bool { return e.Event == "link.down" })
			load.failures.Store(0)
			until(t, "requests fail", func() bool { return load.failures.Load() > 10 })
			fatal(t, w.Director.SetLink(c.ifname, true))
			fatal(t, w.RestoreRoutes())
			up := time.Now()
			w.await(t, "the link is up", func(e demo.Event) bool { return e.Event == "link.up" })
			until(t, "every row is served again", load.allServed())
			t.Logf("all rows were served again %v after the link came up", time.Since(up).Round(time.Millisecond))
			load.stop()
			until(t, "every backend is up and resolved", func() bool {
				all, err := w.dir.API.Backends(t.Context())
				return err == nil && !slices.ContainsFunc(all, func(b api.Backend) bool { return !b.Up || b.Unreached != "" })
			})
			eachRow(t, w, func(t *testing.T, m table.Mode, v6 bool) {
				transfer(t, w, w.VIP(m, v6))
				parallel(t, w, m, w.VIP(m, v6))
			})
			// Each server's address is lost a few times, for another reason each time.
			lost := w.count(t, func(e demo.Event) bool { return e.Event == "neighbour.lost" })
			if most := 10 * 2 * len(w.Servers); lost == 0 && c.ifname != "eth0" || lost > most {
				t.Errorf("neighbour.lost was logged %d times, want at most %d", lost, most)
			}
			select {
			case <-w.dir.Process.Done():
				t.Error("the director has ended")
			default:
			}
		})
	}
}

// A loader asks every row all the time, each time on a new connection.
type loader struct {
	served   []atomic.Uint64 // by row
	failures atomic.Uint64
	done     chan struct{}
	wg       sync.WaitGroup
	once     sync.Once
}

func loadAll(t *testing.T, w *world) *loader {
	t.Helper()
	l := &loader{served: make([]atomic.Uint64, 2*len(w.Options.Modes)), done: make(chan struct{})}
	for i := range l.served {
		vip := w.VIP(w.Options.Modes[i/2], i%2 == 1)
		for range 2 {
			c := w.Client.HTTPClient(testenv.HTTPOptions{Timeout: 300 * time.Millisecond})
			l.wg.Go(func() {
				for {
					select {
					case <-l.done:
						return
					case <-time.After(2 * time.Millisecond):
					}
					if _, err := ask(c, vip); err != nil {
						l.failures.Add(1)
					} else {
						l.served[i].Add(1)
					}
				}
			})
		}
	}
	t.Cleanup(l.stop)
	return l
}

// allServed returns a condition: that every row has been served more often than now.
func (l *loader) allServed() func() bool {
	before := make([]uint64, len(l.served))
	for i := range l.served {
		before[i] = l.served[i].Load()
	}
	return func() bool {
		for i := range l.served {
			if l.served[i].Load() < before[i]+10 {
				return false
			}
		}
		return true
	}
}

func (l *loader) stop() {
	l.once.Do(func() { close(l.done) })
	l.wg.Wait()
}
