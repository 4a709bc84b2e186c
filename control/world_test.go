package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"xlvs/control/config"
	"xlvs/control/flowlog"
	"xlvs/control/health"
	"xlvs/dataplane"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/memio"
	"xlvs/dataplane/table"
)

// A world is a controller among fakes. What it logs goes to a file.
type world struct {
	*Controller
	t     testing.TB
	neigh *fakeNeigh
	check *fakeHealth
	ann   *fakeAnnouncer
	path  *fakeDatapath
	order []string // of calls whose order matters
	port  *memio.Port
	ended error // what the loop returned
	file  string
}

const head = "interfaces: [{name: eth0}, {name: eth1}]\n"

func parse(t testing.TB, text string) *config.Config {
	t.Helper()
	conf, err := config.Parse("test.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return conf
}

func newWorld(t testing.TB, text string) *world {
	t.Helper()
	w := &world{t: t, file: filepath.Join(t.TempDir(), "log")}
	log, err := flowlog.New(flowlog.Options{Output: w.file, FlowSample: 1})
	must(t, err)
	mem, err := dataplane.NewMemory(make([]byte, 64*2048), 2048)
	must(t, err)
	w.port = memio.New(mem)
	ports := []dataplane.Port{w.port, memio.New(mem)}
	engine, err := dataplane.New(dataplane.Options{Flows: 1024, Seed: "test", FlowSample: 1, EventRing: 1024,
		Workers: []dataplane.WorkerOptions{{CPU: -1, Memory: mem, Ports: ports}}})
	must(t, err)
	w.neigh, w.check, w.ann = newFakeNeigh(&w.order), &fakeHealth{status: map[string]health.Status{}, order: &w.order}, &fakeAnnouncer{order: &w.order}
	w.path = &fakeDatapath{t: t, engine: engine}
	w.Controller = newController(Options{Config: parse(t, text), File: "test.yaml", Version: "v0", Engine: engine, Datapath: w.path, Log: log})
	w.parts = parts{neigh: w.neigh, health: w.check, announce: w.ann}
	t.Cleanup(func() {
		must(t, w.Close())
		must(t, engine.Close())
		must(t, log.Close())
	})
	return w
}

func started(t testing.TB, text string) *world {
	t.Helper()
	w := newWorld(t, text)
	w.attached = true // fakes need no steering program
	must(t, w.start())
	return w
}

// loop runs the controller until the returned function is called.
func (w *world) loop() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.ended = w.Run(ctx)
	}()
	return func() { cancel(); <-done }
}

// result is what a check of addr finds. Without the loop running, it is acted on at once.
func (w *world) result(up bool, addrs ...string) {
	w.t.Helper()
	for _, addr := range addrs {
		ids := w.check.ids(addr)
		if len(ids) == 0 {
			w.t.Fatalf("nobody checks %s", addr)
		}
		for _, id := range ids {
			u := health.Update{ID: id, Up: up, At: time.Now(), Reason: fmt.Sprint("found so: up ", up)}
			w.check.mu.Lock()
			w.check.status[id] = health.Status{Update: u, Known: true}
			w.check.mu.Unlock()
			w.inbox.put(u)
		}
	}
}

// settle acts on what came in, as the loop does.
func (w *world) settle() {
	w.takeResults(w.inbox.take())
	w.reconcile()
}

// A line is a line of the log.
type line map[string]any

func (w *world) lines(event string) (out []line) {
	w.t.Helper()
	f, err := os.Open(w.file)
	must(w.t, err)
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		var l line
		must(w.t, json.Unmarshal(sc.Bytes(), &l))
		if event == "" || l["event"] == event {
			out = append(out, l)
		}
	}
	return out
}

// said returns the events since the mark, one word each with the values of keys.
func said(lines []line, keys ...string) (out []string) {
	for _, l := range lines {
		words := []string{fmt.Sprint(l["event"])}
		for _, k := range keys {
			if v, ok := l[k]; ok {
				words = append(words, fmt.Sprint(v))
			}
		}
		out = append(out, strings.Join(words, " "))
	}
	return out
}

// backend returns the entry that workers have of a backend, by the service's and its own name.
func (w *world) entry(service, name string) (table.Service, table.Backend) {
	w.t.Helper()
	s := w.engine.Snapshot()
	for _, v := range s.Services {
		if !v.Live || v.Name != service {
			continue
		}
		for _, b := range s.Backends {
			if b.Live && b.Service == v.Ref && b.Name == name {
				return v, b
			}
		}
		if name == "" {
			return v, table.Backend{}
		}
	}
	w.t.Fatalf("workers know no backend %s of %s", name, service)
	return table.Service{}, table.Backend{}
}

// takes returns the names of the backends that new flows of a service go to.
func (w *world) takes(service string) (names []string) {
	w.t.Helper()
	v, _ := w.entry(service, "")
	for _, m := range v.Members {
		names = append(names, w.engine.Snapshot().Backend(m).Name)
	}
	return names
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var errRefused = errors.New("refused by the test")

func healthUpdate(id string, up bool) health.Update {
	return health.Update{ID: id, Up: up, At: time.Now(), Reason: "by the test"}
}

// traffic sends n SYNs to the service web, each from another port from the first on.
func (w *world) traffic(first, n int) {
	w.t.Helper()
	for i := range n {
		syn := frametest.Spec{DstMAC: [6]byte{2, 0, 0, 0, 0, 1}, SrcMAC: [6]byte{2, 0, 0, 0, 0, 0xcc}, Flags: frametest.SYN,
			Src: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), uint16(first+i)), Dst: netip.MustParseAddrPort("203.0.113.10:80")}
		if !w.port.Inject(syn.Build()) {
			w.t.Fatal("no room for a frame")
		}
		w.step()
	}
}

// step lets the worker poll once.
func (w *world) step() { w.engine.Step(0, w.engine.Now()) }
