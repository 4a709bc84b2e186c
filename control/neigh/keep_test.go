package neigh

import (
	"errors"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vishvananda/netlink"
)

const keepDir0 = "net/ipv6/conf/dir0/keep_addr_on_down"

// With a kernel's defaults, IPv4 comes back by itself, IPv6 does if the resolver has seen to it, and routes by a gateway do not. What
// does not come back says why.
func TestLinkDownAndUp(t *testing.T) {
	for _, keep := range []bool{false, true} {
		t.Run(map[bool]string{false: "defaults", true: "addresses kept"}[keep], func(t *testing.T) {
			l := newLab(t)
			l.addRoute("10.9.0.0/16", "10.0.0.9", 0)
			r := l.resolver(Options{Retry: 50 * time.Millisecond})
			all := []string{"10.0.0.9", "2001:db8::9", "10.9.1.1"}
			r.Set(want(all...))
			resolved := func(a string) func() bool { return func() bool { _, err := r.Lookup(addr(a)); return err == nil } }
			fails := func(a, why string) {
				t.Helper()
				within(t, r, why, func() bool {
					_, err := r.Lookup(addr(a))
					return err != nil && err.Error() == why && errors.Is(err, ErrCut)
				})
			}
			for _, a := range all {
				within(t, r, a+" is resolved", resolved(a))
			}
			if keep {
				s, err := r.KeepAddresses("dir0")
				if want := (Setting{keepDir0, 0, 1}); err != nil || s == nil || *s != want {
					t.Fatalf("%+v, %v", s, err)
				}
			}
			dir := linkOf(t, l.dh, "dir0")
			must(t, l.dh.LinkSetDown(dir))
			for _, a := range all {
				fails(a, a+" is on dir0, which is down or has no carrier")
			}
			must(t, l.dh.LinkSetUp(dir))
			within(t, r, "IPv4 is resolved again", resolved("10.0.0.9"))
			fails("10.9.1.1", "no route to 10.9.1.1: there is none over dir0 any more; set it again (`ip route add`)")
			if !keep {
				fails("2001:db8::9", "no route to 2001:db8::9: dir0, which it was on, has no IPv6 address any more; give it back (`ip address add`)")
				addAddr(t, l.dh, dir, "2001:db8::1/64")
			}
			within(t, r, "IPv6 is resolved again", resolved("2001:db8::9"))
			k, err := openKernel(&l.dir)
			must(t, err)
			defer k.close()
			must(t, r.Close())
			if v, err := k.setting(keepDir0); v != 0 || err != nil {
				t.Errorf("after the end the setting is %d, %v", v, err)
			}
		})
	}
}

// Addresses that go by themselves, and link-local ones, are none that could be kept.
func TestStaticAddresses(t *testing.T) {
	l := newLab(t)
	r := l.resolver(Options{})
	dir := linkOf(t, l.dh, "dir0")
	static := func(want bool) func() bool {
		return func() bool { f, _ := r.Interface("dir0"); return f.Static6 == want }
	}
	within(t, r, "2001:db8::1 is static", static(true))
	a, err := netlink.ParseAddr("2001:db8::1/64")
	must(t, err)
	must(t, l.dh.AddrDel(dir, a))
	within(t, r, "there is only a link-local address", static(false))
	a.ValidLft, a.PreferedLft = 1000, 1000
	must(t, l.dh.AddrAdd(dir, a))
	within(t, r, "there is one that ends", func() bool {
		f, _ := r.Interface("dir0")
		return slices.Contains(r.Locals(), addr("2001:db8::1")) && !f.Static6
	})
}

func TestKeepAddresses(t *testing.T) {
	const all, eth0 = "net/ipv6/conf/all/keep_addr_on_down", "net/ipv6/conf/eth0/keep_addr_on_down"
	for _, c := range []struct {
		name     string
		all, dev int
		readOnly bool
		later    int    // what somebody sets before the end; 9: nothing
		during   int    // what the setting is while the resolver runs
		after    int    // and when it has ended
		err      string // part of it
	}{
		{"default", 0, 0, false, 9, 1, 0, ""},
		{"kept already", 0, 1, false, 9, 1, 1, ""},
		{"kept everywhere", 1, 0, false, 9, 0, 0, ""},
		{"somebody changes it", 0, 0, false, -1, 1, -1, ""},
		{"forbidden", 0, -1, false, 9, -1, -1, "eth0/keep_addr_on_down is -1, which forbids it"},
		{"forbidden everywhere", -1, 0, false, 9, 0, 0, "all/keep_addr_on_down is -1, which forbids it"},
		{"read-only", 0, 0, true, 9, 0, 0, "do it with `sysctl -w net/ipv6/conf/eth0/keep_addr_on_down=1`"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newFake()
			k.settings, k.readOnly = map[string]int{all: c.all, eth0: c.dev}, c.readOnly
			r := startFake(t, k, Options{})
			s, err := r.KeepAddresses("eth0")
			if (s != nil) != (c.during != c.dev) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%+v, %v", s, err)
			}
			if k.settings[eth0] != c.during {
				t.Errorf("the setting is %d, want %d", k.settings[eth0], c.during)
			}
			if s, again := r.KeepAddresses("eth0"); s != nil || (again == nil) != (err == nil) {
				t.Errorf("the second time: %+v, %v", s, again)
			}
			if c.later != 9 {
				k.settings[eth0] = c.later
			}
			must(t, r.Close())
			if k.settings[eth0] != c.after || k.settings[all] != c.all {
				t.Errorf("at the end: %v, want %d", k.settings, c.after)
			}
		})
	}
	t.Run("no IPv6", func(t *testing.T) {
		r := startFake(t, newFake(), Options{})
		if s, err := r.KeepAddresses("eth0"); s != nil || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%+v, %v", s, err)
		}
		if s, err := r.KeepAddresses("eth9"); s != nil || err != nil {
			t.Errorf("an interface that is not there: %+v, %v", s, err)
		}
		must(t, r.Close())
	})
	t.Run("another name, another index", func(t *testing.T) {
		k := newFake()
		k.settings = map[string]int{all: 0, eth0: 0}
		r := startFake(t, k, Options{Resync: time.Millisecond})
		_, err := r.KeepAddresses("eth0")
		must(t, err)
		k.do(func() { // it is renamed, and there is another eth0
			f := k.links[0]
			f.Index = 7
			k.links[0].Name = "wan0"
			k.links = append(k.links, f)
			maps.Copy(k.settings, map[string]int{eth0: 0, "net/ipv6/conf/wan0/keep_addr_on_down": 1})
		})
		within(t, r, "both are seen", func() bool { f, _ := r.Interface("eth0"); return f.Index == 7 })
		if s, err := r.KeepAddresses("eth0"); s == nil || err != nil {
			t.Errorf("%+v, %v", s, err)
		}
		k.do(func() { k.links = k.links[:1] })
		within(t, r, "the new eth0 is gone", func() bool { _, ok := r.Interface("eth0"); return !ok })
		must(t, r.Close())
		if k.settings["net/ipv6/conf/wan0/keep_addr_on_down"] != 0 || k.settings[eth0] != 1 {
			t.Errorf("%v", k.settings)
		}
	})
}

// Who was asked just before a link went down is asked at once when it is up again.
func TestLinkUpAsksAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newFake()
		r := startFake(t, k, Options{Retry: time.Minute})
		r.Set(want("10.0.0.9"))
		synctest.Wait()
		link := func(up bool) {
			k.do(func() { k.links[0].Up = up })
			k.events <- event{refresh: true, ifindex: 2, running: up}
		}
		link(false)
		synctest.Wait()
		if _, err := r.Lookup(addr("10.0.0.9")); err == nil || !strings.Contains(err.Error(), "eth0, which is down") {
			t.Errorf("as soon as the link is down: %v", err)
		}
		time.Sleep(time.Second)
		before := len(k.uses[neighKey{2, addr("10.0.0.9")}])
		link(true)
		time.Sleep(holdoff)
		synctest.Wait()
		if n := len(k.uses[neighKey{2, addr("10.0.0.9")}]); n != before+1 {
			t.Errorf("asked %d times within %v, want once", n-before, holdoff)
		}
		r.Close()
	})
}

// A carrier that is lost takes neighbours away first; nobody is told that these do not answer.
func TestLostCarrierIsTheReason(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newFake()
		r := startFake(t, k, Options{})
		k.put("10.0.0.9", netlink.NUD_REACHABLE, mac9, true)
		r.Set(want("10.0.0.9"))
		time.Sleep(time.Second)
		signalled(r)
		n := k.table[neighKey{2, addr("10.0.0.9")}]
		k.do(func() { delete(k.table, n.key); k.links[0].Up = false })
		k.events <- event{neigh: &n, gone: true}
		if signalled(r) {
			_, err := r.Lookup(addr("10.0.0.9"))
			t.Errorf("told before the loss: %v", err)
		}
		k.events <- event{refresh: true, ifindex: 2}
		if !signalled(r) {
			t.Error("not told of the loss")
		}
		if _, err := r.Lookup(addr("10.0.0.9")); err == nil || !strings.Contains(err.Error(), "down or has no carrier") {
			t.Errorf("%v", err)
		}
		r.Close()
	})
}

// A next hop from behind which nothing comes is verified although the kernel still believes in it, and asked for anew when it fails.
func TestDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newFake()
		r := startFake(t, k, Options{Reprobe: 5 * time.Second, Retry: 5 * time.Second})
		k.put("10.0.0.9", netlink.NUD_REACHABLE, mac9, true)
		k.put("10.0.0.8", netlink.NUD_PERMANENT, mac9, true)
		synctest.Wait()
		r.Set(want("10.0.0.9", "10.0.0.8"))
		time.Sleep(time.Second)
		for range 3 {
			r.Doubt(addr("10.0.0.9"))
			r.Doubt(addr("10.0.0.8"))
			r.Doubt(addr("10.0.0.7"))
			synctest.Wait()
		}
		if len(k.verifies) != 1 || len(k.verifies[neighKey{2, addr("10.0.0.9")}]) != 1 {
			t.Errorf("verified: %v", k.verifies)
		}
		time.Sleep(3 * time.Second)
		k.put("10.0.0.9", netlink.NUD_FAILED, mac9, true)
		synctest.Wait()
		if n := len(k.uses[neighKey{2, addr("10.0.0.9")}]); n != 1 {
			t.Errorf("asked for %d times once it had failed, want once", n)
		}
		r.Close()
	})
}

// With a real kernel, which would believe for many minutes: the new MAC is known once the old one has not answered three times.
func TestDoubtFindsNewMAC(t *testing.T) {
	l := newLab(t)
	for _, family := range []string{"ipv4", "ipv6"} {
		inNamespace(t, l.dir, func() error {
			return os.WriteFile("/proc/sys/net/"+family+"/neigh/dir0/base_reachable_time_ms", []byte("3600000"), 0)
		})
	}
	r := l.resolver(Options{Reprobe: 50 * time.Millisecond})
	all := []string{"10.0.0.9", "2001:db8::9"}
	r.Set(want(all...))
	has := func(a string, mac net.HardwareAddr) func() bool {
		return func() bool { h, err := r.Lookup(addr(a)); return err == nil && slices.Equal(h.DstMAC, mac) }
	}
	host := linkOf(t, l.fh, "host0")
	for _, a := range all {
		within(t, r, a+" is resolved", has(a, host.Attrs().HardwareAddr))
	}
	must(t, l.fh.LinkSetHardwareAddr(host, mac9))
	for _, a := range all {
		for deadline := time.Now().Add(10 * time.Second); !has(a, mac9)(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("after 10 s %s still has its old MAC", a)
			}
			r.Doubt(addr(all[0]))
			r.Doubt(addr(all[1]))
		}
	}
}

// While the kernel looks for others with its addresses it asks nobody, and the reason says so.
func TestAddressesAreChecked(t *testing.T) {
	l := newLab(t)
	dir := linkOf(t, l.dh, "dir0")
	k, err := openKernel(&l.dir)
	must(t, err)
	defer k.close()
	must(t, k.set("net/ipv6/conf/dir0/accept_dad", 1)) // as by default
	// The kernel makes a link-local address anew, and checks it.
	must(t, l.dh.LinkSetDown(dir))
	must(t, l.dh.LinkSetUp(dir))
	r := l.resolver(Options{Retry: 50 * time.Millisecond})
	r.Set(want("2001:db8::9"))
	checked, err := netlink.ParseAddr("2001:db8::1/64")
	must(t, err)
	must(t, l.dh.AddrAdd(dir, checked))
	within(t, r, "the address is being checked", func() bool {
		_, err := r.Lookup(addr("2001:db8::9"))
		return err != nil && strings.Contains(err.Error(), "duplicate address detection")
	})
	within(t, r, "it is in use", func() bool {
		_, err := r.Lookup(addr("2001:db8::9"))
		f, _ := r.Interface("dir0")
		return err == nil && !f.Checking6
	})
}
