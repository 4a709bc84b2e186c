package testenv

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// attachClassifier has a program (of type SchedCLS) see what an interface of the host receives or sends, behind those that do already.
// What attach says, AttachTCXIngress or AttachTCXEgress, holds before Linux 6.6 too, which brought tcx: there the program
// becomes a filter of a clsact qdisc. The program may be closed at once. detach may be called whatever became of the host.
func (h *Host) attachClassifier(at netlink.Link, prog *ebpf.Program, attach ebpf.AttachType) (detach func() error, err error) {
	if h.lab.Options.noTCX {
		return h.attachFilter(at, prog, attach)
	}
	err = h.Do(func() error {
		lnk, err := link.AttachTCX(link.TCXOptions{Interface: at.Attrs().Index, Program: prog, Attach: attach})
		if err == nil {
			detach = lnk.Close
		}
		return err
	})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return h.attachFilter(at, prog, attach)
	}
	if err != nil {
		return nil, fmt.Errorf("attach a program to %s: %w", at.Attrs().Name, err)
	}
	return detach, nil
}

// attachFilter is attachClassifier without tcx.
func (h *Host) attachFilter(at netlink.Link, prog *ebpf.Program, attach ebpf.AttachType) (detach func() error, err error) {
	parent := uint32(netlink.HANDLE_MIN_INGRESS)
	if attach == ebpf.AttachTCXEgress {
		parent = netlink.HANDLE_MIN_EGRESS
	}
	filter := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: at.Attrs().Index, Parent: parent, Handle: 1, Protocol: unix.ETH_P_ALL,
			Priority: uint16(h.filters.Add(1)), // filters run in this order
		},
		Fd: prog.FD(), Name: "xlvs-lab", DirectAction: true,
	}
	qdisc := &netlink.GenericQdisc{
		QdiscAttrs: netlink.QdiscAttrs{LinkIndex: at.Attrs().Index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT},
		QdiscType:  "clsact",
	}
	err = h.Do(func() error {
		if err := netlink.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		return netlink.FilterAdd(filter)
	})
	if err != nil {
		return nil, fmt.Errorf("attach a program to %s with clsact, before Linux 6.6 (takes the modules sch_ingress and cls_bpf): %w", at.Attrs().Name, err)
	}
	return func() error {
		err := h.Do(func() error { return netlink.FilterDel(filter) })
		if errors.Is(err, ErrClosed) || errors.Is(err, unix.ENODEV) {
			return nil // gone with the interface
		}
		return err
	}, nil
}
