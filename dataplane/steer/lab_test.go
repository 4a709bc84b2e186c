package steer

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// requireRoot skips, but not where the tests must all run.
func requireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root: BPF programs and network namespaces")
	}
	t.Skip("needs root: BPF programs and network namespaces")
}

// lab is a veth pair between two namespaces without names, which go when the test does. The test's goroutine is
// in the near one, and only it: a goroutine started by it, as t.Run does, is not.
//
//	near [near link] ---- [far link] far
type lab struct {
	nearNS, farNS netns.NsHandle
	near, far     netlink.Link
}

func newLab(t *testing.T) *lab {
	t.Helper()
	requireRoot(t)
	runtime.LockOSThread()
	home, err := netns.Get()
	must(t, err)
	l := &lab{}
	t.Cleanup(func() {
		must(t, netns.Set(home))
		home.Close()
		l.nearNS.Close()
		l.farNS.Close()
		runtime.UnlockOSThread()
	})
	l.farNS, err = netns.New()
	must(t, err)
	l.nearNS, err = netns.New()
	must(t, err)
	names := [2]string{fmt.Sprintf("near%d", os.Getpid()), fmt.Sprintf("far%d", os.Getpid())}
	// An index that no interface of the machine has: an attachment made in the wrong namespace fails.
	const index = 1 << 20
	must(t, netlink.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: names[0], Index: index}, PeerName: names[1], PeerNamespace: netlink.NsFd(l.farNS),
	}))
	l.near = l.up(t, names[0])
	l.inFar(t, func() { l.far = l.up(t, names[1]) })
	return l
}

func (l *lab) up(t *testing.T, name string) netlink.Link {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	must(t, err)
	must(t, netlink.LinkSetUp(lo))
	link, err := netlink.LinkByName(name)
	must(t, err)
	must(t, netlink.LinkSetUp(link))
	return link
}

func (l *lab) inFar(t *testing.T, do func()) {
	t.Helper()
	must(t, netns.Set(l.farNS))
	defer func() { must(t, netns.Set(l.nearNS)) }()
	do()
}

// xdp returns what the kernel says runs on the near link.
func (l *lab) xdp(t *testing.T) *netlink.LinkXdp {
	t.Helper()
	link, err := netlink.LinkByIndex(l.near.Attrs().Index)
	must(t, err)
	if link.Attrs().Xdp == nil {
		return &netlink.LinkXdp{}
	}
	return link.Attrs().Xdp
}

func addAddr(t *testing.T, link netlink.Link, cidr string) {
	t.Helper()
	addr, err := netlink.ParseAddr(cidr)
	must(t, err)
	if addr.IP.To4() == nil {
		addr.Flags = 0x02 // IFA_F_NODAD: usable at once
	}
	must(t, netlink.AddrAdd(link, addr))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until ok says so.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}
