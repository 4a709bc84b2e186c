package neigh

import (
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink"
)

// A fakeKernel has one interface, eth0, with a neighbour table that changes only by the test's hand.
type fakeKernel struct {
	mu       sync.Mutex
	links    []Facts
	table    map[neighKey]neighbour
	events   chan event
	uses     map[neighKey][]time.Time
	verifies map[neighKey][]time.Time
	removed  []neighKey
	routes   int
	subs     int
	refuse   error // what subscribe and listings fail with
	closed   bool
	settings map[string]int
	readOnly bool // settings cannot be written
}

func newFake() *fakeKernel {
	return &fakeKernel{
		links: []Facts{{Name: "eth0", Index: 2, MAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, MTU: 1500, Up: true,
			Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}}},
		settings: map[string]int{}, table: map[neighKey]neighbour{}, uses: map[neighKey][]time.Time{}, verifies: map[neighKey][]time.Time{},
	}
}

func (k *fakeKernel) interfaces() ([]Facts, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]Facts(nil), k.links...), k.refuse
}

func (k *fakeKernel) route(netip.Addr) (route, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.routes++
	return route{ifindex: 2, source: addr("10.0.0.1")}, nil
}

func (k *fakeKernel) neighbours() (out []neighbour, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, n := range k.table {
		out = append(out, n)
	}
	return out, k.refuse
}

func (k *fakeKernel) use(key neighKey) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.uses[key] = append(k.uses[key], time.Now())
	return nil
}

func (k *fakeKernel) verify(n neighbour) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.verifies[n.key] = append(k.verifies[n.key], time.Now())
	return nil
}

func (k *fakeKernel) remove(key neighKey) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.removed = append(k.removed, key)
	return nil
}

func (k *fakeKernel) setting(name string) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v, ok := k.settings[name]
	if !ok {
		return 0, fs.ErrNotExist
	}
	return v, nil
}

func (k *fakeKernel) set(name string, value int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.readOnly {
		return fs.ErrPermission
	}
	k.settings[name] = value
	return nil
}

func (k *fakeKernel) subscribe() (<-chan event, func(), error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.refuse != nil {
		return nil, nil, k.refuse
	}
	k.subs++
	k.events = make(chan event, 16)
	return k.events, func() {}, nil
}

func (k *fakeKernel) close() { k.do(func() { k.closed = true }) }

func (k *fakeKernel) do(f func()) { k.mu.Lock(); f(); k.mu.Unlock() }

// put changes the table; told says whether the resolver hears of it.
func (k *fakeKernel) put(a string, state int, mac net.HardwareAddr, told bool) {
	n := neighbour{key: neighKey{2, addr(a)}, mac: mac, state: state}
	k.do(func() { k.table[n.key] = n })
	if told {
		k.events <- event{neigh: &n}
	}
}

func startFake(t *testing.T, k *fakeKernel, o Options) *Resolver {
	t.Helper()
	r := newResolver(o, k)
	must(t, r.start())
	return r
}

func signalled(r *Resolver) bool {
	synctest.Wait()
	select {
	case <-r.Changed():
		return true
	default:
		return false
	}
}

func TestLostSubscription(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newFake()
		var warned []error
		r := startFake(t, k, Options{Warn: func(err error) { warned = append(warned, err) }})
		k.put("10.0.0.9", netlink.NUD_REACHABLE, mac9, true)
		r.Set(want("10.0.0.9"))
		synctest.Wait()
		if _, err := r.Lookup(addr("10.0.0.9")); err != nil {
			t.Fatal(err)
		}
		signalled(r)

		// The stream breaks, a change is lost meanwhile, and for some time subscribing fails.
		k.do(func() { k.refuse = errors.New("no buffer space available") })
		close(k.events)
		k.put("10.0.0.9", netlink.NUD_FAILED, nil, false)
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if len(warned) != 2 {
			t.Errorf("warnings %v, want that it broke and, once, that it cannot be had again", warned)
		}
		k.do(func() { k.refuse = nil })
		time.Sleep(time.Second)
		if !signalled(r) {
			t.Error("no signal after the resync")
		}
		if _, err := r.Lookup(addr("10.0.0.9")); err == nil {
			t.Error("the lost change was not noticed")
		}
		k.put("10.0.0.9", netlink.NUD_REACHABLE, mac9, true)
		synctest.Wait()
		if _, err := r.Lookup(addr("10.0.0.9")); err != nil {
			t.Errorf("the new subscription is not heard: %v", err)
		}
		must(t, r.Close())
		if !k.closed || k.subs != 2 {
			t.Errorf("closed %v, %d subscriptions", k.closed, k.subs)
		}
	})
}

func TestResyncFindsWhatNobodyTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newFake()
		r := startFake(t, k, Options{Resync: 30 * time.Second})
		k.put("10.0.0.9", netlink.NUD_REACHABLE, mac9, true)
		r.Set(want("10.0.0.9"))
		synctest.Wait()
		k.put("10.0.0.9", netlink.NUD_REACHABLE, net.HardwareAddr{2, 0, 0, 0, 0, 8}, false)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if h, err := r.Lookup(addr("10.0.0.9")); err != nil || h.DstMAC[5] != 8 {
			t.Errorf("%+v, %v", h, err)
		}
		r.Close()
	})
}

func TestProbing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newFake()
		r := startFake(t, k, Options{Reprobe: 5 * time.Second, Retry: 500 * time.Millisecond})
		k.put("10.0.0.2", netlink.NUD_STALE, mac9, true)
		k.put("10.0.0.3", netlink.NUD_INCOMPLETE, nil, true)
		k.put("10.0.0.4", netlink.NUD_PERMANENT, mac9, true)
		k.put("10.0.0.5", netlink.NUD_FAILED, nil, true)
		synctest.Wait()
		r.Set(append(want("10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"), Want{addr("10.0.0.7"), mac9}))
		time.Sleep(20100 * time.Millisecond)
		synctest.Wait()
		for a, n := range map[string][2]int{ // uses, verifies
			"10.0.0.2": {0, 5}, "10.0.0.3": {0, 0}, "10.0.0.4": {0, 0}, "10.0.0.5": {41, 0}, "10.0.0.6": {41, 0}, "10.0.0.7": {0, 0},
		} {
			key := neighKey{2, addr(a)}
			if u, v := len(k.uses[key]), len(k.verifies[key]); abs(u-n[0]) > 1 || abs(v-n[1]) > 1 || (n[0] == 0) != (u == 0) || (n[1] == 0) != (v == 0) {
				t.Errorf("%s in 20 s: used %d times, verified %d times; want %v", a, u, v, n)
			}
		}
		must(t, r.Close())
		// Only 10.0.0.6 was not there before.
		if len(k.removed) != 1 || k.removed[0].addr != addr("10.0.0.6") {
			t.Errorf("removed %v", k.removed)
		}
	})
}

func abs(n int) int { return max(n, -n) }

func TestAgeingIsNoChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newFake()
		r := startFake(t, k, Options{})
		k.put("10.0.0.9", netlink.NUD_REACHABLE, mac9, true)
		synctest.Wait() // else the address may be asked for before it is known to be there
		r.Set(want("10.0.0.9"))
		time.Sleep(time.Second)
		signalled(r)
		for _, state := range []int{netlink.NUD_STALE, netlink.NUD_PROBE, netlink.NUD_REACHABLE, netlink.NUD_DELAY} {
			k.put("10.0.0.9", state, mac9, true)
			if signalled(r) {
				t.Errorf("state %#x was signalled as a change", state)
			}
		}
		if n := len(k.verifies[neighKey{2, addr("10.0.0.9")}]); n != 1 {
			t.Errorf("verified %d times, want once, as soon as it was stale", n)
		}
		k.put("10.0.0.9", netlink.NUD_REACHABLE, net.HardwareAddr{2, 0, 0, 0, 0, 8}, true)
		if !signalled(r) {
			t.Error("another MAC gave no signal")
		}
		r.Close()
	})
}

func TestRouteFloodIsCoalesced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newFake()
		r := startFake(t, k, Options{})
		r.Set(want("10.0.0.9"))
		time.Sleep(time.Second)
		synctest.Wait()
		before := k.routes
		for range 10000 {
			k.events <- event{refresh: true}
			time.Sleep(100 * time.Microsecond)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if n := k.routes - before; n < 5 || n > 12 {
			t.Errorf("%d lookups for a second of route changes, want about one each 100 ms", n)
		}
		r.Close()
	})
}

func TestFlapTooShortToSee(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newFake()
		r := startFake(t, k, Options{})
		before, _ := r.Interface("eth0")
		k.events <- event{refresh: true, ifindex: 2, running: false}
		k.events <- event{refresh: true, ifindex: 2, running: true}
		time.Sleep(time.Second)
		if f, _ := r.Interface("eth0"); f.Ups != before.Ups+1 || !f.Up {
			t.Errorf("%+v, before %+v", f, before)
		}
		if !signalled(r) {
			t.Error("the flap gave no signal")
		}
		r.Close()
	})
}

func TestStartFails(t *testing.T) {
	k := newFake()
	k.refuse = errors.New("permission denied")
	if err := newResolver(Options{}, k).start(); err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Errorf("error %v", err)
	}
}
