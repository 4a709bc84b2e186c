package control

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"xlvs/control/neigh"
)

func quiet() { time.Sleep(3 * time.Second); synctest.Wait() }

// Where an interface has static IPv6 addresses, the kernel is to keep them; if it will not, that is said at the start and
// whenever the link has come up.
func TestKeepAddresses(t *testing.T) {
	bubble(t, plain, func(w *world) {
		if len(w.neigh.keeps) != 0 {
			t.Errorf("without static IPv6 addresses: %v", w.neigh.keeps)
		}
		w.facts1(func(f *neigh.Facts) { f.Static6 = true })
		quiet()
		w.neigh.change(func() {})
		quiet()
		if l := said(w.lines("setting.changed"), "setting", "was", "value"); !slices.Equal(w.neigh.keeps, []string{"eth1"}) ||
			!slices.Equal(l, []string{"setting.changed net/ipv6/conf/eth1/keep_addr_on_down 0 1"}) {
			t.Errorf("asked for %v, logged %v", w.neigh.keeps, l)
		}

		w.neigh.change(func() { w.neigh.keepErr = errRefused })
		down, up := func(f *neigh.Facts) { f.Up, f.Static6 = false, false }, func(f *neigh.Facts) { f.Up, f.Static6, f.Ups = true, true, f.Ups+1 }
		for n := range 2 {
			w.facts1(down)
			quiet()
			w.facts1(up)
			quiet()
			w.neigh.change(func() {})
			quiet()
			if l := said(w.lines("control.warning"), "error"); len(l) != n+1 || l[n] != "control.warning "+errRefused.Error() {
				t.Errorf("link up for the %d. time: warnings %v", n+1, l)
			}
		}
	})
}

// A backend that this host cannot reach by its own fault is cut off until it is resolved, and the log says why it is.
func TestCutOff(t *testing.T) {
	bubble(t, two, func(w *world) {
		w.result(true, "10.1.0.1:80", "10.1.0.2:80")
		quiet()
		a := netip.MustParseAddr("10.1.0.1")
		fail := func(err error) { w.neigh.change(func() { w.neigh.errs[a] = err }); quiet() }
		expect := func(what string, want ...string) {
			t.Helper()
			w.check.mu.Lock()
			defer w.check.mu.Unlock()
			if !slices.Equal(w.check.cuts, want) {
				t.Errorf("%s: %v, want %v", what, w.check.cuts, want)
			}
		}
		fail(errors.New("no answer to ARP yet"))
		expect("a backend that does not answer")
		fail(nil)
		link := func(up bool, err error) {
			w.neigh.change(func() {
				f := w.neigh.facts["eth1"]
				if f.Up = up; up {
					f.Ups++
				}
				w.neigh.facts["eth1"], w.neigh.errs[a] = f, err
			})
			quiet()
		}
		mark := len(w.lines(""))
		link(false, fmt.Errorf("a is on eth1, which is down%w", hidden{neigh.ErrCut}))
		expect("the link is down", "10.1.0.1:80 true")
		w.result(false, "10.1.0.1:80")
		quiet()
		if got := said(w.lines("backend.down"), "reason"); !slices.Equal(got, []string{"backend.down a is on eth1, which is down"}) {
			t.Errorf("a check that cannot reach its backend: %v", got)
		}
		w.result(true, "10.1.0.1:80")
		quiet()
		link(true, errors.New("no answer to ARP yet"))
		expect("the link is up, the backend not yet found", "10.1.0.1:80 true")
		fail(nil)
		expect("the backend is found", "10.1.0.1:80 true", "10.1.0.1:80 false")
		want := []string{"link.down it is set down or has no carrier", "neighbour.lost a is on eth1, which is down",
			"backend.down a is on eth1, which is down", "table.published", "backend.up found so: up true", "table.published", "link.up", "neighbour.lost no answer to ARP yet", "neighbour.resolved"}
		if got := said(w.lines("")[mark:], "reason"); !slices.Equal(got, want) {
			t.Errorf("logged %q, want %q", got, want)
		}
		// What a reload takes away is not cut off any more.
		fail(fmt.Errorf("cut off: %w", neigh.ErrCut))
		must(t, w.Reload(w.t.Context(), parse(t, strings.Replace(two, "{name: a, address: 10.1.0.1}, ", "", 1))))
		if len(w.cut) != 0 {
			t.Errorf("cut off: %v", w.cut)
		}
	})
}

// A hidden error is there for errors.Is alone.
type hidden struct{ error }

func (hidden) Error() string   { return "" }
func (h hidden) Unwrap() error { return h.error }

// Nobody is told of a virtual address over a link that is down.
func TestNotAnnouncedWhileDown(t *testing.T) {
	w := newWorld(t, plain)
	f := w.neigh.facts["eth0"]
	f.Up = false
	w.neigh.facts["eth0"] = f
	w.attached = true
	must(t, w.start())
	if l := w.lines("vip.announced"); len(l) != 0 || len(w.ann.vips) != 1 {
		t.Errorf("the link is down; logged %v, asked for %v", l, w.ann.vips)
	}
	for range 2 { // the second time nothing is new
		f.Up, f.Ups = true, f.Ups+1
		w.neigh.facts["eth0"] = f
		w.reconcile()
		if l := w.lines("vip.announced"); len(l) != 1 {
			t.Errorf("the link is up; logged %v", l)
		}
		f.Up = false
		w.neigh.facts["eth0"] = f
		w.reconcile()
	}
}

func TestMTUTooLarge(t *testing.T) {
	w := newWorld(t, plain)
	w.opt.MaxMTU = 1770
	must(t, w.start())
	set := func(mtu int) {
		f := w.neigh.facts["eth1"]
		f.MTU = mtu
		w.neigh.facts["eth1"] = f
		w.reconcile()
	}
	warnings := func() []string { return said(w.lines("control.warning"), "error") }
	if set(1770); len(warnings()) != 0 {
		t.Errorf("an MTU that fits: %v", warnings())
	}
	set(1771)
	set(1771)
	if l := warnings(); len(l) != 1 || !strings.Contains(l[0], "eth1 has an MTU of 1771") || !strings.Contains(l[0], "ip link set eth1 mtu 1770") {
		t.Errorf("one that does not: %v", l)
	}
	set(1500)
	if set(9000); len(warnings()) != 2 {
		t.Errorf("once more: %v", warnings())
	}
}
