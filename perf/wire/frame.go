package wire

import (
	"encoding/binary"
	"net"
	"net/netip"

	"xlvs/dataplane/packet"
)

// The frames: a TCP segment of one of many flows to the service. The sequence number counts the frames of
// a trial, the acknowledgement has the trial's number, and the payload carries a mark and the time at which the frame should have left.
//
//	 0      Ethernet, IPv4, TCP: ports, sequence number (38), acknowledgement (42), flags (47), checksum (50)
//	54      mark                      2 bytes
//	56      time, ns modulo 2^32      4 bytes
//	60      zeroes up to the size
const (
	offSrcIP   = 26
	offSrcPort = 34
	offSeq     = 38
	offTrial   = 44 // the lower half of the acknowledgement
	offFlags   = 47
	offSum     = 50
	offMark    = 54
	offTime    = 56
	minFrame   = 60 // without the frame check sequence, which makes it 64 on a wire
	mark       = 0x4c56

	flagSYN = 0x02
	flagACK = 0x10

	flowPortBits = 15
	firstPort    = 1024
)

var (
	vip         = netip.MustParseAddr("203.0.113.10")
	servicePort = uint16(80)
)

// A stamper makes the frames of a trial. Flow n has client 198.18.0.0 (RFC 2544's benchmark network) plus the upper bits
// of n, and port 1024 plus the lower 15, as in the scenarios without a wire.
type stamper struct {
	template []byte
	base     uint64 // sum of the template's pseudo header and TCP segment, fields that change left out
	flows    uint32
	step     uint32
}

func newStamper(dst, src net.HardwareAddr, flows, size int, flags byte) *stamper {
	f := make([]byte, max(size, minFrame))
	copy(f, dst)
	copy(f[6:], src)
	binary.BigEndian.PutUint16(f[12:], packet.EtherIPv4)
	f[14] = 0x45
	binary.BigEndian.PutUint16(f[16:], uint16(len(f)-14))
	f[20] = 0x40 // do not fragment
	f[22], f[23] = 64, packet.ProtoTCP
	a := vip.As4()
	copy(f[30:], a[:])
	binary.BigEndian.PutUint16(f[36:], servicePort)
	f[46], f[offFlags] = 5<<4, flags
	binary.BigEndian.PutUint16(f[48:], 512) // window
	binary.BigEndian.PutUint16(f[offMark:], mark)
	s := &stamper{template: f, flows: uint32(flows), step: stride(uint32(flows))}
	s.base = sum(f[30:]) + packet.ProtoTCP + uint64(len(f)-34)
	return s
}

// stride is a step through n flows that visits each once before any again, far apart: near the golden section of n,
// and with no common divisor.
func stride(n uint32) uint32 {
	s := uint32(float64(n)*0.6180339887) | 1
	for gcd(s, n) != 1 {
		s += 2
	}
	return s
}

func gcd(a, b uint32) uint32 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// sum adds up b as big-endian 16-bit words.
func sum(b []byte) (n uint64) {
	for i := 0; i+1 < len(b); i += 2 {
		n += uint64(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		n += uint64(b[len(b)-1]) << 8
	}
	return n
}
