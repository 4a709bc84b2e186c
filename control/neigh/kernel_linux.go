package neigh

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// receiveBuffer of the subscription: room for a burst of some ten thousand route changes before ENOBUFS.
const receiveBuffer = 8 << 20

type netlinkKernel struct {
	h  *netlink.Handle
	ns netns.NsHandle
}

func openKernel(ns *netns.NsHandle) (kernel, error) {
	k := &netlinkKernel{ns: netns.None()}
	if ns != nil {
		k.ns = *ns
	}
	h, err := netlink.NewHandleAt(k.ns, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	k.h = h
	return k, nil
}

func (k *netlinkKernel) close() { k.h.Close() }

// dump repeats a listing that changes interrupted, a few times: the last one is complete enough, because the
// change that interrupted it also comes as an event.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	var res []T
	var err error
	for range 5 {
		if res, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return res, err
		}
	}
	return res, nil
}

func (k *netlinkKernel) interfaces() ([]Facts, error) {
	links, err := dump(k.h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	addrs, err := dump(func() ([]netlink.Addr, error) { return k.h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	byIndex, static := map[int][]netip.Prefix{}, map[int]bool{}
	checking, usable := map[int]bool{}, map[int]bool{}
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if a.IPNet == nil || !ok {
			continue
		}
		ones, _ := a.Mask.Size()
		byIndex[a.LinkIndex] = append(byIndex[a.LinkIndex], netip.PrefixFrom(ip.Unmap(), ones))
		if ip.Unmap().Is6() && !ip.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_PERMANENT != 0 {
			static[a.LinkIndex] = true
		}
		switch tentative := a.Flags&unix.IFA_F_TENTATIVE != 0; {
		case ip.Unmap().Is4():
		case tentative && a.Flags&(unix.IFA_F_DADFAILED|unix.IFA_F_OPTIMISTIC) == 0:
			checking[a.LinkIndex] = true
		case !tentative:
			usable[a.LinkIndex] = true
		}
	}
	facts := make([]Facts, 0, len(links))
	for _, l := range links {
		a := l.Attrs()
		f := Facts{Name: a.Name, Index: a.Index, MAC: a.HardwareAddr, MTU: a.MTU, Addrs: byIndex[a.Index], Static6: static[a.Index],
			Checking6: checking[a.Index] && !usable[a.Index]}
		f.Up = running(a.RawFlags)
		f.NoARP = a.RawFlags&(unix.IFF_LOOPBACK|unix.IFF_NOARP) != 0 || len(a.HardwareAddr) != 6
		f.VLAN = vlanOf(l)
		slices.SortFunc(f.Addrs, netip.Prefix.Compare)
		facts = append(facts, f)
	}
	return facts, nil
}

// vlanOf reads of which interface a link is a VLAN. That of a VLAN which was moved here from another network namespace stayed
// there, where its index means another one.
func vlanOf(l netlink.Link) VLAN {
	v, ok := l.(*netlink.Vlan)
	if !ok || v.NetNsID >= 0 || v.ParentIndex <= 0 {
		return VLAN{}
	}
	return VLAN{Parent: v.ParentIndex, Type: uint16(v.VlanProtocol), ID: uint16(v.VlanId)}
}

// running asks for IFF_LOWER_UP, the carrier itself: IFF_RUNNING follows it up to a second later, when linkwatch has run.
func running(flags uint32) bool {
	return flags&unix.IFF_UP != 0 && flags&unix.IFF_LOWER_UP != 0
}

func (k *netlinkKernel) route(addr netip.Addr) (route, error) {
	var opt *netlink.RouteGetOptions
	if addr.Zone() != "" {
		opt = &netlink.RouteGetOptions{Oif: addr.Zone()}
	}
	rs, err := k.h.RouteGetWithOptions(net.IP(addr.AsSlice()), opt)
	switch {
	case isAny(err, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EACCES, unix.EINVAL, unix.EAGAIN, unix.ENODEV):
		// The last four are prohibit, blackhole (in both families), throw, and an IPv6 address without IPv6.
		return route{kind: unreachable}, nil
	case err != nil:
		return route{}, fmt.Errorf("ask the route to %v: %w", addr, err)
	case len(rs) == 0:
		return route{kind: unreachable}, nil
	}
	return fromNetlink(rs[0]), nil
}

func fromNetlink(r netlink.Route) route {
	out := route{ifindex: r.LinkIndex, source: toAddr(r.Src), gateway: toAddr(r.Gw), mtu: r.MTU}
	if v, ok := r.Via.(*netlink.Via); ok && v != nil {
		out.gateway = toAddr(v.Addr)
	}
	if out.gateway.IsValid() && out.gateway.IsUnspecified() {
		out.gateway = netip.Addr{}
	}
	switch r.Type {
	case unix.RTN_UNICAST, unix.RTN_UNSPEC:
		out.kind = unicast
	case unix.RTN_LOCAL:
		out.kind = local
	case unix.RTN_BLACKHOLE, unix.RTN_UNREACHABLE, unix.RTN_PROHIBIT, unix.RTN_THROW:
		out.kind = unreachable
	default:
		out.kind = unusable
	}
	return out
}

func toAddr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func isAny(err error, targets ...syscall.Errno) bool {
	return slices.ContainsFunc(targets, func(t syscall.Errno) bool { return errors.Is(err, t) })
}

func (k *netlinkKernel) neighbours() ([]neighbour, error) {
	var out []neighbour
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := dump(func() ([]netlink.Neigh, error) { return k.h.NeighList(0, family) })
		if isAny(err, unix.EOPNOTSUPP, unix.EAFNOSUPPORT) {
			continue // a kernel without this family
		}
		if err != nil {
			return nil, fmt.Errorf("list neighbours: %w", err)
		}
		for i := range list {
			out = append(out, neighbourOf(&list[i]))
		}
	}
	return out, nil
}

func neighbourOf(n *netlink.Neigh) neighbour {
	return neighbour{key: neighKey{n.LinkIndex, toAddr(n.IP)}, mac: n.HardwareAddr, state: n.State, flags: n.Flags}
}

// use relies on neigh_add: with NTF_USE it leaves the state of an existing entry alone, creates a missing
// one, and then calls neigh_event_send, as a packet to the address would.
func (k *netlinkKernel) use(key neighKey) error {
	return k.h.NeighSet(&netlink.Neigh{
		LinkIndex: key.ifindex, IP: net.IP(key.addr.AsSlice()), State: netlink.NUD_NONE, Flags: netlink.NTF_USE,
	})
}

// verify puts the entry into NUD_PROBE, so that unicast probes go out now and not after delay_first_probe_time. The
// flags are handed back because neigh_add would clear them: an IPv6 router would cease to be one. No MAC is given, so
// that the kernel keeps the one it has, which may be newer than ours; without any it says EINVAL, and
// the notification of that is under way.
func (k *netlinkKernel) verify(n neighbour) error {
	err := k.h.NeighSet(&netlink.Neigh{
		LinkIndex: n.key.ifindex, IP: net.IP(n.key.addr.AsSlice()), State: netlink.NUD_PROBE,
		Flags: n.flags & (netlink.NTF_ROUTER | netlink.NTF_EXT_LEARNED),
	})
	if isAny(err, unix.EINVAL) {
		return nil
	}
	return err
}

func (k *netlinkKernel) remove(key neighKey) error {
	err := k.h.NeighDel(&netlink.Neigh{LinkIndex: key.ifindex, IP: net.IP(key.addr.AsSlice())})
	if isAny(err, unix.ENOENT, unix.ENODEV, unix.ENXIO) {
		return nil
	}
	return err
}

// inNamespace runs f where the kernel resolves /proc/sys/net: on a thread in the namespace. One that cannot be put back is thrown away.
func (k *netlinkKernel) inNamespace(f func() error) error {
	if !k.ns.IsOpen() {
		return f()
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			done <- err
			return
		}
		defer home.Close()
		if err := netns.Set(k.ns); err != nil {
			done <- fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		err = f()
		if netns.Set(home) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

func (k *netlinkKernel) setting(name string) (value int, err error) {
	err = k.inNamespace(func() error {
		b, err := os.ReadFile("/proc/sys/" + name)
		if err == nil {
			value, err = strconv.Atoi(strings.TrimSpace(string(b)))
		}
		return err
	})
	return value, err
}

func (k *netlinkKernel) set(name string, value int) error {
	return k.inNamespace(func() error { return os.WriteFile("/proc/sys/"+name, []byte(strconv.Itoa(value)), 0) })
}

func (k *netlinkKernel) subscribe() (<-chan event, func(), error) {
	s, err := nl.SubscribeAt(k.ns, netns.None(), unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return nil, nil, fmt.Errorf("netlink subscription: %w", err)
	}
	if s.SetReceiveBufferSize(receiveBuffer, true) != nil {
		// Without CAP_NET_ADMIN the system's limit has to do.
		_ = s.SetReceiveBufferSize(receiveBuffer, false)
	}
	ch := make(chan event, 256)
	quit := make(chan struct{})
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		defer close(ch)
		for {
			msgs, from, err := s.Receive()
			if err != nil {
				return
			}
			if from.Pid != nl.PidKernel {
				continue
			}
			for i := range msgs {
				e, ok := parseEvent(msgs[i].Header.Type, msgs[i].Data)
				if !ok {
					continue
				}
				select {
				case ch <- e:
				case <-quit:
					return
				}
			}
		}
	}()
	stop := func() {
		close(quit)
		s.Close()
		<-finished
	}
	return ch, stop, nil
}
