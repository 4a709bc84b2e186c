package neigh

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A lab is two network namespaces without names, which the kernel removes with their last handle.
//
//	director: dir0  10.0.0.1/24  2001:db8::1/64  fe80::d/64 ---- host0  10.0.0.9/24  2001:db8::9/64  fe80::1/64 :host
type lab struct {
	t        *testing.T
	dir, far netns.NsHandle
	dh, fh   *netlink.Handle
}

func newLab(t *testing.T) *lab {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root: makes network namespaces")
		}
		t.Skip("needs root: makes network namespaces")
	}
	l := &lab{t: t, dir: newNamespace(t), far: newNamespace(t)}
	l.dh, l.fh = handle(t, l.dir), handle(t, l.far)
	must(t, l.dh.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "dir0"}, PeerName: "host0", PeerNamespace: netlink.NsFd(int(l.far))}))
	for _, side := range []struct {
		h     *netlink.Handle
		name  string
		addrs []string
	}{
		{l.dh, "dir0", []string{"10.0.0.1/24", "2001:db8::1/64", "fe80::d/64"}},
		{l.fh, "host0", []string{"10.0.0.9/24", "2001:db8::9/64", "fe80::1/64"}},
	} {
		link := linkOf(t, side.h, side.name)
		for _, a := range side.addrs {
			addAddr(t, side.h, link, a)
		}
		must(t, side.h.LinkSetUp(link))
		must(t, side.h.LinkSetUp(linkOf(t, side.h, "lo")))
	}
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func linkOf(t *testing.T, h *netlink.Handle, name string) netlink.Link {
	t.Helper()
	link, err := h.LinkByName(name)
	must(t, err)
	return link
}

func addAddr(t *testing.T, h *netlink.Handle, link netlink.Link, cidr string) {
	t.Helper()
	addr, err := netlink.ParseAddr(cidr)
	must(t, err)
	addr.Flags = unix.IFA_F_NODAD
	must(t, h.AddrAdd(link, addr))
}

func newNamespace(t *testing.T) netns.NsHandle {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	must(t, err)
	defer home.Close()
	ns, err := netns.New()
	must(t, err)
	// Unicast probes come from the link-local address, which must not be tentative for its first two seconds.
	must(t, os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0))
	must(t, netns.Set(home))
	t.Cleanup(func() { ns.Close() })
	return ns
}

// inNamespace runs f on a thread in ns.
func inNamespace(t *testing.T, ns netns.NsHandle, f func() error) {
	t.Helper()
	must(t, (&netlinkKernel{ns: ns}).inNamespace(f))
}

func handle(t *testing.T, ns netns.NsHandle) *netlink.Handle {
	t.Helper()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(h.Close)
	return h
}

func (l *lab) resolver(o Options) *Resolver {
	l.t.Helper()
	o.Namespace = &l.dir
	if o.Warn == nil {
		o.Warn = func(err error) { l.t.Log(err) }
	}
	r, err := New(o)
	must(l.t, err)
	l.t.Cleanup(func() { r.Close() })
	return r
}

// addRoute adds a route to dst by gw on dir0; mtu 0 is none.
func (l *lab) addRoute(dst, gw string, mtu int) *netlink.Route {
	l.t.Helper()
	_, n, err := net.ParseCIDR(dst)
	must(l.t, err)
	r := &netlink.Route{LinkIndex: linkOf(l.t, l.dh, "dir0").Attrs().Index, Dst: n, MTU: mtu}
	g := net.ParseIP(gw)
	if n.IP.To4() != nil && g.To4() == nil {
		r.Via = &netlink.Via{AddrFamily: netlink.FAMILY_V6, Addr: g}
	} else {
		r.Gw = g
	}
	must(l.t, l.dh.RouteAdd(r))
	return r
}

func (l *lab) entry(addr netip.Addr) *netlink.Neigh {
	l.t.Helper()
	list, err := l.dh.NeighList(0, netlink.FAMILY_ALL)
	must(l.t, err)
	for _, n := range list {
		if toAddr(n.IP) == addr {
			return &n
		}
	}
	return nil
}

// within waits for a condition that the resolver's answers fulfil, looking again after each of its signals.
func within(t *testing.T, r *Resolver, what string, cond func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !cond() {
		select {
		case <-r.Changed():
		case <-deadline:
			t.Fatalf("after 10 s still not: %s", what)
		}
	}
}

func want(addrs ...string) (w []Want) {
	for _, a := range addrs {
		w = append(w, Want{Addr: netip.MustParseAddr(a)})
	}
	return w
}
