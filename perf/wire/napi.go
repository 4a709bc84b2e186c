package wire

import (
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"xlvs/dataplane/xsk"
	"xlvs/testenv"
)

// Numbers of the generic netlink family "netdev" (include/uapi/linux/netdev.h).
const (
	netdevCmdNAPIGet = 11
	netdevNAPIIndex  = 1
	netdevNAPIPID    = 4
)

// genlHeader is a generic netlink header: command, version and two bytes that must be zero. (nl.Genlmsg sends what lies
// behind it in memory instead, which the kernel refuses now and then.)
type genlHeader [4]byte

// Len implements nl.NetlinkRequestData.
func (genlHeader) Len() int { return 4 }

// Serialize implements nl.NetlinkRequestData.
func (h genlHeader) Serialize() []byte { return h[:] }

// napiThreads returns the kernel threads that poll an interface of the calling thread's namespace.
func napiThreads(ifindex int) (pids []int, err error) {
	family, err := netlink.GenlFamilyGet("netdev")
	if err != nil {
		return nil, fmt.Errorf("ask for NAPI threads, which Linux tells of since 6.8: %w", err)
	}
	req := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_DUMP)
	req.AddData(genlHeader{netdevCmdNAPIGet, 1})
	req.AddData(nl.NewRtAttr(netdevNAPIIndex, nl.Uint32Attr(uint32(ifindex))))
	msgs, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return nil, fmt.Errorf("ask for NAPI threads, which Linux tells of since 6.8: %w", err)
	}
	for _, m := range msgs {
		attrs, err := nl.ParseRouteAttr(m[nl.SizeofGenlmsg:])
		if err != nil {
			return nil, fmt.Errorf("ask for NAPI threads: %w", err)
		}
		for _, a := range attrs {
			if a.Attr.Type == netdevNAPIPID {
				pids = append(pids, int(nl.NativeEndian().Uint32(a.Value)))
			}
		}
	}
	return pids, nil
}

// threadNAPI has kernel threads poll an interface of the forwarder, on its core, until it is undone.
func (r *rig) threadNAPI(ifname string) (undo func() error, err error) {
	undo, r.kernel, err = threadNAPI(r.forwarder, ifname, r.cores.forwarder)
	return undo, err
}

// threadNAPI has kernel threads poll an interface of h, on one core, until it is undone. NAPI must be there by now: an XDP
// program or GRO makes it.
func threadNAPI(h *testenv.Host, ifname string, cpu int) (undo func() error, pids []int, err error) {
	var back func() error
	err = h.Do(func() (err error) {
		back, err = xsk.SetAttributes(ifname, []xsk.Attribute{{File: "threaded", Value: "1"}})
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	undo = func() error {
		if err := back(); !errors.Is(err, unix.EOPNOTSUPP) {
			return err
		}
		return nil // NAPI has ended with the XDP program, and its threads with it
	}
	err = h.Do(func() error {
		link, err := netlink.LinkByName(ifname)
		if err != nil {
			return err
		}
		pids, err = napiThreads(link.Attrs().Index)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return errors.New("no kernel thread polls " + ifname)
		}
		for _, pid := range pids {
			if err := pin(pid, cpu, highest); err != nil {
				return fmt.Errorf("pin NAPI thread %d of %s: %w", pid, ifname, err)
			}
		}
		return nil
	})
	return undo, pids, err
}

// deferNAPI keeps the softirq away from an interface of h as long as somebody busy-polls it, until it is undone:
// interrupts stay off for a time after each poll, and for so many such times without a frame.
func deferNAPI(h *testenv.Host, ifname string, times int, timeout time.Duration) (undo func() error, err error) {
	err = h.Do(func() (err error) {
		undo, err = xsk.SetAttributes(ifname, []xsk.Attribute{
			{File: "napi_defer_hard_irqs", Value: fmt.Sprint(times)},
			{File: "gro_flush_timeout", Value: fmt.Sprint(timeout.Nanoseconds())},
		})
		return err
	})
	return undo, err
}
