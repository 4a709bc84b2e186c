package testenv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"

	"github.com/vishvananda/netlink"

	"xlvs/dataplane/table"
)

// Layout says how the hosts of a lab are wired; the package documentation has pictures.
type Layout int

// The layouts.
const (
	Switched Layout = iota // one segment for all
	Routed                 // client and servers on different segments, behind a router
)

func (l Layout) String() string { return [...]string{"switched", "routed"}[l] }

// Options of a lab. The zero value is a switched lab with three servers for each mode.
type Options struct {
	Layout  Layout
	Modes   []table.Mode // default: DR, TUN and NAT
	Servers int          // per mode; default 3, at most 250
	MTU     int          // of every interface; default 1500
	Queues  int          // receive and transmit queues of the director's interfaces; default 1
	Tags    Tags         // VLAN tags that all frames have; default: none

	// Decap decapsulates on the TUN servers; default: DefaultDecap.
	Decap Decapper

	NoServices bool // start no services: the caller starts those it wants
	NoTaps     bool // count nothing at the director and the client: for measurements

	noTCX bool // attach programs as on Linux before 6.6
}

// A Lab is a set of hosts. It owns all that is in it; Close, or the end of the context it was made
// with, removes everything.
type Lab struct {
	Options  Options
	Client   *Host
	Director *Host
	Router   *Host // nil when Switched
	Switch   *Host // holds the bridges and the far ends of all cables
	Servers  []*Server

	DirectorTap *Tap // nil with Options.NoTaps
	ClientTap   *Tap

	// DirectorInterfaces are the director's interfaces: where requests arrive, then where servers are.
	DirectorInterfaces []string

	// SoftVLANs says that the kernel has no VLAN interfaces, and programs of the lab's stand in for them. The director
	// finds only the kernel's own kind by itself, so Config names these.
	SoftVLANs bool

	directorVLANs []string

	plan   plan
	prefix string
	hosts  []*Host
	stop   func() bool // detaches the lab from its context

	mu      sync.Mutex
	closers []func() error
	closing bool

	closeOnce sync.Once
	closeErr  error
}

// New sweeps up after crashed labs, builds a lab and starts its services. When it returns, all is in
// place: there is nothing to wait for. The lab is closed when ctx ends.
func New(ctx context.Context, o Options) (*Lab, error) {
	if o.Servers == 0 {
		o.Servers = 3
	}
	if len(o.Modes) == 0 {
		o.Modes = []table.Mode{table.DR, table.TUN, table.NAT}
	}
	if o.Decap == nil {
		o.Decap = DefaultDecap
	}
	if o.Servers < 0 || o.Servers > 250 {
		return nil, fmt.Errorf("lab: %d servers a mode; from 1 to 250 are possible", o.Servers)
	}
	l, err := NewEmpty(ctx, o)
	if err != nil {
		return nil, err
	}
	if err := l.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s lab: %w", o.Layout, err), l.Close())
	}
	return l, nil
}

// NewEmpty makes a lab without hosts, for topologies of one's own: see AddHost, Connect and AddBridge.
func NewEmpty(ctx context.Context, o Options) (*Lab, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p, err := acquire()
	if errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("a lab needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN): %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("claim names for a lab: %w", err)
	}
	if err := Sweep(); err != nil {
		return nil, errors.Join(fmt.Errorf("remove what earlier labs left: %w", err), release())
	}
	l := &Lab{Options: o, prefix: p}
	l.stop = context.AfterFunc(ctx, func() { _ = l.Close() }) // the owner's own Close returns the error
	return l, nil
}

// Close ends all processes and services of the lab, then removes its namespaces and their links. It may be called more
// than once and from several goroutines; all calls return when everything is gone, with the same error.
func (l *Lab) Close() error {
	l.closeOnce.Do(func() {
		l.stop()
		l.mu.Lock()
		closers := l.closers
		l.closers, l.closing = nil, true
		l.mu.Unlock()
		var errs []error
		for i := len(closers) - 1; i >= 0; i-- {
			errs = append(errs, closers[i]())
		}
		for _, h := range l.hosts {
			errs = append(errs, h.close())
		}
		l.closeErr = errors.Join(append(errs, release())...)
	})
	return l.closeErr
}

// atClose registers what Close has to undo, last first; on a closed lab it is undone at once.
func (l *Lab) atClose(f func() error) {
	l.mu.Lock()
	closing := l.closing
	if !closing {
		l.closers = append(l.closers, f)
	}
	l.mu.Unlock()
	if closing {
		_ = f() // nobody is left to tell
	}
}

// AddHost adds an empty host: lo is up, there is nothing else.
func (l *Lab) AddHost(name string) (*Host, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closing {
		return nil, ErrClosed
	}
	h, err := newHost(l, name, len(l.hosts))
	if err != nil {
		return nil, err
	}
	l.hosts = append(l.hosts, h)
	return h, nil
}

// Host returns a host by its name, or nil.
func (l *Lab) Host(name string) *Host {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.hosts {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// LinkOptions shape a cable; zero fields mean the kernel's defaults.
type LinkOptions struct {
	MTU    int
	Queues int // of both ends, each way: a frame is received on the queue it was sent on
}

// Connect lays a cable (a veth pair) between two hosts and sets both ends up. MAC addresses follow from the
// order in which hosts and cables were made, so they are the same in every run.
func (l *Lab) Connect(a *Host, aName string, b *Host, bName string, o LinkOptions) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.HardwareAddr, attrs.MTU = aName, a.nextMAC(), o.MTU
	attrs.NumTxQueues, attrs.NumRxQueues = o.Queues, o.Queues
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerMTU = bName, b.nextMAC(), uint32(o.MTU)
	veth.PeerNumTxQueues, veth.PeerNumRxQueues = uint32(o.Queues), uint32(o.Queues)
	veth.PeerNamespace = netlink.NsFd(b.ns)
	if err := a.nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("connect %s of %s with %s of %s: %w", aName, a.Name, bName, b.Name, err)
	}
	if err := b.SetLink(bName, true); err != nil {
		return err
	}
	return a.SetLink(aName, true)
}

func (h *Host) nextMAC() net.HardwareAddr {
	h.links++
	return net.HardwareAddr{2, 0x58, byte(h.number >> 8), byte(h.number), byte(h.links >> 8), byte(h.links)}
}

// AddBridge makes an Ethernet segment on a host. It forwards at once and does not look into multicast.
func (l *Lab) AddBridge(h *Host, name string, o LinkOptions) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = name, o.MTU, h.nextMAC()
	snooping := false
	if err := h.nl.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
		return fmt.Errorf("make bridge %s on %s: %w", name, h.Name, err)
	}
	return h.SetLink(name, true)
}

// Plug connects interface ifname of h to a bridge of the lab's switch; the switch's end is called port.
func (l *Lab) Plug(h *Host, ifname, bridge, port string, o LinkOptions) error {
	if err := l.Connect(h, ifname, l.Switch, port, o); err != nil {
		return err
	}
	master, err := l.Switch.link(bridge)
	if err != nil {
		return err
	}
	slave, err := l.Switch.link(port)
	if err != nil {
		return err
	}
	if err := l.Switch.nl.LinkSetMaster(slave, master); err != nil {
		return fmt.Errorf("plug %s into %s: %w", port, bridge, err)
	}
	return nil
}

// DirectorAddr returns the director's address where requests arrive.
func (l *Lab) DirectorAddr(v6 bool) netip.Addr { return l.plan.director(v6)[0] }

// ClientAddr returns the client's own address.
func (l *Lab) ClientAddr(v6 bool) netip.Addr { return l.plan.client(v6) }

// VIP returns the virtual address of a mode and family.
func (l *Lab) VIP(m table.Mode, v6 bool) netip.Addr { return l.plan.vip(m, v6) }

// Server returns a server by its name (dr1, tun2, nat3), or nil.
func (l *Lab) Server(name string) *Server {
	for _, s := range l.Servers {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Group returns the servers of a mode.
func (l *Lab) Group(m table.Mode) []*Server {
	var group []*Server
	for _, s := range l.Servers {
		if s.Mode == m {
			group = append(group, s)
		}
	}
	return group
}
