package testenv

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// ErrClosed is returned for what is asked of a host after its lab was closed.
var ErrClosed = errors.New("the lab is closed")

// A Host is a network namespace of a lab. Its methods may be called from any goroutine.
type Host struct {
	Name      string // as in the pictures of the package: client, director, dr1
	Namespace string // as in /run/netns

	lab    *Lab
	number int // of the host in its lab; part of its MAC addresses
	links  int // interfaces so far

	filters atomic.Uint32 // attached so far by attachFilter

	mu sync.RWMutex // guards ns against being closed while a thread enters
	ns netns.NsHandle
	nl *netlink.Handle
}

// newHost creates the namespace with lo up and the kernel settings that all hosts share.
func newHost(lab *Lab, name string, number int) (*Host, error) {
	h := &Host{Name: name, Namespace: lab.prefix + name, lab: lab, number: number, ns: netns.None()}
	created := make(chan error, 1)
	go onThreadToEnd(func() {
		ns, err := netns.NewNamed(h.Namespace)
		h.ns = ns
		created <- err
	})
	if err := <-created; err != nil {
		// NewNamed may have made the file and then failed to mount on it.
		return nil, errors.Join(fmt.Errorf("create network namespace %s: %w", h.Namespace, err), removeNamespace(h.Namespace))
	}
	if err := h.setUp(); err != nil {
		return nil, errors.Join(fmt.Errorf("set up network namespace %s: %w", h.Namespace, err), h.close())
	}
	return h, nil
}

func (h *Host) setUp() (err error) {
	if h.nl, err = netlink.NewHandleAt(h.ns, unix.NETLINK_ROUTE); err != nil {
		return err
	}
	if err := h.SetLink("lo", true); err != nil {
		return err
	}
	return h.Sysctl(map[string]string{
		// Replies take another way than requests in DR and TUN: a reverse path filter drops them.
		"net.ipv4.conf.all.rp_filter":     "0",
		"net.ipv4.conf.default.rp_filter": "0",
		// A redirect would teach a host the way past the director.
		"net.ipv4.conf.all.accept_redirects":     "0",
		"net.ipv4.conf.default.accept_redirects": "0",
		"net.ipv4.conf.all.send_redirects":       "0",
		"net.ipv4.conf.default.send_redirects":   "0",
		"net.ipv6.conf.all.accept_redirects":     "0",
		"net.ipv6.conf.default.accept_redirects": "0",
		// Addresses of a lab are unique by construction; detection would cost a second each.
		"net.ipv6.conf.all.accept_dad":               "0",
		"net.ipv6.conf.default.accept_dad":           "0",
		"net.ipv6.conf.default.accept_ra":            "0",
		"net.ipv6.conf.default.router_solicitations": "0",
	})
}

// removeNamespace takes a namespace's name away; the namespace itself goes with the last socket and thread in it.
func removeNamespace(name string) error {
	path := filepath.Join(netnsDir, name)
	err := unix.Unmount(path, unix.MNT_DETACH)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
		err = nil // not mounted: a run may have died between creating the file and mounting on it
	}
	if err != nil {
		err = fmt.Errorf("unmount %s: %w", path, err)
	}
	if e := os.Remove(path); e != nil && !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}

func (h *Host) close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ns.IsOpen() {
		return nil
	}
	if h.nl != nil {
		h.nl.Close()
	}
	return errors.Join(h.ns.Close(), removeNamespace(h.Namespace))
}

// enter moves the calling thread, which must be locked, into the namespace.
func (h *Host) enter() error {
	h.mu.RLock()
	defer h.mu.RUnlock()
	if !h.ns.IsOpen() {
		return fmt.Errorf("%s: %w", h.Name, ErrClosed)
	}
	if err := netns.Set(h.ns); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", h.Namespace, err)
	}
	return nil
}

// onThreadToEnd runs fn on a thread that ends with it, whatever namespaces fn has left it in. It must have a goroutine of its own.
func onThreadToEnd(fn func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		fn() // never unlocked: the runtime ends the thread with the goroutine
		return
	}
	// The main thread cannot end; it would stay in the namespace for good. Held here, it is not the next one.
	started := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(started)
		fn()
	}()
	<-started
	runtime.UnlockOSThread()
}

// Do runs fn on a thread of its own inside the namespace and returns fn's error. Sockets that fn opens
// stay in the namespace. Goroutines that fn starts are not in it.
func (h *Host) Do(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		err := errors.New("the function ended its goroutine")
		defer func() { done <- err }()
		runtime.LockOSThread()
		home, e := netns.Get()
		if e != nil {
			runtime.UnlockOSThread()
			err = fmt.Errorf("find this thread's network namespace: %w", e)
			return
		}
		defer home.Close()
		defer func() {
			// A thread that cannot come home stays locked, and the runtime ends it with this goroutine.
			if netns.Set(home) == nil {
				runtime.UnlockOSThread()
			}
		}()
		if err = h.enter(); err == nil {
			err = errors.New("the function ended its goroutine")
			err = fn()
		}
	}()
	return <-done
}

// Sysctl writes kernel settings of the namespace, named with dots as in sysctl(8).
func (h *Host) Sysctl(settings map[string]string) error {
	return h.Do(func() error {
		for name, value := range settings {
			// The kernel resolves /proc/sys/net against the namespace of the thread that opens the file.
			path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
			if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
				return fmt.Errorf("set %s on %s: %w", name, h.Name, err)
			}
		}
		return nil
	})
}

// Netlink returns a handle whose requests are about this namespace. The lab closes it.
func (h *Host) Netlink() *netlink.Handle { return h.nl }

func (h *Host) link(ifname string) (netlink.Link, error) {
	l, err := h.nl.LinkByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("interface %s of %s: %w", ifname, h.Name, err)
	}
	return l, nil
}

// MAC returns the Ethernet address of an interface.
func (h *Host) MAC(ifname string) (net.HardwareAddr, error) {
	l, err := h.link(ifname)
	if err != nil {
		return nil, err
	}
	return l.Attrs().HardwareAddr, nil
}

// SetLink sets an interface up or down, with a kernel's defaults: IPv4 addresses and the routes to their subnets survive that, IPv6
// ones do where keep_addr_on_down is set (a running director sets it); routes by a gateway are gone: see Lab.RestoreRoutes.
func (h *Host) SetLink(ifname string, up bool) error {
	l, err := h.link(ifname)
	if err != nil {
		return err
	}
	if up {
		err = h.nl.LinkSetUp(l)
	} else {
		err = h.nl.LinkSetDown(l)
	}
	if err != nil {
		return fmt.Errorf("set interface %s of %s up=%t: %w", ifname, h.Name, up, err)
	}
	return nil
}

// AddAddr gives an interface an address. When it returns, the address works: there is no duplicate address detection.
func (h *Host) AddAddr(ifname string, p netip.Prefix) error {
	if err := h.addAddr(ifname, p); err != nil {
		return err
	}
	return h.awaitAddr(p.Addr())
}

func (h *Host) addAddr(ifname string, p netip.Prefix) error {
	l, err := h.link(ifname)
	if err != nil {
		return err
	}
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := h.nl.AddrAdd(l, a); err != nil {
		return fmt.Errorf("add address %s to %s of %s: %w", p, ifname, h.Name, err)
	}
	return nil
}

// awaitAddr waits until packets for an address are delivered. Even without duplicate address detection the
// kernel adds the local route of an IPv6 address from a work queue (addrconf_dad_work in net/ipv6/addrconf.c), while
// bind succeeds at once; what comes in between is answered with "no route".
func (h *Host) awaitAddr(a netip.Addr) error {
	const limit = 5 * time.Second
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Millisecond) {
		routes, err := h.nl.RouteGet(a.AsSlice())
		if err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("address %s of %s is not in use %v after it was added: %w", a, h.Name, limit, err)
		}
	}
}

// AddRoute adds a route over an interface. An invalid via makes it on-link.
func (h *Host) AddRoute(dst netip.Prefix, via netip.Addr, ifname string) error {
	l, err := h.link(ifname)
	if err != nil {
		return err
	}
	r := &netlink.Route{Dst: ipNet(dst), LinkIndex: l.Attrs().Index}
	if via.IsValid() {
		r.Gw = via.AsSlice()
	} else {
		r.Scope = netlink.SCOPE_LINK
	}
	if err := h.nl.RouteReplace(r); err != nil {
		return fmt.Errorf("add route to %s via %s of %s: %w", dst, ifname, h.Name, err)
	}
	return nil
}

// SetNeighbour makes addr resolve to mac for good, without ARP or neighbour discovery.
func (h *Host) SetNeighbour(ifname string, addr netip.Addr, mac net.HardwareAddr) error {
	l, err := h.link(ifname)
	if err != nil {
		return err
	}
	n := &netlink.Neigh{LinkIndex: l.Attrs().Index, IP: addr.AsSlice(), HardwareAddr: mac, State: netlink.NUD_PERMANENT}
	if err := h.nl.NeighSet(n); err != nil {
		return fmt.Errorf("set neighbour %s on %s of %s: %w", addr, ifname, h.Name, err)
	}
	return nil
}

// Counters are what the kernel counted on an interface since it was made. What an XDP program takes
// or redirects is not always in them; a Tap counts it.
type Counters struct {
	RxPackets, RxBytes uint64
	TxPackets, TxBytes uint64
}

// Counters reads an interface's counters.
func (h *Host) Counters(ifname string) (Counters, error) {
	l, err := h.link(ifname)
	if err != nil {
		return Counters{}, err
	}
	s := l.Attrs().Statistics
	if s == nil {
		return Counters{}, fmt.Errorf("interface %s of %s: the kernel sent no statistics", ifname, h.Name)
	}
	return Counters{RxPackets: s.RxPackets, RxBytes: s.RxBytes, TxPackets: s.TxPackets, TxBytes: s.TxBytes}, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Features returns the offloads of an interface that are on and off, by the kernel's names.
func (h *Host) Features(ifname string) (features map[string]bool, err error) {
	err = h.Do(func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer e.Close()
		if features, err = e.Features(ifname); err != nil {
			return fmt.Errorf("features of %s of %s: %w", ifname, h.Name, err)
		}
		return nil
	})
	return features, err
}

// SetFeatures switches offloads of an interface on or off, by the kernel's names (`ethtool -k` translates some of them).
func (h *Host) SetFeatures(ifname string, features map[string]bool) error {
	return h.Do(func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer e.Close()
		if err := e.Change(ifname, features); err != nil {
			return fmt.Errorf("set features %v of %s of %s: %w", features, ifname, h.Name, err)
		}
		return nil
	})
}
