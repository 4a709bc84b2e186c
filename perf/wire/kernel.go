package wire

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf/asm"
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// inKernel is where the forwarders in the kernel do all of their work: in NAPI of eth0.
func (p *polling) inKernel(r *rig, u *undo) error {
	if p.receive != thread {
		return nil
	}
	back, err := r.threadNAPI("eth0")
	u.add(back)
	return err
}

// A router is the kernel's IPv4 forwarding. With dnat it is a load balancer too: nftables translates the VIP to one of
// natBackends addresses, by a hash of the client's address and port, and remembers it (conntrack).
type router struct {
	polling
	dnat bool
}

const natBackends = 4

func natBackend(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 1, 0, byte(1 + i)}) }

func (f *router) start(r *rig) (stop func() error, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("kernel forwarding: %w", err)
		}
	}()
	h := r.forwarder
	// GRO gives veth NAPI without an XDP program, which a router would not have.
	if err := h.SetFeatures("eth0", map[string]bool{"rx-gro": true}); err != nil {
		return nil, err
	}
	settings := map[string]string{"net.ipv4.ip_forward": "1"}
	next := []netip.Addr{vip}
	if f.dnat {
		if err := f.translate(r); err != nil {
			return nil, err
		}
		// The lab's connections have one direction only and numbers that jump.
		settings["net.netfilter.nf_conntrack_tcp_be_liberal"] = "1"
		settings["net.netfilter.nf_conntrack_tcp_loose"] = "1"
		next = nil
		for i := range natBackends {
			next = append(next, natBackend(i))
		}
	}
	if err := h.Sysctl(settings); err != nil {
		return nil, err
	}
	for _, a := range next {
		err := errors.Join(h.AddRoute(netip.PrefixFrom(a, 32), netip.Addr{}, "eth1"), h.SetNeighbour("eth1", a, r.nextHop))
		if err != nil {
			return nil, err
		}
	}
	var u undo // the rest ends with the rig's namespace
	return u.all, f.inKernel(r, &u)
}

// translate installs the rule
//
//	ip daddr VIP tcp dport 80 dnat to jhash ip saddr . tcp sport mod 4 map { 0 : 10.1.0.1, 1 : 10.1.0.2, … }
func (f *router) translate(r *rig) error {
	return r.forwarder.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		t := c.AddTable(&nftables.Table{Name: "balancer", Family: nftables.TableFamilyIPv4})
		chain := c.AddChain(&nftables.Chain{Name: "prerouting", Table: t, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityNATDest})
		set := &nftables.Set{Table: t, Anonymous: true, Constant: true, IsMap: true, KeyType: nftables.TypeInteger, DataType: nftables.TypeIPAddr}
		var elements []nftables.SetElement
		for i := range natBackends {
			elements = append(elements, nftables.SetElement{Key: binaryutil.NativeEndian.PutUint32(uint32(i)), Val: natBackend(i).AsSlice()})
		}
		if err := c.AddSet(set, elements); err != nil {
			return err
		}
		// Registers 1 and 2 have 16 bytes; 12 and 13 are the first two of the four that 2 consists of.
		const hashed, source, sourcePort = 1, 12, 13
		port := []byte{byte(servicePort >> 8), byte(servicePort)}
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, Exprs: []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
			&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: vip.AsSlice()},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: []byte{packet.ProtoTCP}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Register: 1, Op: expr.CmpOpEq, Data: port},
			&expr.Payload{DestRegister: source, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
			&expr.Payload{DestRegister: sourcePort, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 2},
			&expr.Hash{SourceRegister: source, DestRegister: hashed, Length: 8, Modulus: natBackends, Seed: 1, Type: expr.HashTypeJenkins},
			&expr.Lookup{SourceRegister: hashed, DestRegister: hashed, IsDestRegSet: true, SetName: set.Name, SetID: set.ID},
			&expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: hashed},
		}})
		return c.Flush()
	})
}

// An xdpForwarder writes MAC addresses over a frame and sends it on, or back (XDP_TX), without ever leaving the driver.
type xdpForwarder struct {
	polling
	back bool
}

func (f *xdpForwarder) start(r *rig) (stop func() error, err error) {
	out, err := ifindex(r.forwarder, "eth1")
	if err != nil {
		return nil, err
	}
	eth := table.Eth(table.MAC(r.nextHop), table.MAC(r.own))
	code := onlyOurs()
	for i := int16(0); i < 12; i += 4 {
		code = append(code,
			asm.LoadImm(asm.R4, int64(binaryutil.NativeEndian.Uint32(eth[i:])), asm.DWord),
			asm.StoreMem(asm.R2, i, asm.R4, asm.Word))
	}
	if f.back {
		code = append(code, asm.Mov.Imm(asm.R0, xdpTX), asm.Return())
	} else {
		code = append(code,
			asm.Mov.Imm(asm.R1, int32(out)),
			asm.Mov.Imm(asm.R2, 0),
			asm.FnRedirect.Call(),
			asm.Return(),
		)
	}
	detach, err := attach(r, "eth0", append(code, pass()...))
	if err != nil {
		return nil, fmt.Errorf("XDP forwarding: %w", err)
	}
	var u undo
	u.add(detach)
	if err := f.inKernel(r, &u); err != nil {
		return nil, errors.Join(fmt.Errorf("XDP forwarding: %w", err), u.all())
	}
	return u.all, nil
}
