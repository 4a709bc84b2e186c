// Package rewrite changes frames in place: direct routing, tunnelling, address translation, and the
// ICMP messages that a director sends. Every function works on frames that packet.Parse
// has accepted, and every checksum it touches is changed incrementally (RFC 1624) unless the
// sender left it unfinished.
package rewrite

import (
	"encoding/binary"

	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// decTTL lowers the TTL by one; the caller has made sure that it is at least 2.
func decTTL(b []byte, p *packet.Packet) {
	if p.V6 {
		b[int(p.L3)+7]--
		return
	}
	decTTL4(b[p.L3:])
}

// decTTL4 does it for IPv4, where the header checksum grows by 0x0100 (RFC 1141): loaded little-endian, with
// the TTL in the lowest byte and the checksum in the upper half, that is 1 each. All ones become zero, as a
// full computation gives (RFC 1624, 5).
func decTTL4(h []byte) {
	x := binary.LittleEndian.Uint32(h[8:])
	sum := x>>16 + 1
	binary.LittleEndian.PutUint32(h[8:], x&0xffff-1|(sum+(sum+1)>>16)<<16)
}

// DR points the frame at the backend's next hop (destination MAC, source MAC) and lowers the TTL: the L3 destination
// stays the VIP.
func DR(b []byte, p *packet.Packet, eth *[12]byte) {
	*(*[12]byte)(b) = *eth
	decTTL(b, p)
	if p.Unfinished {
		p.Finish(b, p.Src, p.Dst)
	}
}

// DRPlain is DR for the headers of a Plain packet, small enough to become part of a loop.
func DRPlain(b *[packet.EthLen + packet.IPv4Len]byte, v6 bool, eth *[12]byte) {
	*(*[12]byte)(b[:]) = *eth
	if v6 {
		b[packet.EthLen+7]--
		return
	}
	decTTL4(b[packet.EthLen:])
}

// NATRequest sends a client's packet to the backend's address and port (be.Port 0: the port stays).
func NATRequest(b []byte, p *packet.Packet, be *table.Backend) {
	*(*[12]byte)(b) = be.Eth
	if p.Unfinished || !be.Sums {
		natOther(b, p, be)
		return
	}
	h := b[p.L3:]
	if p.V6 {
		h[7]--
		be.Addr.Put16(h[24:])
	} else {
		x := binary.LittleEndian.Uint32(h[8:])
		sum := ^x>>16 + be.AddrSum + minusOne // the TTL is in the checksum's lower byte, loaded little-endian
		sum = sum>>16 + sum&0xffff
		sum += sum >> 16
		binary.LittleEndian.PutUint32(h[8:], x&0xffff-1|^sum<<16)
		be.Addr.Put4(h[16:])
	}
	t := b[p.L4:]
	if be.Port != 0 {
		binary.BigEndian.PutUint16(t[2:], be.Port)
	}
	p.Adjust(b, be.AddrSum+be.PortSum)
}

const minusOne = 0xfffe // in ones-complement arithmetic

func natOther(b []byte, p *packet.Packet, be *table.Backend) {
	decTTL(b, p)
	ports := p.Ports
	if be.Port != 0 {
		ports = packet.MakePorts(p.Ports.Src(), be.Port)
	}
	translate(b, p, p.Src, be.Addr, ports)
}

// NATReply makes a backend's packet come from the VIP and the service's port, on its way to
// the hop in eth (destination MAC, source MAC).
func NATReply(b []byte, p *packet.Packet, vip packet.Addr, port uint16, eth *[12]byte) {
	*(*[12]byte)(b) = *eth
	decTTL(b, p)
	translate(b, p, vip, p.Dst, packet.MakePorts(port, p.Ports.Dst()))
}

// translate gives p new addresses and ports, with the IPv4 header's and the transport's checksum. p
// itself keeps what the frame came with.
func translate(b []byte, p *packet.Packet, src, dst packet.Addr, ports packet.Ports) {
	unfinished := p.Unfinished
	old := packet.AddrSum(p.Src) + packet.AddrSum(p.Dst)
	new := packet.AddrSum(src) + packet.AddrSum(dst)
	h := b[p.L3:]
	if p.V6 {
		src.Put16(h[8:])
		dst.Put16(h[24:])
	} else {
		src.Put4(h[12:])
		dst.Put4(h[16:])
		packet.Update(h[10:], old, new)
	}
	binary.LittleEndian.PutUint32(b[p.L4:], uint32(ports))
	if unfinished {
		p.Finish(b, src, dst)
		return
	}
	p.UpdateL4(b, old+uint64(p.Ports), new+uint64(ports))
}
