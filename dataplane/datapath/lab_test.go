package datapath

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

var (
	vip    = netip.MustParseAddrPort("203.0.113.10:53")
	client = netip.MustParseAddrPort("198.51.100.7:40000")
)

// A lab has two unnamed namespaces, which vanish with their last user. The test's goroutine is locked to a thread in near.
//
//	far: df<pid>a  ======  dp<pid>a :near
//	far: df<pid>b  ======  dp<pid>b :near
type lab struct{ home, near, far netns.NsHandle }

// newLab makes the links with so many queues each.
func newLab(t *testing.T, links map[string]int) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		const why = "needs root: it opens AF_XDP sockets in network namespaces of its own"
		if os.Getenv("CI") == "true" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	runtime.LockOSThread()
	l := &lab{}
	var err error
	l.home, err = netns.Get()
	must(t, err)
	l.far, err = netns.New()
	must(t, err)
	l.near, err = netns.New()
	must(t, err)
	t.Cleanup(func() {
		must(t, netns.Set(l.home))
		for _, ns := range []*netns.NsHandle{&l.near, &l.far, &l.home} {
			must(t, ns.Close())
		}
		runtime.UnlockOSThread()
	})
	for name, queues := range links {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.NumRxQueues, attrs.NumTxQueues = l.name(name), queues, queues
		must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: l.peer(name), PeerNamespace: netlink.NsFd(l.far)}))
		raise(t, l.name(name))
		l.inPeer(t, func() { raise(t, l.peer(name)) })
	}
	return l
}

func (l *lab) name(link string) string { return fmt.Sprintf("dp%d%s", os.Getpid(), link) }
func (l *lab) peer(link string) string { return fmt.Sprintf("df%d%s", os.Getpid(), link) }

// enter puts a subtest's goroutine where the test's is.
func (l *lab) enter(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	must(t, netns.Set(l.near))
	t.Cleanup(func() {
		must(t, netns.Set(l.home))
		runtime.UnlockOSThread()
	})
}

func (l *lab) inPeer(t *testing.T, do func()) {
	t.Helper()
	must(t, netns.Set(l.far))
	defer func() { must(t, netns.Set(l.near)) }()
	do()
}

func raise(t *testing.T, name string) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	must(t, err)
	must(t, netlink.LinkSetUp(link))
}

// attached reports whether an XDP program runs on an interface.
func (l *lab) attached(t *testing.T, name string) bool {
	t.Helper()
	link, err := netlink.LinkByName(name)
	must(t, err)
	return link.Attrs().Xdp != nil && link.Attrs().Xdp.Attached
}

func (l *lab) mac(t *testing.T, name string) net.HardwareAddr {
	t.Helper()
	link, err := netlink.LinkByName(name)
	must(t, err)
	return link.Attrs().HardwareAddr
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
