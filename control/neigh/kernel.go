package neigh

import (
	"net"
	"net/netip"
)

// A kernel is the little of netlink that a Resolver needs; kernel_linux.go is the real one, tests have a fake.
type kernel interface {
	// interfaces lists all interfaces with their addresses; Ups is left zero.
	interfaces() ([]Facts, error)
	// route asks how a packet to addr would leave; oif 0 is any interface.
	route(addr netip.Addr) (route, error)
	// neighbours lists the IPv4 and IPv6 neighbour tables.
	neighbours() ([]neighbour, error)
	// use makes the kernel resolve an address, creating the entry where there is none.
	use(key neighKey) error
	// verify makes the kernel ask a neighbour it knows whether it still has its MAC.
	verify(n neighbour) error
	// remove deletes an entry; one that is not there is no error.
	remove(key neighKey) error
	// setting reads a kernel setting that is a number, set writes it.
	setting(name string) (int, error)
	set(name string, value int) error
	// subscribe starts a stream of events. The channel is closed when the stream breaks or stop is called; events may
	// have been lost then.
	subscribe() (events <-chan event, stop func(), err error)
	close()
}

// A neighKey names a neighbour: addresses, link-local ones above all, are unique on a link only. addr has no zone.
type neighKey struct {
	ifindex int
	addr    netip.Addr
}

// A neighbour is one entry of the neighbour table.
type neighbour struct {
	key   neighKey
	mac   net.HardwareAddr
	state int // NUD_*
	flags int // NTF_*
}

// A route is the kernel's answer for one destination.
type route struct {
	ifindex int
	gateway netip.Addr // no zone; invalid when on-link
	source  netip.Addr
	mtu     int // 0: the link's
	kind    routeKind
}

type routeKind uint8

const (
	unicast     routeKind = iota
	local                 // this host's own address
	unreachable           // no route, or one that says unreachable, prohibit or blackhole
	unusable              // broadcast, multicast, anycast
)

// An event says what changed. Neighbours and links carry the news, since they must be acted
// on at once; for addresses and routes that something changed is enough, everything is asked again.
type event struct {
	neigh   *neighbour // with gone: it was deleted
	gone    bool
	ifindex int  // of a link that changed, else 0
	running bool // of that link
	refresh bool // links, addresses or routes changed
}
