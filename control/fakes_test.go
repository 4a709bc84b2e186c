package control

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"xlvs/control/announce"
	"xlvs/control/health"
	"xlvs/control/neigh"
	"xlvs/dataplane"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/steer"
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
	keeps   []string // interfaces that were to keep their addresses
	keepErr error
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

func (f *fakeNeigh) VLANs() (out []neigh.Facts) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.facts {
		if x.VLAN.Parent != 0 {
			out = append(out, x)
		}
	}
	slices.SortFunc(out, func(a, b neigh.Facts) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (f *fakeNeigh) KeepAddresses(name string) (*neigh.Setting, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.keeps = append(f.keeps, name)
	if f.keepErr != nil {
		return nil, f.keepErr
	}
	return &neigh.Setting{Name: "net/ipv6/conf/" + name + "/keep_addr_on_down", Is: 1}, nil
}

func (f *fakeNeigh) Doubt(netip.Addr) {}

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
	cuts    []string
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

// Cut notes who is cut off, and in which order who no longer is.
func (f *fakeHealth) Cut(id string, cut bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cuts = append(f.cuts, fmt.Sprintf("%v %t", f.targets[id].Addr, cut))
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
	shed    [2]atomic.Uint64
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
	c[steer.Service], c[steer.Shed] = uint64(7+i), f.shed[i].Load()
	return c, nil
}
