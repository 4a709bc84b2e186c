package announce

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"github.com/mdlayher/ndp"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"
)

// groups holds the memberships in the solicited-node groups of the IPv6 VIPs of one interface. The kernel drops
// them when the socket is closed.
type groups struct {
	ifindex int
	fd      int
	nd      *packet.Conn

	mu     sync.Mutex
	joined map[netip.Addr]func() error // how to leave
	notes  map[netip.Addr]string
}

// openGroups opens a socket that is bound to nothing and receives nothing: it only carries memberships.
func openGroups(ifindex int, nd *packet.Conn) (*groups, error) {
	g := &groups{ifindex: ifindex, fd: -1, nd: nd, joined: map[netip.Addr]func() error{}, notes: map[netip.Addr]string{}}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return g, nil // a kernel without IPv6: join falls back
	}
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	g.fd = fd
	return g, nil
}

// set joins and leaves groups until those of vips are joined.
func (g *groups) set(vips map[netip.Addr]bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	want := map[netip.Addr]bool{}
	for vip := range vips {
		if vip.Is6() {
			if group, err := ndp.SolicitedNodeMulticast(vip); err == nil {
				want[group] = true
			}
		}
	}
	for group, leave := range g.joined {
		if !want[group] {
			// It fails only when the interface, and the membership with it, is gone.
			_ = leave()
			delete(g.joined, group)
		}
	}
	clear(g.notes)
	for group := range want {
		if g.joined[group] == nil {
			g.join(group)
		}
	}
}

// join asks the kernel's IPv6 for the membership, so that it also sends MLD reports and switches that snoop let
// solicitations through. Where the interface has no IPv6, the filter of the NIC alone is opened.
func (g *groups) join(group netip.Addr) {
	mreq := &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(g.ifindex)}
	err := error(unix.EAFNOSUPPORT)
	if g.fd >= 0 {
		err = unix.SetsockoptIPv6Mreq(g.fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, mreq)
	}
	if err == nil {
		g.joined[group] = func() error {
			return unix.SetsockoptIPv6Mreq(g.fd, unix.IPPROTO_IPV6, unix.IPV6_LEAVE_GROUP, mreq)
		}
		return
	}
	mac := multicastMAC(group)
	if fallback := g.nd.JoinGroup(mac[:]); fallback != nil {
		g.notes[group] = fmt.Sprintf("could not join %v (%v, %v): solicitations may not arrive", group, err, fallback)
		return
	}
	g.joined[group] = func() error { return g.nd.LeaveGroup(mac[:]) }
}

// note describes one of the groups that could not be joined; set tries those again.
func (g *groups) note() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, n := range g.notes {
		return n
	}
	return ""
}

func (g *groups) close() {
	if g.fd >= 0 {
		unix.Close(g.fd)
		g.fd = -1
	}
}
