package announce

import (
	"encoding/hex"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
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
//	director: dir0  10.0.0.1/24  2001:db8::1/64 ---- host0  10.0.0.9/24  2001:db8::9/64 :host
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
	for _, ns := range []netns.NsHandle{l.dir, l.far} {
		// Unicast probes come from the link-local address, which must not be tentative for its first two seconds.
		must(t, inNamespace(&ns, func() error {
			return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
		}))
	}
	l.dh, l.fh = handle(t, l.dir), handle(t, l.far)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "dir0"}, PeerName: "host0", PeerNamespace: netlink.NsFd(int(l.far))}
	must(t, l.dh.LinkAdd(veth))
	for _, side := range []struct {
		h     *netlink.Handle
		name  string
		addrs []string
	}{{l.dh, "dir0", []string{"10.0.0.1/24", "2001:db8::1/64"}}, {l.fh, "host0", []string{"10.0.0.9/24", "2001:db8::9/64"}}} {
		link, err := side.h.LinkByName(side.name)
		must(t, err)
		for _, a := range side.addrs {
			addr, err := netlink.ParseAddr(a)
			must(t, err)
			addr.Flags = unix.IFA_F_NODAD
			must(t, side.h.AddrAdd(link, addr))
		}
		must(t, side.h.LinkSetUp(link))
	}
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
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
	must(t, netns.Set(home))
	t.Cleanup(func() { ns.Close() })
	return ns
}

func handle(t *testing.T, ns netns.NsHandle) *netlink.Handle {
	t.Helper()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	must(t, err)
	t.Cleanup(h.Close)
	return h
}

// iface describes dir0 as the kernel has it now.
func (l *lab) iface(ups uint64) Interface {
	l.t.Helper()
	link, err := l.dh.LinkByName("dir0")
	must(l.t, err)
	a := link.Attrs()
	return Interface{Name: a.Name, Index: a.Index, MAC: a.HardwareAddr, Up: true, Ups: ups,
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("2001:db8::1/64")}}
}

// ask makes the host's kernel resolve addr, by a UDP datagram.
func (l *lab) ask(addr netip.Addr) {
	l.t.Helper()
	must(l.t, inNamespace(&l.far, func() error {
		c, err := net.Dial("udp", netip.AddrPortFrom(addr, 9).String())
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("hello"))
		return err
	}))
}

func (l *lab) hostEntry(addr netip.Addr) *netlink.Neigh {
	l.t.Helper()
	list, err := l.fh.NeighList(0, netlink.FAMILY_ALL)
	must(l.t, err)
	for _, n := range list {
		if a, ok := netip.AddrFromSlice(n.IP); ok && a.Unmap() == addr {
			return &n
		}
	}
	return nil
}

// within waits for a condition.
func within(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("after 10 s still not: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// hasGroup tells whether dir0 is a member of an IPv6 group, from what its namespace says in /proc/net/igmp6.
func (l *lab) hasGroup(g netip.Addr) bool {
	l.t.Helper()
	found := false
	must(l.t, inNamespace(&l.dir, func() error {
		b, err := os.ReadFile("/proc/thread-self/net/igmp6")
		found = strings.Contains(string(b), hex.EncodeToString(g.AsSlice()))
		return err
	}))
	return found
}
