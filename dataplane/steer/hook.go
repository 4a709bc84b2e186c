package steer

import (
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// Mode is where in the receive path a program runs.
type Mode uint8

const (
	Auto    Mode = iota // native, and generic where the driver refuses
	Native              // in the driver, before an skb exists
	Generic             // in the stack, on skbs: works everywhere, slower
)

func (m Mode) String() string {
	switch m {
	case Auto:
		return "auto"
	case Native:
		return "native"
	case Generic:
		return "generic"
	}
	return fmt.Sprintf("Mode(%d)", uint8(m))
}

// ErrBusy is wrapped by the error of attaching to an interface that runs another XDP program already. Programs
// of others are never replaced.
var ErrBusy = errors.New("the interface already runs another XDP program")

// A hook is a program's attachment to one interface by a bpf link, which nobody else can replace.
type hook struct {
	link      link.Link
	mode      Mode
	nativeErr error // why Auto did not become Native
}

// attachXDP attaches to the interface in the network namespace of the calling thread.
func attachXDP(prog *ebpf.Program, ifindex int, name string, mode Mode) (*hook, error) {
	if mode > Generic {
		return nil, fmt.Errorf("attach XDP to %s: unknown mode %s", name, mode)
	}
	h := &hook{mode: Native}
	if mode != Generic {
		var err error
		if h.link, err = linkXDP(prog, ifindex, name, Native); err == nil {
			return h, nil
		}
		if mode == Native || errors.Is(err, ErrBusy) || errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENODEV) {
			return nil, err
		}
		h.nativeErr = err
	}
	h.mode = Generic
	var err error
	if h.link, err = linkXDP(prog, ifindex, name, Generic); err != nil {
		return nil, errors.Join(h.nativeErr, err)
	}
	return h, nil
}

func linkXDP(prog *ebpf.Program, ifindex int, name string, mode Mode) (link.Link, error) {
	flags := link.XDPDriverMode
	if mode == Generic {
		flags = link.XDPGenericMode
	}
	l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: ifindex, Flags: flags})
	switch {
	case err == nil:
		return l, nil
	// EBUSY: a program in the same mode. EEXIST: one in the other mode (dev_xdp_attach in net/core/dev.c).
	case errors.Is(err, syscall.EBUSY), errors.Is(err, syscall.EEXIST):
		return nil, fmt.Errorf("attach XDP to %s: %w%s: stop what attached it, or remove it with `ip link set dev %s xdp off`",
			name, ErrBusy, runningProgram(ifindex), name)
	// The kernel says EINVAL where the index names nothing (bpf_xdp_link_attach).
	case errors.Is(err, syscall.EINVAL) && !exists(ifindex):
		return nil, fmt.Errorf("attach XDP to %s: no interface has index %d in this network namespace: %w", name, ifindex, syscall.ENODEV)
	case mode == Native && !errors.Is(err, syscall.EPERM):
		return nil, fmt.Errorf("attach XDP to %s in native mode: the driver refuses (it has no XDP, or the MTU or "+
			"an offload is not possible with it): %w", name, err)
	}
	return nil, explain(fmt.Sprintf("attach XDP to %s in %s mode", name, mode), err)
}

func exists(ifindex int) bool {
	_, err := net.InterfaceByIndex(ifindex)
	return err == nil
}

// runningProgram names the program on the interface for an error message, if it can be found out.
func runningProgram(ifindex int) string {
	l, err := netlink.LinkByIndex(ifindex)
	if err != nil || l.Attrs().Xdp == nil || !l.Attrs().Xdp.Attached {
		return ""
	}
	return fmt.Sprintf(" (id %d)", l.Attrs().Xdp.ProgId)
}

// close detaches. Closing the descriptor alone would leave the program running for as long as a child process that
// was just being started holds a copy.
func (h *hook) close() error {
	err := h.link.Detach()
	if errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, link.ErrNotSupported) {
		err = nil
	}
	return errors.Join(err, h.link.Close())
}
