package announce

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ndp"
)

const (
	ethLen   = 14
	ipv6Len  = 40
	etherARP = 0x0806
	etherIP4 = 0x0800
	etherIP6 = 0x86dd
	icmpv6   = 58
)

var (
	broadcast = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	allNodes  = netip.MustParseAddr("ff02::1")
)

// A view is what answers are given from; it is immutable.
type view struct {
	mac  [6]byte
	ours map[[6]byte]bool // MACs of all the director's interfaces: two may be on one segment
	vips map[netip.Addr]bool
}

// A verdict is what a received frame leads to: a frame to send, a claim by another host, both or neither.
type verdict struct {
	reply    []byte
	claimed  netip.Addr // a VIP that claimant claims; invalid if none
	claimant [6]byte
}

// arp judges a frame with an ARP packet.
//
//	0        6        12   14    16    18  19  20 22        28    32        38    42
//	| eth dst | eth src |0806|htype|ptype|6 |4 |op|sender HW|sndIP|target HW|tgtIP|
func (v *view) arp(frame []byte) (out verdict) {
	if len(frame) < ethLen || binary.BigEndian.Uint16(frame[12:]) != etherARP {
		return
	}
	var p arp.Packet
	if p.UnmarshalBinary(frame[ethLen:]) != nil || p.HardwareType != 1 || p.ProtocolType != etherIP4 ||
		p.HardwareAddrLength != 6 || p.IPLength != 4 {
		return
	}
	sender := [6]byte(p.SenderHardwareAddr)
	if !unicastMAC(sender) || v.ours[sender] {
		return
	}
	if v.vips[p.SenderIP] {
		// Requests count as well as replies: hosts update their caches from both. It gets no answer, RFC 5227, 2.4.
		out.claimed, out.claimant = p.SenderIP, sender
		return
	}
	if p.Operation == arp.OperationRequest && v.vips[p.TargetIP] {
		// A probe, with sender 0.0.0.0, is answered too: that is how its sender learns that the address is taken.
		out.reply = arpFrame(arp.OperationReply, v.mac, p.TargetIP, sender, p.SenderIP)
	}
	return
}

// arpAnnouncement is RFC 5227's: a broadcast request with the VIP as sender and as target.
func (v *view) arpAnnouncement(vip netip.Addr) []byte {
	f := arpFrame(arp.OperationRequest, v.mac, vip, [6]byte{}, vip)
	copy(f, broadcast[:])
	return f
}

func arpFrame(op arp.Operation, srcMAC [6]byte, src netip.Addr, dstMAC [6]byte, dst netip.Addr) []byte {
	p, err := arp.NewPacket(op, srcMAC[:], src, dstMAC[:], dst)
	if err != nil {
		panic("announce: " + err.Error()) // addresses of the wrong family, our bug
	}
	b, _ := p.MarshalBinary() // it never fails
	return append(ethernet(dstMAC, srcMAC, etherARP), b...)
}

// nd judges a frame with a neighbour solicitation or advertisement, checked as RFC 4861, 7.1.1 and 7.1.2, demands.
//
//	0        6         12   14 ........... 20  21  22     38     54   55
//	| eth dst | eth src |86dd| ver…, length |58 |255| src  | dst  |type|code 0|checksum|…
func (v *view) nd(frame []byte) (out verdict) {
	src, dst, msg := parseND(frame)
	eth := [6]byte(frameSource(frame))
	switch m := msg.(type) {
	case *ndp.NeighborSolicitation:
		lla, has := linkLayer(m.Options, ndp.Source)
		if !has {
			lla = eth
		}
		if v.ours[lla] || !unicastMAC(lla) || v.ours[eth] {
			return
		}
		probe := src.IsUnspecified()
		if probe && (has || !isSolicitedNode(dst, m.TargetAddress)) {
			return
		}
		if v.vips[src] {
			out.claimed, out.claimant = src, lla
			return
		}
		switch {
		case !v.vips[m.TargetAddress]:
		case probe:
			// Duplicate address detection (RFC 4861, 7.2.4): to all nodes, and not as solicited.
			out.reply = v.unsolicited(m.TargetAddress)
		default:
			out.reply = naFrame(v.mac, m.TargetAddress, lla, src, true)
		}
	case *ndp.NeighborAdvertisement:
		lla, has := linkLayer(m.Options, ndp.Target)
		if !has {
			lla = eth
		}
		if v.vips[m.TargetAddress] && !v.ours[lla] && !v.ours[eth] {
			out.claimed, out.claimant = m.TargetAddress, lla
		}
	}
	return
}

// unsolicited is the advertisement of RFC 4861, 7.2.6, with the override flag.
func (v *view) unsolicited(vip netip.Addr) []byte {
	return naFrame(v.mac, vip, multicastMAC(allNodes), allNodes, false)
}

func naFrame(mac [6]byte, vip netip.Addr, dstMAC [6]byte, dst netip.Addr, solicited bool) []byte {
	b, err := ndp.MarshalMessageChecksum(&ndp.NeighborAdvertisement{
		Solicited: solicited, Override: true, TargetAddress: vip,
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: mac[:]}},
	}, vip, dst)
	if err != nil {
		panic("announce: " + err.Error()) // addresses of the wrong family, our bug
	}
	f := ethernet(dstMAC, mac, etherIP6)
	f = append(f, 0x60, 0, 0, 0)
	f = binary.BigEndian.AppendUint16(f, uint16(len(b)))
	f = append(f, icmpv6, ndp.HopLimit)
	f = append(f, vip.AsSlice()...)
	f = append(f, dst.AsSlice()...)
	return append(f, b...)
}

// parseND returns a nil message for all that is not a valid solicitation or advertisement.
func parseND(frame []byte) (src, dst netip.Addr, msg ndp.Message) {
	if len(frame) < ethLen+ipv6Len+24 || binary.BigEndian.Uint16(frame[12:]) != etherIP6 {
		return
	}
	ip := frame[ethLen:]
	n := int(binary.BigEndian.Uint16(ip[4:]))
	if ip[0]>>4 != 6 || ip[6] != icmpv6 || ip[7] != ndp.HopLimit || n < 24 || n > len(ip)-ipv6Len {
		return
	}
	src, dst = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
	icmp := ip[ipv6Len : ipv6Len+n]
	if icmp[0] != 135 && icmp[0] != 136 || icmp[1] != 0 || !checksumOK(ip[8:40], icmp) {
		return
	}
	m, err := ndp.ParseMessage(icmp)
	if err != nil {
		return
	}
	switch m := m.(type) {
	case *ndp.NeighborSolicitation:
		if m.TargetAddress.IsMulticast() {
			return
		}
	case *ndp.NeighborAdvertisement:
		if m.TargetAddress.IsMulticast() || m.Solicited && dst.IsMulticast() {
			return
		}
	}
	return src, dst, m
}

// checksumOK adds up the pseudo-header of RFC 8200, 8.1, and the message with its checksum.
func checksumOK(addrs, icmp []byte) bool {
	sum := uint32(len(icmp)) + icmpv6
	for _, b := range [][]byte{addrs, icmp} {
		for ; len(b) >= 2; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
		if len(b) == 1 {
			sum += uint32(b[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum == 0xffff
}

func linkLayer(opts []ndp.Option, d ndp.Direction) (mac [6]byte, ok bool) {
	for _, o := range opts {
		if l, is := o.(*ndp.LinkLayerAddress); is && l.Direction == d && len(l.Addr) == 6 {
			return [6]byte(l.Addr), true
		}
	}
	return mac, false
}

func isSolicitedNode(dst, target netip.Addr) bool {
	g, err := ndp.SolicitedNodeMulticast(target)
	return err == nil && g == dst
}

// multicastMAC maps an IPv6 group as RFC 2464, 7, does.
func multicastMAC(group netip.Addr) [6]byte {
	b := group.As16()
	return [6]byte{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

func unicastMAC(m [6]byte) bool { return m[0]&1 == 0 && m != [6]byte{} }

func frameSource(frame []byte) net.HardwareAddr {
	if len(frame) < ethLen {
		return make(net.HardwareAddr, 6)
	}
	return net.HardwareAddr(frame[6:12])
}

func ethernet(dst, src [6]byte, typ uint16) []byte {
	f := make([]byte, 0, 96)
	f = append(f, dst[:]...)
	f = append(f, src[:]...)
	return binary.BigEndian.AppendUint16(f, typ)
}
