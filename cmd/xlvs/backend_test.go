package main_test

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"xlvs/control/api"
	"xlvs/dataplane/table"
	"xlvs/testenv"
	"xlvs/testenv/demo"
)

// A process is a real server in a process of its own, instead of a server of the lab.
type process struct {
	lab  *testenv.Lab
	name string
	p    *testenv.Process
}

// start runs `xlvs serve` where the lab's server has its HTTP service, and waits until it answers.
func (p *process) start() error {
	s := p.lab.Server(p.name)
	if err := s.Stop(); err != nil {
		return err
	}
	port := testenv.HTTPPort
	if s.Mode == table.NAT {
		port = testenv.NATHTTPPort
	}
	cmd := s.Host.Command(context.Background(), program, "serve", "--listen", fmt.Sprintf("[::]:%d", port), "--name", p.name)
	var err error
	if p.p, err = s.Host.Start(cmd); err != nil {
		return err
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		c, err := s.Dial("tcp", netip.AddrPortFrom(s.Addr(false), uint16(port)).String())
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("xlvs serve as %s: %w", p.name, err)
		}
	}
}

func (p *process) kill() error {
	p.p.Kill()
	return nil
}

// TestBackendDies kills a server's process with SIGKILL under 200 requests a second and starts it again, in each mode.
func TestBackendDies(t *testing.T) {
	victims := map[string]*process{}
	w := start(t, setup{
		config: testenv.ConfigOptions{LogFlows: true, Interval: 200 * time.Millisecond},
		prepare: func(l *testenv.Lab) error {
			for _, name := range []string{"dr1", "tun2", "nat3"} {
				victims[name] = &process{lab: l, name: name}
				if err := victims[name].start(); err != nil {
					return err
				}
			}
			return nil
		},
	})
	for _, c := range []struct{ service, victim string }{{"web-dr-v4", "dr1"}, {"web-tun-v6", "tun2"}, {"web-nat-v4", "nat3"}} {
		t.Run(c.victim, func(t *testing.T) {
			d := &demo.Drill{
				Lab: w.Lab, Director: w.dir, Service: service(t, w.Lab, c.service), Victim: c.victim,
				Kill: victims[c.victim].kill, Revive: victims[c.victim].start,
				Lull: 600 * time.Millisecond, Say: t.Logf,
			}
			k, err := d.Run(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range k.Faults() {
				t.Error(f)
			}
			if k.FailedAtDead == 0 || k.ServedByDead == 0 || k.Requests < 100 || k.SlotsMoved < k.Slots/3 || k.SlotsMoved != k.SlotsMovedBack {
				t.Errorf("the drill did not do what it should: %+v", k)
			}
		})
	}
}

func service(t *testing.T, l *testenv.Lab, name string) testenv.Service {
	t.Helper()
	for _, s := range l.Services() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("the lab has no service %s", name)
	return testenv.Service{}
}

// TestHealthFlaps stops and starts a server again and again. Each time the same slots move, and come back.
func TestHealthFlaps(t *testing.T) {
	w := start(t, setup{
		lab:    testenv.Options{Modes: []table.Mode{table.DR}},
		config: testenv.ConfigOptions{Interval: 50 * time.Millisecond, TableSize: 4099},
	})
	s := w.Server("dr2")
	stop := keepAsking(t, w, w.VIP(table.DR, true), "dr2")
	of := func(event string) func(demo.Event) bool {
		return func(e demo.Event) bool {
			return e.Event == event && e.Service == "web-dr-v6" && (e.Backend == "dr2" || e.Backend == "")
		}
	}
	before, _ := w.dir.API.Backends(t.Context())
	downs, ups := w.count(t, of("backend.down")), w.count(t, of("backend.up"))
	const flaps = 5
	for i := range flaps {
		if err := s.Stop(); err != nil {
			t.Fatal(err)
		}
		until(t, "dr2 is seen down", func() bool { return w.count(t, of("backend.down")) == downs+i+1 })
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		until(t, "dr2 is seen up", func() bool { return w.count(t, of("backend.up")) == ups+i+1 })
	}
	stop()
	events, err := w.dir.Events()
	if err != nil {
		t.Fatal(err)
	}
	var moved []int
	for _, e := range events {
		if of("table.published")(e) {
			moved = append(moved, e.SlotsMoved)
		}
	}
	moved = moved[max(0, len(moved)-2*flaps):]
	for _, n := range moved {
		if n != moved[0] || n == 0 || len(moved) != 2*flaps {
			t.Fatalf("slots moved by each flap, down and up: %v", moved)
		}
	}
	var after []api.Backend
	until(t, "it is up in every service", func() bool { // the other family has a check of its own
		after, err = w.dir.API.Backends(t.Context())
		return err != nil || !slices.ContainsFunc(after, func(b api.Backend) bool { return !b.Up })
	})
	if err != nil || len(after) != len(before) {
		t.Fatalf("%d backends instead of %d, %v", len(after), len(before), err)
	}
	for i := range after {
		if after[i].Slots != before[i].Slots || !after[i].Up {
			t.Errorf("%s of %s: %d slots, up %t; before %d", after[i].Name, after[i].Service, after[i].Slots, after[i].Up, before[i].Slots)
		}
	}
}

// keepAsking sends requests on connections to the other backends until the returned function is called. None may fail.
func keepAsking(t *testing.T, w *world, vip netip.Addr, except string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	asking := 0
	for range 12 {
		c := w.Client.HTTPClient(testenv.HTTPOptions{KeepAlive: true})
		backend, err := ask(c, vip)
		if err != nil {
			t.Fatal(err)
		}
		if backend == except {
			continue
		}
		asking++
		wg.Go(func() {
			for ctx.Err() == nil {
				if now, err := ask(c, vip); err != nil || now != backend {
					t.Errorf("a connection to %s was answered by %q, %v", backend, now, err)
					return
				}
				time.Sleep(5 * time.Millisecond)
			}
			if n := c.Counts().Connections; n != 1 {
				t.Errorf("a connection to %s had to be opened %d times", backend, n)
			}
		})
	}
	if asking == 0 {
		t.Fatalf("all connections went to %s", except)
	}
	return func() { cancel(); wg.Wait() }
}

// ask gets the server's name.
func ask(c *testenv.HTTPClient, vip netip.Addr) (backend string, err error) {
	resp, err := c.Get(url(vip, "/"))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.Header.Get(testenv.BackendHeader), err
}
