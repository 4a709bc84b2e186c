// Package neigh finds and watches the next hop of each backend over netlink: by which interface it is
// reached, through which gateway, from which source address, with which MTU, and the two MAC addresses.
//
// A Resolver owns no copy of the routing table. It asks the kernel for each wanted address (RTM_GETROUTE), looks
// the gateway or the address itself up in the neighbour table, and makes the kernel resolve what is missing
// (NTF_USE) or verify what is stale (NUD_PROBE); see net/core/neighbour.c. Multicast notifications of links,
// addresses, routes and neighbours tell it when to look again, and a periodic resync makes up for lost ones.
//
// It also knows the director's own interfaces and addresses.
package neigh

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netns"
)

// A Want is an address whose next hop is wanted. With a MAC only the route is looked up, and frames go to that MAC.
type Want struct {
	Addr netip.Addr
	MAC  net.HardwareAddr
}

// A Hop is all that a director needs in order to send to an address. Its slices are shared: do not modify them.
type Hop struct {
	Ifindex   int
	Interface string
	SrcMAC    net.HardwareAddr // of the egress interface
	DstMAC    net.HardwareAddr // of the gateway, or of the address itself
	Gateway   netip.Addr       // invalid when the address is on-link; may be IPv6 for an IPv4 address (RFC 8950)
	Source    netip.Addr       // the address the kernel would send from
	MTU       int              // of the route, or of the link
}

func (h Hop) equal(o Hop) bool {
	return h.Ifindex == o.Ifindex && h.Interface == o.Interface && slices.Equal(h.SrcMAC, o.SrcMAC) &&
		slices.Equal(h.DstMAC, o.DstMAC) && h.Gateway == o.Gateway && h.Source == o.Source && h.MTU == o.MTU
}

// Facts are what is known of an interface of this host. Slices are shared: do not modify them.
type Facts struct {
	Name  string
	Index int
	MAC   net.HardwareAddr
	MTU   int
	Addrs []netip.Prefix // sorted
	Up    bool           // administratively up and with a carrier
	Ups   uint64         // how often it was seen coming up: a flap too short for Up to show changes it
	NoARP bool           // has no Ethernet neighbours: loopback, tunnels, IFF_NOARP
	VLAN  VLAN

	Checking6 bool // the kernel uses none of its IPv6 addresses yet: it is still looking for others that have them (RFC 4862, 5.4)
	Static6   bool // one of Addrs is an IPv6 address that is neither link-local nor ends by itself: see KeepAddresses
}

// A VLAN says of which interface another is a VLAN. The zero VLAN is none.
type VLAN struct {
	Parent int    // index of the interface that its frames, tagged, leave by
	Type   uint16 // of the tag: 0x8100 (802.1Q) or 0x88a8 (802.1ad)
	ID     uint16
}

func (f Facts) equal(o Facts) bool {
	return f.Name == o.Name && f.Index == o.Index && slices.Equal(f.MAC, o.MAC) && f.MTU == o.MTU &&
		slices.Equal(f.Addrs, o.Addrs) && f.Up == o.Up && f.Ups == o.Ups && f.NoARP == o.NoARP && f.VLAN == o.VLAN && f.Static6 == o.Static6 && f.Checking6 == o.Checking6
}

// Options of a Resolver. The zero value works.
type Options struct {
	// Namespace is the network namespace to work in; nil is that of the calling thread. It is needed only
	// where threads of the process live in different namespaces, and setting it takes CAP_SYS_ADMIN.
	// The resolver keeps the handle but does not close it.
	Namespace *netns.NsHandle

	Reprobe time.Duration // how often a stale entry is verified, default 5 s
	Retry   time.Duration // how often an unresolved address is asked for again, default 500 ms
	Resync  time.Duration // how often everything is read anew, default 30 s

	// Warn is told what went wrong and is being retried ("netlink subscription: …"), the same thing at most every 30 s;
	// nil: nobody is. It must not call Close.
	Warn func(error)
}

// A Resolver keeps the next hops of the wanted addresses until Close. All methods may be called from any goroutine.
type Resolver struct {
	opt     Options
	kernel  kernel
	changed chan struct{} // capacity 1
	kick    chan struct{} // capacity 1: wants changed
	doubt   chan struct{} // capacity 1: doubts has grown
	done    chan struct{}
	stopped chan struct{}
	once    sync.Once
	err     error // of Close

	mu     sync.Mutex
	wants  map[netip.Addr]Want
	hops   map[netip.Addr]answer
	links  map[string]Facts
	locals []netip.Addr
	doubts map[netip.Addr]bool
	kept   map[linkName]int // settings that KeepAddresses changed, with what they were

	// The fields below belong to the goroutine of run.
	seen    map[int]Facts // by index: what links is made of
	table   map[neighKey]neighbour
	paths   map[netip.Addr]path
	last    map[netip.Addr]int // index of the interface that each wanted address was last found behind
	probed  map[neighKey]time.Time
	created map[neighKey]bool // entries that exist because we asked
	running map[int]bool      // whether each link was up when last heard of
	ups     map[int]uint64
	warned  map[string]time.Time
}

type answer struct {
	hop Hop
	err error
}

// New opens netlink and reads the state of this host's interfaces; it fails where that fails.
func New(o Options) (*Resolver, error) {
	k, err := openKernel(o.Namespace)
	if err != nil {
		return nil, fmt.Errorf("next hops: %w", err)
	}
	r := newResolver(o, k)
	if err := r.start(); err != nil {
		k.close()
		return nil, fmt.Errorf("next hops: %w", err)
	}
	return r, nil
}

func newResolver(o Options, k kernel) *Resolver {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.Reprobe, 5*time.Second)
	def(&o.Retry, 500*time.Millisecond)
	def(&o.Resync, 30*time.Second)
	if o.Warn == nil {
		o.Warn = func(error) {}
	}
	return &Resolver{
		opt: o, kernel: k,
		changed: make(chan struct{}, 1), kick: make(chan struct{}, 1), doubt: make(chan struct{}, 1),
		done: make(chan struct{}), stopped: make(chan struct{}),
		wants: map[netip.Addr]Want{}, hops: map[netip.Addr]answer{}, links: map[string]Facts{},
		seen: map[int]Facts{}, table: map[neighKey]neighbour{}, paths: map[netip.Addr]path{},
		probed: map[neighKey]time.Time{}, created: map[neighKey]bool{},
		running: map[int]bool{}, ups: map[int]uint64{}, warned: map[string]time.Time{},
		last: map[netip.Addr]int{}, kept: map[linkName]int{}, doubts: map[netip.Addr]bool{},
	}
}

// Set makes wants the addresses whose next hops are kept. An address that is new is looked up soon after; Changed
// tells when.
func (r *Resolver) Set(wants []Want) {
	m := make(map[netip.Addr]Want, len(wants))
	for _, w := range wants {
		w.Addr = w.Addr.Unmap()
		w.MAC = slices.Clone(w.MAC)
		m[w.Addr] = w
	}
	r.mu.Lock()
	r.wants = m
	r.mu.Unlock()
	signal(r.kick)
}

// Changed is signalled after any change of what Lookup, Locals or Interface answer; several changes may give one signal.
func (r *Resolver) Changed() <-chan struct{} { return r.changed }

// ErrPending says that an address is wanted since a moment ago, and nothing is known about it yet.
var ErrPending = errors.New("the first look-up is under way")

// ErrCut is what those errors of Lookup are that lie in this host's own links, addresses or routes, as opposed to a next hop that does
// not answer.
var ErrCut = errors.New("this host has no way there")

// A cutError says what is missing here.
type cutError string

func (e cutError) Error() string { return string(e) }

func (cutError) Is(target error) bool { return target == ErrCut }

// Lookup returns the next hop of a wanted address, or an error that says why it is not known.
func (r *Resolver) Lookup(addr netip.Addr) (Hop, error) {
	addr = addr.Unmap()
	r.mu.Lock()
	defer r.mu.Unlock()
	if a, ok := r.hops[addr]; ok {
		return a.hop, a.err
	}
	if _, ok := r.wants[addr]; ok {
		return Hop{}, fmt.Errorf("%v: %w", addr, ErrPending)
	}
	return Hop{}, fmt.Errorf("%v is not among the wanted addresses", addr)
}

// Doubt says that nothing comes back from a wanted address. Its next hop is asked whether it still has its MAC, at most every Reprobe: the kernel
// by itself believes in one that it has heard of for up to 45 s.
func (r *Resolver) Doubt(addr netip.Addr) {
	r.mu.Lock()
	r.doubts[addr.Unmap()] = true
	r.mu.Unlock()
	signal(r.doubt)
}

// Locals returns all addresses of all interfaces of this host, sorted.
func (r *Resolver) Locals() []netip.Addr {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.locals)
}

// Interface returns what is known of the interface with that name; ok is false when there is none.
func (r *Resolver) Interface(name string) (f Facts, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok = r.links[name]
	return f, ok
}

// VLANs returns what is known of the interfaces that are VLANs of others, by name.
func (r *Resolver) VLANs() []Facts {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Facts
	for _, f := range r.links {
		if f.VLAN.Parent != 0 {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b Facts) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Close stops the resolver, deletes the neighbour entries that its asking has created, and undoes KeepAddresses, which must not be
// called at the same time. Further calls do nothing.
func (r *Resolver) Close() error {
	r.once.Do(func() {
		close(r.done)
		<-r.stopped
	})
	return r.err
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
