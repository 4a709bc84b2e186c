// Package announce says on the director's segments that a VIP is here: it answers ARP requests and neighbour
// solicitations for virtual addresses, announces them unasked, and notices when somebody else claims one.
//
// It does so from user space, through AF_PACKET sockets with a BPF filter, and configures no address in the
// kernel: when the process dies, however it dies, nothing is left that goes on answering.
//
// ARP follows RFC 826 and RFC 5227, neighbour discovery RFC 4861, 7.2. Frames with a VLAN tag are not looked at.
package announce

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vishvananda/netns"
)

// An Interface is one that VIPs are announced on, as the kernel describes it.
type Interface struct {
	Name  string
	Index int
	MAC   net.HardwareAddr
	Addrs []netip.Prefix // the host's addresses with the length of their prefix
	Up    bool           // up, with a carrier
	Ups   uint64         // changes whenever the link came up again; 0 if that is not known
	NoARP bool           // IFF_NOARP or IFF_LOOPBACK
}

// A Conflict says that another host claims a VIP.
type Conflict struct {
	Interface string
	VIP       netip.Addr
	MAC       net.HardwareAddr // who claims it
	Count     uint64           // claims of this MAC since the last event for it, at least 1
}

func (c Conflict) String() string {
	return fmt.Sprintf("%v also claims %v on %s: find that host and take the address off it, or keep it from answering for it"+
		" (on a DR server: arp_ignore=1, arp_announce=2)", c.MAC, c.VIP, c.Interface)
}

// Options of an Announcer. The zero value works.
type Options struct {
	// OnConflict is called for a conflict, at most once in ConflictEvery for each VIP and MAC. It must not call the Announcer.
	OnConflict    func(Conflict)
	ConflictEvery time.Duration // default 10 s, which is also how often a VIP is defended at most (RFC 5227, DEFEND_INTERVAL)

	// Announcements are the times after an occasion (VIP added, link up, MAC changed) at which a VIP
	// is announced; default 0, 1 s and 3 s.
	Announcements []time.Duration

	// Namespace is the network namespace to open sockets in; nil is that of the thread which calls Set.
	Namespace *netns.NsHandle
}

// A Status is what the Announcer does on one interface.
type Status struct {
	Interface string
	Skipped   string       // why nothing is done here; empty if something is
	VIPs      []netip.Addr // that are answered for, sorted
	Answered  uint64       // requests and solicitations
	Announced uint64       // frames sent unasked
	Conflicts uint64       // claims by others
	Failed    uint64       // frames that could not be sent
	Note      string       // what works only in part
}

// An Announcer answers until Close. All methods may be called from any goroutine.
type Announcer struct {
	opt Options

	mu     sync.Mutex
	ports  map[portKey]*port
	status []Status // of skipped interfaces
	closed bool
}

type portKey struct {
	name  string
	index int
}

// New makes an Announcer that answers for nothing yet.
func New(o Options) *Announcer {
	if o.OnConflict == nil {
		o.OnConflict = func(Conflict) {}
	}
	if o.ConflictEvery <= 0 {
		o.ConflictEvery = 10 * time.Second
	}
	if o.Announcements == nil {
		o.Announcements = []time.Duration{0, time.Second, 3 * time.Second}
	}
	return &Announcer{opt: o, ports: map[portKey]*port{}}
}

// Set makes vips the addresses that are answered for, on the given interfaces. A VIP that lies in the prefix of
// some interface's address is answered for only where it does: on other segments nobody should
// ask, and claiming it there could shadow a real host. One that lies in none is answered for everywhere. An
// address of the host itself is left to the kernel, and an interface without ARP is skipped; Status says so.
//
// The error names the interfaces that could not be opened; the others work, and the next Set tries again.
func (a *Announcer) Set(interfaces []Interface, vips []netip.Addr) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return errors.New("announce: closed")
	}
	placed := place(interfaces, vips)
	ours := macsOf(interfaces)
	a.status = nil
	keep := map[portKey]bool{}
	var errs []error
	for i, ifc := range interfaces {
		if why := skip(ifc); why != "" {
			a.status = append(a.status, Status{Interface: ifc.Name, Skipped: why})
			continue
		}
		k := portKey{ifc.Name, ifc.Index}
		keep[k] = true
		p := a.ports[k]
		if p == nil {
			var err error
			if p, err = openPort(&a.opt, ifc); err != nil {
				errs = append(errs, err)
				a.status = append(a.status, Status{Interface: ifc.Name, Skipped: err.Error()})
				continue
			}
			a.ports[k] = p
		}
		p.set(ifc, ours, placed[i])
	}
	for k, p := range a.ports {
		if !keep[k] {
			p.close()
			delete(a.ports, k)
		}
	}
	return errors.Join(errs...)
}

// Status describes all interfaces of the last Set, sorted by name.
func (a *Announcer) Status() []Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := slices.Clone(a.status)
	for _, p := range a.ports {
		s = append(s, p.status())
	}
	slices.SortFunc(s, func(x, y Status) int { return cmp.Compare(x.Interface, y.Interface) })
	return s
}

// Close stops answering and waits until everything has ended. Further calls do nothing.
func (a *Announcer) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	for k, p := range a.ports {
		p.close()
		delete(a.ports, k)
	}
	return nil
}

func skip(i Interface) string {
	switch {
	case i.NoARP:
		return i.Name + " has no ARP (loopback, tunnel or NOARP)"
	case len(i.MAC) != 6 || [6]byte(i.MAC) == [6]byte{}:
		return i.Name + " has no Ethernet address"
	}
	return ""
}

func macsOf(interfaces []Interface) map[[6]byte]bool {
	m := map[[6]byte]bool{}
	for _, i := range interfaces {
		if len(i.MAC) == 6 {
			m[[6]byte(i.MAC)] = true
		}
	}
	return m
}

// place tells for each interface which VIPs are answered for on it.
func place(interfaces []Interface, vips []netip.Addr) []map[netip.Addr]bool {
	out := make([]map[netip.Addr]bool, len(interfaces))
	own := map[netip.Addr]bool{}
	for i, ifc := range interfaces {
		out[i] = map[netip.Addr]bool{}
		for _, p := range ifc.Addrs {
			own[p.Addr().Unmap()] = true
		}
	}
	for _, vip := range vips {
		vip = vip.Unmap()
		if !vip.IsValid() || own[vip] {
			continue
		}
		on := func(ifc Interface) bool {
			return slices.ContainsFunc(ifc.Addrs, func(p netip.Prefix) bool { return p.Contains(vip) })
		}
		somewhere := slices.ContainsFunc(interfaces, on)
		for i, ifc := range interfaces {
			if !somewhere || on(ifc) {
				out[i][vip] = true
			}
		}
	}
	return out
}
