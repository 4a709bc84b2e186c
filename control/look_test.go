package control

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"xlvs/control/neigh"
	"xlvs/dataplane/table"
)

func (w *world) facts1(do func(*neigh.Facts)) {
	w.neigh.change(func() {
		f := w.neigh.facts["eth1"]
		do(&f)
		w.neigh.facts["eth1"] = f
	})
}

func TestInterfaceGoesAndComes(t *testing.T) {
	bubble(t, plain, func(w *world) {
		wait := func() { time.Sleep(time.Second); synctest.Wait() }
		events := func() []string {
			return said(slices.Concat(w.lines("link.down"), w.lines("link.up"), w.lines("control.warning")), "interface", "error")
		}
		gone := w.neigh.facts["eth1"]
		w.neigh.change(func() { delete(w.neigh.facts, "eth1") })
		wait()
		w.neigh.change(func() {})
		wait()
		if got := events(); !slices.Equal(got, []string{"link.down eth1"}) {
			t.Errorf("gone: %v", got)
		}
		if p := w.engine.Snapshot().Ports; len(p) != 2 || p[1].Name != "eth1" {
			t.Errorf("ports %v", p)
		}
		w.neigh.change(func() { w.neigh.facts["eth1"] = gone })
		wait()
		if got := events(); !slices.Equal(got, []string{"link.down eth1", "link.up eth1"}) {
			t.Errorf("back: %v", got)
		}
		// One of the same name is not the same: sockets and program are gone.
		w.facts1(func(f *neigh.Facts) { f.Index = 9 })
		wait()
		select {
		case <-w.Controller.ended:
		default:
			t.Fatal("the loop goes on without its interface")
		}
		if w.ended == nil || !strings.Contains(w.ended.Error(), "eth1 was removed and made anew") || !strings.Contains(w.ended.Error(), "start the director again") {
			t.Errorf("the loop ended with %v", w.ended)
		}
		if got := events(); !slices.Equal(got, []string{"link.down eth1", "link.down eth1", "link.up eth1"}) {
			t.Errorf("made anew: %v", got)
		}
		if _, b := w.entry("web", "a"); b.Resolved {
			t.Error("frames still go out of a socket that is gone")
		}
		if s := w.Backends()[0]; !strings.Contains(s.Unreached, "start the director again") {
			t.Errorf("the API says %q", s.Unreached)
		}
		if ifs := w.ann.ifs; ifs[1].Up || ifs[1].Index != gone.Index {
			t.Errorf("the announcer is told %+v", ifs[1])
		}
	})
}

func TestMACChanges(t *testing.T) {
	bubble(t, plain, func(w *world) {
		wait := func() { time.Sleep(time.Second / 2); synctest.Wait() }
		must(t, w.Attached())
		first := net.HardwareAddr{2, 0, 0, 0, 0, 2}
		if !slices.Equal(w.path.macs[1], first) {
			t.Fatalf("%v", w.path.macs)
		}
		second := net.HardwareAddr{2, 0, 0, 0, 0, 0x77}
		w.path.refuse(errRefused)
		w.facts1(func(f *neigh.Facts) { f.MAC = second })
		wait()
		if _, b := w.entry("web", "a"); !slices.Equal(b.Eth[6:], second) || w.engine.Snapshot().Ports[1].MAC != table.MAC(second) {
			t.Errorf("%x", b.Eth)
		}
		if l := w.lines("control.warning"); len(l) != 1 || l[0]["part"] != "steer" {
			t.Errorf("warnings %v", l)
		}
		w.path.refuse(nil)
		time.Sleep(2 * retryAfter)
		synctest.Wait()
		if !slices.Equal(w.path.macs[1], second) {
			t.Error("the steering program was not told again")
		}
	})
}

// VIPs are answered for when frames for them reach the workers, and not before.
func TestAnnouncedOnceAttached(t *testing.T) {
	w := newWorld(t, services(web))
	must(t, w.start())
	w.up()
	if len(w.ann.vips) != 0 || len(w.lines("vip.announced")) != 0 {
		t.Errorf("before the steering programs are there, %v is answered for", w.ann.vips)
	}
	w.path.refuse(errRefused)
	if err := w.Attached(); !errors.Is(err, errRefused) || len(w.ann.vips) != 0 {
		t.Errorf("they could not be told their addresses: %v, and %v is answered for", err, w.ann.vips)
	}
	w.path.refuse(nil)
	must(t, w.Attached())
	if len(w.ann.vips) != 1 || len(w.lines("vip.announced")) != 1 {
		t.Errorf("once they are there, %v is answered for; log %v", w.ann.vips, w.lines("vip.announced"))
	}
}

func TestAttachedFails(t *testing.T) {
	w := started(t, plain)
	w.path.refuse(errRefused)
	if err := w.Attached(); !errors.Is(err, errRefused) {
		t.Errorf("%v", err)
	}
}

// The log tells of a next hop once for all that is behind it, once for as long as nothing changes, and not of those that
// answer at once.
func TestNextHops(t *testing.T) {
	text := strings.Replace(plain, "{name: a,", "{name: c, address: 10.9.0.3}, {name: d, address: 10.9.0.4}, {name: a,", 1)
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, text)
		gw := netip.MustParseAddr("10.1.0.254")
		behind := func(mac byte) {
			for _, a := range []string{"10.9.0.3", "10.9.0.4"} {
				w.neigh.hops[netip.MustParseAddr(a)] = neigh.Hop{Ifindex: 3, Interface: "eth1", SrcMAC: w.neigh.facts["eth1"].MAC,
					DstMAC: net.HardwareAddr{2, 0, 0, 0, 9, mac}, Gateway: gw, MTU: 1400}
			}
		}
		fail := func(reason string, addrs ...string) {
			for _, a := range addrs {
				w.neigh.errs[netip.MustParseAddr(a)] = fmt.Errorf("%s %s", a, reason)
			}
		}
		behind(1)
		fail("no answer to ARP yet", "10.1.0.1", "10.1.0.2", "10.9.0.3", "10.9.0.4")
		must(t, w.start())
		defer w.loop()()
		n := 0
		expect := func(what string, want ...string) {
			t.Helper()
			w.neigh.change(func() {})
			time.Sleep(2 * time.Second)
			w.neigh.change(func() {})
			time.Sleep(2 * time.Second)
			synctest.Wait()
			all := said(append(w.lines("neighbour.resolved"), w.lines("neighbour.lost")...), "address", "mac", "reason")
			got := w.lines("")
			got = slices.DeleteFunc(got, func(l line) bool { return !strings.HasPrefix(fmt.Sprint(l["event"]), "neighbour") })
			words := said(got[n:], "address", "mac", "reason")
			slices.Sort(words)
			slices.Sort(want)
			if !slices.Equal(words, want) {
				t.Errorf("%s: logged %q, want %q", what, words, want)
			}
			n = len(all)
		}
		synctest.Wait()
		w.neigh.change(func() { delete(w.neigh.errs, netip.MustParseAddr("10.1.0.1")) })
		expect("one answers at once, the others never",
			"neighbour.resolved 10.1.0.1 "+macOf("10.1.0.1"),
			"neighbour.lost 10.1.0.2  10.1.0.2 no answer to ARP yet", "neighbour.lost 10.9.0.3  10.9.0.3 no answer to ARP yet",
			"neighbour.lost 10.9.0.4  10.9.0.4 no answer to ARP yet")
		w.neigh.change(func() { clear(w.neigh.errs) })
		expect("all answer", "neighbour.resolved 10.1.0.2 "+macOf("10.1.0.2"), "neighbour.resolved 10.1.0.254 02:00:00:00:09:01")
		w.neigh.change(func() { behind(2) })
		expect("the gateway is replaced", "neighbour.resolved 10.1.0.254 02:00:00:00:09:02")
		w.neigh.change(func() { fail("is behind it, no answer", "10.9.0.3", "10.9.0.4") })
		expect("the gateway is lost", "neighbour.lost 10.1.0.254 02:00:00:00:09:02 10.9.0.3 is behind it, no answer")
		w.neigh.change(func() { fail("no route", "10.9.0.4") })
		expect("for another reason")
		w.neigh.change(func() { clear(w.neigh.errs); fail("no route", "10.9.0.4") })
		expect("one is reached again, one is not", "neighbour.resolved 10.1.0.254 02:00:00:00:09:02")
	})
}

func macOf(a string) string {
	b := netip.MustParseAddr(a).As4()
	return net.HardwareAddr{2, 0, b[0], b[1], b[2], b[3]}.String()
}

// Routes that lead nowhere useful say what to do.
func TestUnreached(t *testing.T) {
	elsewhere := func(w *world, h neigh.Hop) { w.neigh.hops[netip.MustParseAddr("10.1.0.1")] = h }
	for _, c := range []struct {
		name, text string
		hop        neigh.Hop
		want       string
	}{
		{"interface not listed", plain, neigh.Hop{Ifindex: 7, Interface: "eth7"}, "10.1.0.1 is reached by eth7, which is not among `interfaces`: add it there"},
		{"no source", tunnel, neigh.Hop{Ifindex: 3, Interface: "eth1"}, "eth1 has no address from which to tunnel to 10.1.0.1"},
		{"source of the other family", tunnel, neigh.Hop{Ifindex: 3, Interface: "eth1", Source: netip.MustParseAddr("2001:db8::1")}, "eth1 has no address from which to tunnel"},
		{"made anew", plain, neigh.Hop{Ifindex: 4, Interface: "eth1"}, "eth1 was removed and made anew"},
		{"no source, which DR needs not", plain, neigh.Hop{Ifindex: 3, Interface: "eth1"}, ""},
		{"tunnel", tunnel, neigh.Hop{Ifindex: 3, Interface: "eth1", Source: netip.MustParseAddr("10.1.0.1")}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.text)
			elsewhere(w, c.hop)
			must(t, w.start())
			got := w.Backends()[0].Unreached
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("unreached: %q, want …%s…", got, c.want)
			}
			if _, b := w.entry("web", "a"); b.Resolved != (c.want == "") {
				t.Errorf("workers have %+v", b)
			}
		})
	}
}

// A static MAC is its backend's own, also where another is on the same host.
func TestStaticMAC(t *testing.T) {
	w := started(t, services0+`
  - {name: one, address: 203.0.113.10, port: 80, protocol: tcp, forward: dr, table_size: 251, backends: [{name: a, address: 10.1.0.1, mac: "02:00:00:00:aa:01"}]}
  - {name: two, address: 203.0.113.11, port: 80, protocol: tcp, forward: dr, table_size: 251, backends: [{name: a, address: 10.1.0.1, mac: "02:00:00:00:aa:02"}]}
`)
	for service, last := range map[string]byte{"one": 1, "two": 2} {
		if _, b := w.entry(service, "a"); b.Eth[5] != last {
			t.Errorf("%s goes to %x", service, b.Eth[:6])
		}
	}
	if want := w.neigh.wants[netip.MustParseAddr("10.1.0.1")]; want.MAC == nil {
		t.Error("an address with a static MAC is asked for")
	}
}

func TestVIPs(t *testing.T) {
	text := services(web, strings.Replace(other, "table_size", "announce: off\n    table_size", 1),
		"\n  - {name: again, address: 203.0.113.10, port: 443, protocol: tcp, forward: dr, table_size: 251, backends: [{name: a, address: 10.1.0.1}]}\n")
	bubble(t, text, func(w *world) {
		wait := func() { time.Sleep(3 * time.Second); synctest.Wait() }
		if fmt.Sprint(w.ann.vips) != "[203.0.113.10]" {
			t.Errorf("announced: %v", w.ann.vips)
		}
		flap := func(err error) {
			w.neigh.change(func() {
				w.ann.err = err
				f := w.neigh.facts["eth0"]
				f.Ups++
				w.neigh.facts["eth0"] = f
			})
		}
		flap(errRefused)
		wait()
		w.neigh.change(func() { w.ann.err = nil }) // it is tried again without being asked
		wait()
		asked := w.ann.asked
		w.neigh.change(func() {})
		wait()
		if w.ann.asked != asked {
			t.Error("the announcer is asked for what it does already")
		}
		if l := said(w.lines("control.warning"), "part"); !slices.Equal(l, []string{"control.warning announce"}) {
			t.Errorf("warnings %v", l)
		}
		// It was given up, so that it begins anew is news; that its MAC changes is as well; all else is not.
		w.neigh.change(func() {
			f := w.neigh.facts["eth0"]
			f.MAC = net.HardwareAddr{2, 0, 0, 0, 0, 0x99}
			w.neigh.facts["eth0"] = f
		})
		wait()
		w.neigh.change(func() {})
		wait()
		if l := said(w.lines("vip.announced"), "mac"); !slices.Equal(l, []string{"vip.announced 02:00:00:00:00:01", "vip.announced 02:00:00:00:00:01", "vip.announced 02:00:00:00:00:99"}) {
			t.Errorf("%v", l)
		}
	})
}

func TestBroadcasts(t *testing.T) {
	w := newWorld(t, plain)
	w.Controller.facts[0] = neigh.Facts{Addrs: []netip.Prefix{
		netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("172.16.5.9/20"), netip.MustParsePrefix("192.0.2.4/30"),
		netip.MustParsePrefix("192.0.2.8/31"), netip.MustParsePrefix("192.0.2.9/32"), netip.MustParsePrefix("2001:db8::1/64"),
	}}
	if got := fmt.Sprint(w.broadcasts()); got != "[10.0.0.255 172.16.15.255 192.0.2.7]" {
		t.Errorf("%s", got)
	}
}
