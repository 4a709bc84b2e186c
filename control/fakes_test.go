package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"xlvs/control/announce"
	"xlvs/control/config"
	"xlvs/control/flowlog"
	"xlvs/control/health"
	"xlvs/control/neigh"
	"xlvs/dataplane"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/memio"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/steer"
	"xlvs/dataplane/table"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fakeNeigh resolves every wanted address at once, by eth1, unless it is told otherwise.
type fakeNeigh struct {
	mu      sync.Mutex
	changed chan struct{}
	wants   map[netip.Addr]neigh.Want
	facts   map[string]neigh.Facts
	hops    map[netip.Addr]neigh.Hop
	errs    map[netip.Addr]error
	closed  bool
	order   *[]string
}

func newFakeNeigh(order *[]string) *fakeNeigh {
	f := &fakeNeigh{changed: make(chan struct{}, 1), facts: map[string]neigh.Facts{}, hops: map[netip.Addr]neigh.Hop{},
		errs: map[netip.Addr]error{}, order: order}
	for i, name := range []string{"eth0", "eth1"} {
		f.facts[name] = neigh.Facts{Name: name, Index: i + 2, MAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(i + 1)}, MTU: 1500, Up: true,
			Addrs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.%d.0.1/16", i))}}
	}
	return f
}

func (f *fakeNeigh) Set(wants []neigh.Want) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wants = map[netip.Addr]neigh.Want{}
	for _, w := range wants {
		f.wants[w.Addr] = w
	}
	*f.order = append(*f.order, "neigh")
}

func (f *fakeNeigh) Changed() <-chan struct{} { return f.changed }

func (f *fakeNeigh) Lookup(a netip.Addr) (neigh.Hop, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.wants[a]; !ok {
		return neigh.Hop{}, fmt.Errorf("%v is not among the wanted addresses", a)
	}
	if err := f.errs[a]; err != nil {
		return neigh.Hop{}, err
	}
	if h, ok := f.hops[a]; ok {
		return h, nil
	}
	out, ok := f.facts["eth1"]
	if !ok {
		return neigh.Hop{}, fmt.Errorf("no route to %v", a)
	}
	b := a.As16()
	return neigh.Hop{Ifindex: out.Index, Interface: out.Name, SrcMAC: out.MAC, DstMAC: net.HardwareAddr{2, 0, b[12], b[13], b[14], b[15]},
		Source: out.Addrs[0].Addr(), MTU: out.MTU}, nil
}

func (f *fakeNeigh) Locals() (out []netip.Addr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.facts {
		for _, p := range x.Addrs {
			out = append(out, p.Addr())
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

func (f *fakeNeigh) Interface(name string) (neigh.Facts, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x, ok := f.facts[name]
	return x, ok
}

func (f *fakeNeigh) Close() error {
	f.closed = true
	*f.order = append(*f.order, "neigh closed")
	return nil
}

// change does something to the fake and signals it.
func (f *fakeNeigh) change(do func()) {
	f.mu.Lock()
	do()
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// A fakeHealth knows what the test says.
type fakeHealth struct {
	mu      sync.Mutex
	targets map[string]health.Target
	status  map[string]health.Status
	order   *[]string
}

func (f *fakeHealth) Set(ts []health.Target) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.targets = map[string]health.Target{}
	for _, t := range ts {
		f.targets[t.ID] = t
	}
	for id := range f.status {
		if _, ok := f.targets[id]; !ok {
			delete(f.status, id)
		}
	}
	*f.order = append(*f.order, "health")
}

func (f *fakeHealth) Status(id string) (health.Status, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.targets[id]
	return f.status[id], ok
}

func (f *fakeHealth) Close() { *f.order = append(*f.order, "health closed") }

// ids returns the checks of an address.
func (f *fakeHealth) ids(addr string) (out []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, t := range f.targets {
		if t.Addr.String() == addr {
			out = append(out, id)
		}
	}
	slices.Sort(out)
	return out
}

// A fakeAnnouncer answers for every VIP on eth0.
type fakeAnnouncer struct {
	ifs   []announce.Interface
	vips  []netip.Addr
	err   error
	asked int
	order *[]string
}

func (f *fakeAnnouncer) Set(ifs []announce.Interface, vips []netip.Addr) error {
	f.asked++
	f.ifs, f.vips = ifs, vips
	return f.err
}

func (f *fakeAnnouncer) Status() []announce.Status {
	if f.err != nil {
		return []announce.Status{{Interface: "eth0", Skipped: f.err.Error()}}
	}
	return []announce.Status{{Interface: "eth0", VIPs: f.vips}}
}

func (f *fakeAnnouncer) Close() error { *f.order = append(*f.order, "announce closed"); return nil }

// A fakeDatapath checks at each Apply what must hold: workers know every service that frames are steered for.
type fakeDatapath struct {
	t       testing.TB
	engine  *dataplane.Engine
	mu      sync.Mutex
	rules   steer.Rules
	applied int
	fail    func(steer.Rules) error
	failMAC error
	macs    [2]net.HardwareAddr
}

func (f *fakeDatapath) Apply(r steer.Rules) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.applied++
	f.check() // what was published since the last time
	if f.fail != nil {
		if err := f.fail(r); err != nil {
			return err
		}
	}
	f.rules = r
	f.check()
	return nil
}

func (f *fakeDatapath) check() {
	f.t.Helper()
	s := f.engine.Snapshot()
	for _, k := range f.rules.Services {
		if s.Lookup(packet.FromNetip(k.Addr), k.Port, k.Proto) < 0 {
			f.t.Errorf("frames for %v port %d are steered to workers, which do not know it (generation %d)", k.Addr, k.Port, s.Generation)
		}
	}
	for _, k := range f.rules.Replies {
		if !s.Replies(packet.FromNetip(k.Addr), k.Port, k.Proto) {
			f.t.Errorf("replies of %v port %d are steered to workers, which do not know it (generation %d)", k.Addr, k.Port, s.Generation)
		}
	}
}

func (f *fakeDatapath) SetMAC(i int, mac net.HardwareAddr) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failMAC == nil {
		f.macs[i] = mac
	}
	return f.failMAC
}

// refuse makes SetMAC return err.
func (f *fakeDatapath) refuse(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failMAC = err
}

func (f *fakeDatapath) Steered(i int) (c steer.Counters, err error) {
	c[steer.Service] = uint64(7 + i)
	return c, nil
}

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
	must(t, w.start())
	return w
}

// loop runs the controller until the returned function is called.
func (w *world) loop() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run(ctx)
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
