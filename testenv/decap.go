package testenv

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"xlvs/dataplane/steer"
)

// A Decapsulation says what a TUN server has to unwrap: packets to an address of Outer that carry,
// in IP-in-IP of any two families, a packet to one of Inner.
type Decapsulation struct {
	Interface string // where the packets arrive
	Index     int    // of the interface
	Outer     []netip.Addr
	Inner     []netip.Addr
}

// A Decapper installs a decapsulator. It runs on a thread inside the server's namespace. What it
// returns is closed with the lab.
type Decapper func(Decapsulation) (io.Closer, error)

func (l *Lab) decapsulate(s *Server) error {
	link, err := s.Host.link("eth0")
	if err != nil {
		return err
	}
	d := Decapsulation{
		Interface: "eth0",
		Index:     link.Attrs().Index,
		Outer:     []netip.Addr{s.v4, s.v6},
		Inner:     []netip.Addr{s.VIP(false), s.VIP(true)},
	}
	var c io.Closer
	err = s.Host.Do(func() (err error) {
		c, err = l.Options.Decap(d)
		return err
	})
	if err != nil {
		return fmt.Errorf("decapsulator of %s: %w", s.Host.Name, err)
	}
	l.atClose(c.Close)
	return nil
}

// ErrNoTunnel says that the kernel was built without IP tunnels.
var ErrNoTunnel = errors.New("the kernel has no IP tunnels (modules ipip, sit and ip6_tunnel)")

// KernelDecap decapsulates with the kernel's own tunnel devices, as classic TUN servers do: ipip for IPv4 in
// IPv4, sit for IPv6 in IPv4, ip6tnl for both in IPv6. They are removed with the namespace. The error is
// ErrNoTunnel where the kernel has none.
func KernelDecap(d Decapsulation) (io.Closer, error) {
	for _, outer := range d.Outer {
		for _, t := range tunnels(outer) {
			if err := addTunnel(t); err != nil {
				return nil, err
			}
		}
	}
	return io.NopCloser(nil), nil
}

// tunnels returns the devices that take packets from any director to the outer address.
func tunnels(outer netip.Addr) []netlink.Link {
	named := func(name string) netlink.LinkAttrs {
		a := netlink.NewLinkAttrs()
		a.Name = name
		return a
	}
	local := net.IP(outer.AsSlice())
	if outer.Is6() {
		// Protocol 0 stands for both IPv4 and IPv6 inside.
		return []netlink.Link{&netlink.Ip6tnl{LinkAttrs: named("decap6"), Local: local, Remote: net.IPv6zero}}
	}
	return []netlink.Link{
		&netlink.Iptun{LinkAttrs: named("decap4"), Local: local, Remote: net.IPv4zero.To4()},
		&netlink.Sittun{LinkAttrs: named("decap64"), Local: local, Remote: net.IPv4zero.To4()},
	}
}

func addTunnel(t netlink.Link) error {
	err := netlink.LinkAdd(t)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return ErrNoTunnel
	}
	if err != nil {
		return fmt.Errorf("make %s tunnel %s: %w", t.Type(), t.Attrs().Name, err)
	}
	return netlink.LinkSetUp(t)
}

// DefaultDecap decapsulates with the XDP program of package steer. It is preferred to the kernel's tunnels, which
// many kernels lack, and whose modules put interfaces (tunl0, sit0, ip6tnl0) into the host's own namespace when loaded.
func DefaultDecap(d Decapsulation) (io.Closer, error) {
	program, err := steer.LoadDecap(d.Outer, d.Inner)
	if err != nil {
		return nil, err
	}
	if _, err := program.Attach(d.Index, d.Interface, steer.Auto); err != nil {
		return nil, errors.Join(err, program.Close())
	}
	return program, nil
}
