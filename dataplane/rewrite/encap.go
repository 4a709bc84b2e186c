package rewrite

import (
	"encoding/binary"

	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

const (
	protoGRE = 47
	greSum   = 0x8000 // the C bit: a checksum follows (RFC 2784, 2.1)
)

// encapsulate writes what lies between an outer IP header and the inner packet into the start of b, which holds both, and
// returns the protocol number that the outer header names it by. inner is the inner packet's: 4 or 41.
func encapsulate(b []byte, be *table.Backend, inner uint8, hash uint64) uint8 {
	if be.Encap == table.GUE {
		gue(b, be, inner, hash)
		return packet.ProtoUDP
	}
	gre(b, be, inner)
	return protoGRE
}

// gue writes the UDP header and the GUE header of variant 0 without flags or fields (draft-ietf-intarea-gue, 3.2):
//
//	UDP  0 sport(2)  2 dport(2)  4 len(2)  6 csum(2)
//	GUE  8 version 0, C 0, hlen 0   9 proto/ctype   10 flags(2)
//
// The source port keeps a flow on one path and tells flows apart for routers and NICs: it is from the flow's hash, in the
// range 49152 to 65535 that the draft asks for (5.11, RFC 6335).
func gue(b []byte, be *table.Backend, inner uint8, hash uint64) {
	binary.BigEndian.PutUint16(b, 0xc000|uint16(hash>>24))
	binary.BigEndian.PutUint16(b[2:], be.EncapTo)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	binary.LittleEndian.PutUint16(b[6:], 0)
	binary.LittleEndian.PutUint32(b[8:], uint32(inner)<<8)
	if !be.EncapSum {
		return
	}
	c := ^packet.Fold(packet.Sum(b, packet.PseudoSum(be.TunSrc, be.Addr, packet.ProtoUDP, len(b))))
	if c == 0 {
		c = 0xffff // RFC 768: a computed zero is sent as all ones
	}
	binary.LittleEndian.PutUint16(b[6:], c)
}

// gre writes a GRE header (RFC 2784, 2): 0 flags and version(2)  2 EtherType(2)  [4 csum(2)  6 reserved(2)].
func gre(b []byte, be *table.Backend, inner uint8) {
	etherType := uint16(packet.EtherIPv4)
	if inner == packet.ProtoIPv6 {
		etherType = packet.EtherIPv6
	}
	binary.BigEndian.PutUint16(b[2:], etherType)
	if !be.EncapSum {
		binary.LittleEndian.PutUint16(b, 0)
		return
	}
	binary.BigEndian.PutUint16(b, greSum)
	binary.LittleEndian.PutUint32(b[4:], 0)
	binary.LittleEndian.PutUint16(b[4:], ^packet.Fold(packet.Sum(b, 0)))
}
