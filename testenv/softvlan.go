package testenv

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/vishvananda/netlink"
)

// A tag is one VLAN tag as the BPF helpers want it.
type tag struct {
	protocol uint16 // in host order
	id       uint16
}

// addSoftVLAN does without the kernel's VLAN interfaces (CONFIG_VLAN_8021Q), which some kernels lack, what they do: ifname is a
// veth, and what the host sends by it leaves by cable with the tags; frames with them that come in there arrive at ifname.
//
//	host ── ifname ═ peer ── push, redirect ──▶ cable ── trunk
//	          ◀────────────── redirect, pop ──────┘
func (l *Lab) addSoftVLAN(h *Host, ifname, cable string, mtu int, tags []tag) error {
	on, err := h.link(cable)
	if err != nil {
		return err
	}
	peer := fmt.Sprintf("%s-tag%d", cable, tags[len(tags)-1].id)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = ifname, mtu, on.Attrs().HardwareAddr
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerMTU = peer, uint32(mtu)
	if err := h.nl.LinkAdd(veth); err != nil {
		return fmt.Errorf("make %s of %s: %w", ifname, h.Name, err)
	}
	// The peer is a place for a program only: it must not speak. Its name has no dot, since settings' names separate by it.
	if err := h.Sysctl(map[string]string{"net.ipv6.conf." + peer + ".disable_ipv6": "1"}); err != nil {
		return err
	}
	for _, name := range []string{peer, ifname} {
		if err := h.SetLink(name, true); err != nil {
			return err
		}
	}
	inner, err := h.link(ifname)
	if err != nil {
		return err
	}
	end, err := h.link(peer)
	if err != nil {
		return err
	}
	if err := l.redirect(h, end, pushTags(on.Attrs().Index, tags)); err != nil {
		return err
	}
	return l.redirect(h, on, popTags(inner.Attrs().Index, tags))
}

// redirect attaches a program to what an interface receives.
func (l *Lab) redirect(h *Host, at netlink.Link, program asm.Instructions) error {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: "vlan", Type: ebpf.SchedCLS, License: "GPL", Instructions: program})
	if err != nil {
		return fmt.Errorf("load the VLAN program of %s: %w", at.Attrs().Name, err)
	}
	detach, err := h.attachClassifier(at, prog, ebpf.AttachTCXIngress)
	if err == nil {
		l.atClose(detach)
	}
	return errors.Join(err, prog.Close()) // it stays as long as it is attached
}

// pushTags tags every frame and sends it by an interface.
func pushTags(ifindex int, tags []tag) asm.Instructions {
	p := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	for i := len(tags) - 1; i >= 0; i-- {
		p = append(p,
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.Mov.Imm(asm.R2, int32(swap(tags[i].protocol))),
			asm.Mov.Imm(asm.R3, int32(tags[i].id)),
			asm.FnSkbVlanPush.Call(),
			asm.JNE.Imm(asm.R0, 0, "drop"),
		)
	}
	return append(p, redirectTo(ifindex, 0)...)
}

// popTags takes the tags out of frames that have just them, and makes them arrive at an interface. Others go on.
func popTags(ifindex int, tags []tag) asm.Instructions {
	p := asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R1, asm.R6, skbVLANPresent, asm.Word),
		asm.JEq.Imm(asm.R1, 0, "out"),
	}
	// The outer tag is beside the frame by now, the inner one in it.
	for i, t := range tags {
		if i > 0 {
			p = append(p,
				asm.LoadMem(asm.R1, asm.R6, skbProtocol, asm.Word),
				asm.JNE.Imm(asm.R1, int32(swap(t.protocol)), "out"),
			)
			p = append(p, loadBytes(14, stackTCI, 2)...)
			p = append(p,
				asm.LoadMem(asm.R1, asm.RFP, stackTCI, asm.Half),
				asm.HostTo(asm.BE, asm.R1, asm.Half),
			)
		} else {
			p = append(p,
				asm.LoadMem(asm.R1, asm.R6, skbVLANProto, asm.Word),
				asm.JNE.Imm(asm.R1, int32(swap(t.protocol)), "out"),
				asm.LoadMem(asm.R1, asm.R6, skbVLANTCI, asm.Word),
			)
		}
		p = append(p, asm.And.Imm(asm.R1, 0xfff), asm.JNE.Imm(asm.R1, int32(t.id), "out"))
	}
	for range tags {
		p = append(p,
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.FnSkbVlanPop.Call(),
			asm.JNE.Imm(asm.R0, 0, "drop"),
		)
	}
	const ingress = 1 // BPF_F_INGRESS
	p = append(p, redirectTo(ifindex, ingress)...)
	return append(p,
		asm.Mov.Imm(asm.R0, -1).WithSymbol("out"), // TCX_NEXT
		asm.Return(),
	)
}

func redirectTo(ifindex int, flags int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R1, int32(ifindex)),
		asm.Mov.Imm(asm.R2, flags),
		asm.FnRedirect.Call(),
		asm.Return(),
		asm.Mov.Imm(asm.R0, 2).WithSymbol("drop"), // TCX_DROP
		asm.Return(),
	}
}

// swap gives a 16-bit number as a little-endian load of its network order does.
func swap(n uint16) uint16 { return n>>8 | n<<8 }
