package perf

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"xlvs/dataplane"
	"xlvs/dataplane/packet"
)

// source is a dataplane.Port that makes its packets on the spot: a template with the flow's addresses and
// ports written over it, so that a small memory stands for any number of flows. What is sent is freed.
//
// Flow number n has client 198.18.0.0/15 (RFC 2544) plus the upper bits of n, and port 1024 plus the
// lower 15: the same function for the set-up and the measurement, with no list of flows to keep in cache.
type source struct {
	mem      *dataplane.Memory
	template []byte
	v6       bool
	budget   int // frames still to deliver
	flows    uint64
	next     uint32
	random   bool // flows in an order that no prefetcher foresees; else one after the other

	services uint64 // over how many addresses, from the service's on, flows are spread; 0 and 1: all go to one
	backend  []byte // not nil: packets are replies, and this is the backend of each flow

	ring *ring // not nil: frames are written long before they are delivered

	sent uint64
}

const (
	flowPortBits = 15
	headroom     = 256
	chunkSize    = 2048
	// written is how much of a frame the source fills in: all that a director looks at or changes. The rest of a
	// long frame lies in memory as it is, as it would after a NIC's DMA, so that a long frame costs the source no more than a short one.
	written = 128
)

// Recv makes up to len(b) packets.
func (s *source) Recv(b []dataplane.Frame) int {
	n := min(len(b), dataplane.MaxBurst, s.budget)
	s.budget -= n
	for i := range b[:n] {
		var chunk uint32
		if s.ring != nil {
			var write uint32
			chunk, write = s.ring.turn()
			s.write(write)
		} else {
			var ok bool
			if chunk, ok = s.mem.Alloc(); !ok {
				return i
			}
			s.write(chunk)
		}
		b[i] = dataplane.Frame{Chunk: chunk, Off: headroom, Len: uint16(len(s.template))}
	}
	return n
}

// write makes the next packet in a chunk.
func (s *source) write(chunk uint32) {
	f := s.mem.Chunk(chunk)[headroom:]
	copy(f, s.template[:min(len(s.template), written)])
	flow := uint32(s.next)
	if s.random {
		// The upper bits of a linear congruential sequence (Numerical Recipes), scaled to the number of flows.
		flow = uint32(uint64(s.next) * s.flows >> 32)
		s.next = s.next*1664525 + 1013904223
	} else {
		s.next++
	}
	s.stamp(f, flow)
}

// stamp writes flow n's addresses into a frame. Checksums are left as they are: the director updates them incrementally.
func (s *source) stamp(f []byte, n uint32) {
	host, port := n>>flowPortBits, clientPort(n)
	switch {
	case s.backend != nil && s.v6:
		f[37] = s.backend[n]
		binary.BigEndian.PutUint32(f[50:], host)
		binary.BigEndian.PutUint16(f[56:], port)
	case s.backend != nil:
		f[29] = s.backend[n]
		binary.BigEndian.PutUint32(f[30:], clientNet+host)
		binary.BigEndian.PutUint16(f[36:], port)
	case s.v6:
		binary.BigEndian.PutUint32(f[34:], host)
		binary.BigEndian.PutUint16(f[54:], port)
	default:
		binary.BigEndian.PutUint32(f[26:], clientNet+host)
		binary.BigEndian.PutUint16(f[34:], port)
	}
	if s.services > 1 {
		// Fibonacci hashing spreads the flows; a flow always goes to the same service.
		vip := uint32(uint64(n*2654435769) * s.services >> 32)
		if s.v6 {
			binary.BigEndian.PutUint32(f[50:], vipLow6+vip)
		} else {
			binary.BigEndian.PutUint32(f[30:], vipNet4+vip)
		}
	}
}

const (
	clientNet = 198<<24 | 18<<16
	vipNet4   = 203<<24 | 113<<8 // 203.0.113.0 and on
	vipLow6   = 0x10
)

func clientPort(n uint32) uint16 { return uint16(1024 + n&(1<<flowPortBits-1)) }

// client returns flow n's client.
func client(v6 bool, n uint32) netip.Addr {
	if v6 {
		a := client6.As16()
		binary.BigEndian.PutUint32(a[12:], n>>flowPortBits)
		return netip.AddrFrom16(a)
	}
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], clientNet+n>>flowPortBits)
	return netip.AddrFrom4(a)
}

// vip returns the address of service number i.
func vip(v6 bool, i int) netip.Addr {
	if v6 {
		a := vip6.As16()
		binary.BigEndian.PutUint32(a[12:], vipLow6+uint32(i))
		return netip.AddrFrom16(a)
	}
	var a [4]byte
	binary.BigEndian.PutUint32(a[:], vipNet4+uint32(i))
	return netip.AddrFrom4(a)
}

// backendAddr returns the address of backend number i.
func backendAddr(v6 bool, i int) netip.Addr {
	if v6 {
		a := netip.MustParseAddr("2001:db8:b::").As16()
		a[13], a[14], a[15] = byte(i>>16), byte(i>>8), byte(i)
		return netip.AddrFrom16(a)
	}
	return netip.AddrFrom4([4]byte{10, byte(1 + i>>16), byte(i >> 8), byte(i)})
}

var (
	vip6    = netip.MustParseAddr("2001:db8:f::")
	client6 = netip.MustParseAddr("2001:db8:1::")
)

const (
	servicePort = 80
	backendPort = 8080
)

// Send frees what the director forwarded.
func (s *source) Send(b []dataplane.Frame) int {
	if s.ring == nil {
		for _, f := range b {
			s.mem.Free(f.Chunk)
		}
	}
	s.sent += uint64(len(b))
	return len(b)
}

func (s *source) Flush() error { return nil }

func (s *source) FD() int { return -1 }

func (s *source) Stats() dataplane.PortStats { return dataplane.PortStats{TxPackets: s.sent} }

func (s *source) Close() error { return nil }

// tcpFrame is an Ethernet frame with a TCP segment from a client to the service, or, as a reply, from a backend
// to a client. size is the frame's as RFC 2544 counts it, with the four bytes of check sequence that the frame here
// does not have; an IPv6 segment needs 78.
func tcpFrame(v6, reply bool, flags byte, size int) []byte {
	l4 := 34
	if v6 {
		l4 = 54
	}
	n := max(size-4, 60, l4+20)
	f := make([]byte, n)
	copy(f, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2})
	src, dst := client(v6, 0), vip(v6, 0)
	sport, dport := uint16(1024), uint16(servicePort)
	if reply {
		src, dst, sport, dport = backendAddr(v6, 0), src, backendPort, sport
	}
	if v6 {
		binary.BigEndian.PutUint16(f[12:], packet.EtherIPv6)
		f[14] = 0x60
		binary.BigEndian.PutUint16(f[18:], uint16(n-54))
		f[20], f[21] = packet.ProtoTCP, 64
		copy(f[22:], src.AsSlice())
		copy(f[38:], dst.AsSlice())
	} else {
		binary.BigEndian.PutUint16(f[12:], packet.EtherIPv4)
		f[14] = 0x45
		binary.BigEndian.PutUint16(f[16:], uint16(n-14))
		f[20] = 0x40
		f[22], f[23] = 64, packet.ProtoTCP
		copy(f[26:], src.AsSlice())
		copy(f[30:], dst.AsSlice())
		packet.SetIPv4Sum(f[14:34])
	}
	binary.BigEndian.PutUint16(f[l4:], sport)
	binary.BigEndian.PutUint16(f[l4+2:], dport)
	f[l4+12], f[l4+13] = 5<<4, flags
	f[l4+16], f[l4+17] = 0x12, 0x34
	return f
}

// newSource makes a source and its packet memory: few chunks, so that frames stay in the cache next to the core.
func newSource(v6 bool, flows int) (*source, error) { return newSourceOf(v6, flows, hotChunks) }

const hotChunks = 512

func newSourceOf(v6 bool, flows, chunks int) (*source, error) {
	mem, err := dataplane.NewMemory(make([]byte, chunks*chunkSize), chunkSize)
	if err != nil {
		return nil, fmt.Errorf("packets: %w", err)
	}
	return &source{mem: mem, v6: v6, flows: uint64(flows)}, nil
}
