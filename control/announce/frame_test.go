package announce

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ndp"
	"golang.org/x/net/bpf"
)

var (
	mine   = [6]byte{2, 0, 0, 0, 0, 1}
	second = [6]byte{2, 0, 0, 0, 0, 2}
	theirs = [6]byte{2, 0, 0, 0, 0, 9}
	vip4   = netip.MustParseAddr("10.0.0.100")
	vip4b  = netip.MustParseAddr("10.0.0.101")
	host4  = netip.MustParseAddr("10.0.0.9")
	zero4  = netip.IPv4Unspecified()
	vip6   = netip.MustParseAddr("2001:db8::100")
	host6  = netip.MustParseAddr("2001:db8::9")
	zero6  = netip.IPv6Unspecified()
)

func testView() *view {
	return &view{
		mac: mine, ours: map[[6]byte]bool{mine: true, second: true},
		vips: map[netip.Addr]bool{vip4: true, vip4b: true, vip6: true},
	}
}

func arpFrom(op arp.Operation, mac [6]byte, sender, target netip.Addr) []byte {
	f := arpFrame(op, mac, sender, [6]byte{}, target)
	copy(f, broadcast[:])
	return f
}

func TestARP(t *testing.T) {
	tests := []struct {
		name    string
		frame   []byte
		answer  netip.Addr // whose MAC the reply tells
		to      netip.Addr
		claimed netip.Addr
	}{
		{"request", arpFrom(arp.OperationRequest, theirs, host4, vip4), vip4, host4, netip.Addr{}},
		{"probe", arpFrom(arp.OperationRequest, theirs, zero4, vip4), vip4, zero4, netip.Addr{}},
		{"request for another", arpFrom(arp.OperationRequest, theirs, host4, host4), netip.Addr{}, netip.Addr{}, netip.Addr{}},
		{"gratuitous request of another host", arpFrom(arp.OperationRequest, theirs, vip4, vip4), netip.Addr{}, netip.Addr{}, vip4},
		{"reply of another host", arpFrom(arp.OperationReply, theirs, vip4, host4), netip.Addr{}, netip.Addr{}, vip4},
		{"server that asks as the VIP", arpFrom(arp.OperationRequest, theirs, vip4, vip4b), netip.Addr{}, netip.Addr{}, vip4},
		{"our own", arpFrom(arp.OperationRequest, mine, vip4, vip4), netip.Addr{}, netip.Addr{}, netip.Addr{}},
		{"our own by another interface", arpFrom(arp.OperationReply, second, vip4, vip4), netip.Addr{}, netip.Addr{}, netip.Addr{}},
		{"reply that concerns us not", arpFrom(arp.OperationReply, theirs, host4, vip4), netip.Addr{}, netip.Addr{}, netip.Addr{}},
		{"multicast sender", arpFrom(arp.OperationRequest, [6]byte{1, 2, 3, 4, 5, 6}, host4, vip4), netip.Addr{}, netip.Addr{}, netip.Addr{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out := testView().arp(tt.frame)
			if out.claimed != tt.claimed || out.claimed.IsValid() && out.claimant != theirs {
				t.Errorf("claimed %v by %x, want %v by %x", out.claimed, out.claimant, tt.claimed, theirs)
			}
			if (out.reply != nil) != tt.answer.IsValid() {
				t.Fatalf("reply %x, want one: %v", out.reply, tt.answer.IsValid())
			}
			if out.reply == nil {
				return
			}
			var p arp.Packet
			if err := p.UnmarshalBinary(out.reply[ethLen:]); err != nil {
				t.Fatal(err)
			}
			if p.Operation != arp.OperationReply || p.SenderIP != tt.answer || p.TargetIP != tt.to ||
				[6]byte(p.SenderHardwareAddr) != mine || [6]byte(p.TargetHardwareAddr) != theirs {
				t.Errorf("reply is %+v", p)
			}
			if [6]byte(out.reply[:6]) != theirs || [6]byte(out.reply[6:12]) != mine {
				t.Errorf("Ethernet header % x", out.reply[:ethLen])
			}
		})
	}
}

func solicit(mac [6]byte, src, dst, target netip.Addr, lla bool) []byte {
	m := &ndp.NeighborSolicitation{TargetAddress: target}
	if lla {
		m.Options = []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: mac[:]}}
	}
	return ndFrame(mac, src, dst, m)
}

func ndFrame(mac [6]byte, src, dst netip.Addr, m ndp.Message) []byte {
	b, err := ndp.MarshalMessageChecksum(m, src, dst)
	if err != nil {
		panic(err)
	}
	f := ethernet(multicastMAC(dst), mac, etherIP6)
	f = append(f, 0x60, 0, 0, 0)
	f = binary.BigEndian.AppendUint16(f, uint16(len(b)))
	f = append(f, icmpv6, 255)
	f = append(append(f, src.AsSlice()...), dst.AsSlice()...)
	return append(f, b...)
}

func group(a netip.Addr) netip.Addr {
	g, err := ndp.SolicitedNodeMulticast(a)
	if err != nil {
		panic(err)
	}
	return g
}

func TestND(t *testing.T) {
	advert := func(mac [6]byte, target netip.Addr) []byte {
		return ndFrame(mac, target, allNodes, &ndp.NeighborAdvertisement{Override: true, TargetAddress: target,
			Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: mac[:]}}})
	}
	spoil := func(f []byte, at int, by byte) []byte { f[at] ^= by; return f }
	none := netip.Addr{}
	tests := []struct {
		name      string
		frame     []byte
		dst       netip.Addr // of the advertisement; invalid: there is none
		solicited bool
		claimed   netip.Addr
	}{
		{"multicast", solicit(theirs, host6, group(vip6), vip6, true), host6, true, none},
		{"unicast probe", solicit(theirs, host6, vip6, vip6, true), host6, true, none},
		{"unicast without option", solicit(theirs, host6, vip6, vip6, false), host6, true, none},
		{"duplicate address detection", solicit(theirs, zero6, group(vip6), vip6, false), allNodes, false, none},
		{"detection with an option", solicit(theirs, zero6, group(vip6), vip6, true), none, false, none},
		{"detection to unicast", solicit(theirs, zero6, vip6, vip6, false), none, false, none},
		{"another target", solicit(theirs, host6, group(host6), host6, true), none, false, none},
		{"from the VIP", solicit(theirs, vip6, group(host6), host6, true), none, false, vip6},
		{"advertised by another", advert(theirs, vip6), none, false, vip6},
		{"advertised by ourselves", advert(second, vip6), none, false, none},
		{"advertisement of another address", advert(theirs, host6), none, false, none},
		{"wrong checksum", spoil(solicit(theirs, host6, group(vip6), vip6, true), 60, 1), none, false, none},
		{"hop limit not 255", spoil(solicit(theirs, host6, group(vip6), vip6, true), 21, 1), none, false, none},
		{"code not 0", spoil(solicit(theirs, host6, group(vip6), vip6, true), 55, 1), none, false, none},
		{"cut short", solicit(theirs, host6, group(vip6), vip6, true)[:80], none, false, none},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out := testView().nd(tt.frame)
			if out.claimed != tt.claimed {
				t.Errorf("claimed %v, want %v", out.claimed, tt.claimed)
			}
			if (out.reply != nil) != tt.dst.IsValid() {
				t.Fatalf("reply %x, want one: %v", out.reply, tt.dst.IsValid())
			}
			if out.reply == nil {
				return
			}
			src, dst, m := parseND(out.reply)
			na, ok := m.(*ndp.NeighborAdvertisement)
			if !ok || src != vip6 || dst != tt.dst || na.Solicited != tt.solicited || !na.Override || na.Router || na.TargetAddress != vip6 {
				t.Fatalf("from %v to %v: %+v", src, dst, m)
			}
			if lla, has := linkLayer(na.Options, ndp.Target); !has || lla != mine {
				t.Errorf("target link-layer address %x, want %x", lla, mine)
			}
			wantMAC := theirs
			if dst.IsMulticast() {
				wantMAC = multicastMAC(dst)
			}
			if [6]byte(out.reply[:6]) != wantMAC {
				t.Errorf("sent to %x, want %x", out.reply[:6], wantMAC)
			}
		})
	}
}

// The filters take what the parsers want and leave the rest. The VM of x/net/bpf lacks the kernel's extensions,
// so the first instructions are tested with real sockets only.
func TestFilters(t *testing.T) {
	run := func(assemble func() ([]bpf.RawInstruction, error), frame []byte) bool {
		raw, err := assemble()
		if err != nil {
			t.Fatal(err)
		}
		all, ok := bpf.Disassemble(raw)
		if !ok {
			t.Fatal("the filter does not disassemble")
		}
		vm, err := bpf.NewVM(all[5:])
		if err != nil {
			t.Fatal(err)
		}
		n, err := vm.Run(frame)
		if err != nil {
			t.Fatal(err)
		}
		return n > 0
	}
	ask4, ask6 := arpFrom(arp.OperationRequest, theirs, host4, vip4), solicit(theirs, host6, vip6, vip6, true)
	advert := testView().unsolicited(vip6)
	echo := bytes.Clone(ask6)
	echo[54] = 128
	far := bytes.Clone(ask6)
	far[21] = 64
	token := bytes.Clone(ask4)
	token[15] = 4
	for _, tt := range []struct {
		name   string
		filter func() ([]bpf.RawInstruction, error)
		frame  []byte
		want   bool
	}{
		{"ARP", arpFilter, ask4, true}, {"ARP on token ring", arpFilter, token, false},
		{"solicitation", ndFilter, ask6, true}, {"advertisement", ndFilter, advert, true},
		{"echo", ndFilter, echo, false}, {"routed", ndFilter, far, false},
	} {
		if got := run(tt.filter, tt.frame); got != tt.want {
			t.Errorf("%s: accepted %v, want %v", tt.name, got, tt.want)
		}
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(arpFrom(arp.OperationRequest, theirs, host4, vip4))
	f.Add(arpFrom(arp.OperationReply, theirs, vip4, vip4))
	f.Add(solicit(theirs, host6, group(vip6), vip6, true))
	f.Add(solicit(theirs, zero6, group(vip6), vip6, false))
	f.Add(testView().unsolicited(vip6))
	f.Fuzz(func(t *testing.T, frame []byte) {
		v := testView()
		for _, judge := range []func(*view, []byte) verdict{(*view).arp, (*view).nd} {
			out := judge(v, frame)
			if out.claimed.IsValid() && (!v.vips[out.claimed] || v.ours[out.claimant]) {
				t.Errorf("conflict about %v with %x", out.claimed, out.claimant)
			}
			if out.reply == nil {
				continue
			}
			if [6]byte(out.reply[6:12]) != mine {
				t.Errorf("reply from %x", out.reply[6:12])
			}
			// A reply must never be taken for a claim or lead to another reply by a second director.
			if again := judge(&view{mac: second, ours: v.ours, vips: v.vips}, out.reply); again.reply != nil || again.claimed.IsValid() {
				t.Errorf("reply %x leads to %+v", out.reply, again)
			}
		}
	})
}
