package main_test

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"xlvs/control/api"
	"xlvs/dataplane/table"
	"xlvs/testenv"
	"xlvs/testenv/demo"
)

// TestLinkGoesDownAndUp takes an interface of the director down and up again while clients ask all the time. The kernel has its
// defaults, and nobody gives anything back: the director sees to what is on the interface's own segment, IPv6 included. The routes by
// a gateway that are gone it does not need; behind eth1, TUN servers are reached by the default route instead.
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
			up := time.Now()
			came := w.await(t, "the link is up", func(e demo.Event) bool { return e.Event == "link.up" })
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
			// Each server's address is lost once, or not at all where another route leads to it, and told of once more if it is still
			// lost a while after the link came up.
			lost := w.count(t, func(e demo.Event) bool { return e.Event == "neighbour.lost" })
			if most := 2 * 2 * len(w.Servers); lost > most || lost == 0 && w.Router == nil {
				t.Errorf("neighbour.lost was logged %d times, want at most %d", lost, most)
			}
			if w.Router == nil && w.count(t, func(e demo.Event) bool {
				return e.Event == "neighbour.lost" && e.Time.Before(came.Time) && !strings.Contains(e.Reason, "eth0, which is down")
			}) > 0 {
				t.Error("while the link was down, neighbour.lost was logged with another reason")
			}
			select {
			case <-w.dir.Process.Done():
				t.Error("the director has ended")
			default:
			}
		})
	}
}

// TestInterfaceMadeAnew deletes an interface of the director's and makes another of the same name, which takes a new start.
func TestInterfaceMadeAnew(t *testing.T) {
	w := start(t, setup{lab: testenv.Options{Servers: 1, Layout: testenv.Routed, Modes: []table.Mode{table.DR}}, warnings: true})
	w.answers(t)
	port, err := w.Switch.Netlink().LinkByName("director-1")
	fatal(t, err)
	bridge, err := w.Switch.Netlink().LinkByIndex(port.Attrs().MasterIndex)
	fatal(t, err)
	eth1, err := w.Director.Netlink().LinkByName("eth1")
	fatal(t, err)
	fatal(t, w.Director.Netlink().LinkDel(eth1))
	w.await(t, "the link is down", func(e demo.Event) bool { return e.Event == "link.down" })
	select {
	case <-w.dir.Process.Done():
		t.Fatal("the director does not wait for its interface")
	default:
	}
	fatal(t, w.Plug(w.Director, "eth1", bridge.Attrs().Name, "director-1", testenv.LinkOptions{}))
	until(t, "the director has ended", func() bool {
		select {
		case <-w.dir.Process.Done():
			return true
		default:
			return false
		}
	})
	const why = "eth1 was removed and made anew"
	if st := w.dir.Process.Cmd.ProcessState.ExitCode(); st != 1 || !strings.Contains(w.dir.Output(), why) {
		t.Errorf("the director ended with status %d and said %q", st, w.dir.Output())
	}
	w.await(t, "the log says why", func(e demo.Event) bool { return e.Event == "director.stop" && strings.Contains(e.Reason, why) })
	eth0, err := w.Director.Netlink().LinkByName("eth0")
	fatal(t, err)
	if x := eth0.Attrs().Xdp; x != nil && x.Attached {
		t.Errorf("the steering program is still on eth0: %+v", x)
	}
	if _, err := os.Lstat(w.api()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the API's socket: %v, want it to be gone", err)
	}
}

// TestServerChangesItsMAC gives a server another MAC address that it tells nobody of, while the kernel believes the old one for an hour.
func TestServerChangesItsMAC(t *testing.T) {
	w := start(t, setup{
		lab:    testenv.Options{Servers: 1, Modes: []table.Mode{table.DR}},
		config: testenv.ConfigOptions{Interval: 100 * time.Millisecond},
		prepare: func(l *testenv.Lab) error {
			return l.Director.Sysctl(map[string]string{
				"net.ipv4.neigh.eth0.base_reachable_time_ms": "3600000", "net.ipv6.neigh.eth0.base_reachable_time_ms": "3600000",
			})
		},
	})
	w.answers(t)
	s := w.Server("dr1")
	eth0, err := s.Netlink().LinkByName("eth0")
	fatal(t, err)
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 0x77}
	fatal(t, s.Netlink().LinkSetHardwareAddr(eth0, mac))
	until(t, "the director knows the new MAC address of every backend, and they are up", func() bool {
		all, err := w.dir.API.Backends(t.Context())
		return err == nil && !slices.ContainsFunc(all, func(b api.Backend) bool { return !b.Up || b.NextHop != mac.String() })
	})
	w.answers(t)
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
