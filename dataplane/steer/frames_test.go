package steer

import (
	"encoding/binary"
	"net/netip"
	"slices"
)

var testMAC = [6]byte{2, 0, 0, 0, 0, 1}

// l2 wraps a payload in an Ethernet header to testMAC.
func l2(etherType uint16, payload []byte) []byte {
	b := append(testMAC[:], 2, 0, 0, 0, 0, 9)
	return append(binary.BigEndian.AppendUint16(b, etherType), payload...)
}

// tagged puts a VLAN tag with identifier 42 behind the MAC addresses.
func tagged(tpid uint16, frame []byte) []byte {
	tag := binary.BigEndian.AppendUint16(nil, tpid)
	return slices.Insert(slices.Clone(frame), 12, append(tag, 0, 42)...)
}

func ip4(src, dst string, proto uint8, payload []byte) []byte {
	return ip4With(src, dst, proto, 0, nil, payload)
}

// ip4With makes an IPv4 packet with the given flags-and-offset field and options (a multiple of 4 bytes).
func ip4With(src, dst string, proto uint8, fragment uint16, options, payload []byte) []byte {
	header := 20 + len(options)
	b := []byte{0x40 | byte(header/4), 0}
	b = binary.BigEndian.AppendUint16(b, uint16(header+len(payload)))
	b = append(b, 0x12, 0x34)
	b = binary.BigEndian.AppendUint16(b, fragment)
	b = append(b, 64, proto, 0, 0)
	b = append(b, netip.MustParseAddr(src).AsSlice()...)
	b = append(b, netip.MustParseAddr(dst).AsSlice()...)
	b = append(b, options...)
	setIPv4Checksum(b)
	return append(b, payload...)
}

// setIPv4Checksum computes the checksum of the header b starts with, whole (RFC 791).
func setIPv4Checksum(b []byte) {
	b[10], b[11] = 0, 0
	var sum uint32
	for i := 0; i < int(b[0]&0xf)*4; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum))
}

func ip6(src, dst string, next uint8, payload []byte) []byte {
	b := []byte{0x60, 0, 0, 0}
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	b = append(b, next, 64)
	b = append(b, netip.MustParseAddr(src).AsSlice()...)
	b = append(b, netip.MustParseAddr(dst).AsSlice()...)
	return append(b, payload...)
}

// ext makes an extension header of 8+8*units bytes in front of payload.
func ext(next, units uint8, payload []byte) []byte {
	b := append([]byte{next, units}, make([]byte, 6+8*int(units))...)
	return append(b, payload...)
}

// routing makes a routing header with segments left.
func routing(next, left uint8, payload []byte) []byte {
	return append([]byte{next, 0, 4, left, 0, 0, 0, 0}, payload...)
}

// frag6 makes a fragment header with the given offset-and-M field.
func frag6(next uint8, offset uint16, payload []byte) []byte {
	return append([]byte{next, 0, byte(offset >> 8), byte(offset), 0, 0, 0, 7}, payload...)
}

func tcpTo(srcPort, dstPort uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, srcPort)
	b = binary.BigEndian.AppendUint16(b, dstPort)
	return append(b, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0)
}

func udpTo(srcPort, dstPort uint16, payload ...byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, srcPort)
	b = binary.BigEndian.AppendUint16(b, dstPort)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	return append(append(b, 0, 0), payload...)
}

func icmp(kind uint8) []byte { return []byte{kind, 0, 0, 0, 0, 0, 0, 0} }
