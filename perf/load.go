package perf

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"xlvs/dataplane"
	"xlvs/dataplane/flow"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
	"xlvs/maglev"
)

// source is a dataplane.Port that makes its packets on the spot: a template with the client's address
// and port written over it, so that a small memory stands for any number of flows. What is sent is freed.
//
// Flow number n has client 198.18.0.0/15 (RFC 2544) plus the upper bits of n, and port 1024 plus the
// lower 15: the same function for the set-up and the measurement, with no list of flows to keep in cache.
type source struct {
	mem      *dataplane.Memory
	template []byte
	v6       bool
	budget   int // frames still to deliver
	mask     uint32
	next     uint32
	step     uint32
	sent     uint64
}

const (
	flowPortBits = 15
	headroom     = 256
)

// Recv makes up to len(b) packets. Flow numbers follow a full-period linear congruential sequence: every flow
// comes once before any comes again, in an order that no prefetcher foresees.
func (s *source) Recv(b []dataplane.Frame) int {
	n := min(len(b), 64, s.budget)
	s.budget -= n
	for i := range b[:n] {
		chunk, ok := s.mem.Alloc()
		if !ok {
			return i
		}
		f := s.mem.Chunk(chunk)[headroom:]
		copy(f, s.template)
		s.stamp(f, s.next&s.mask)
		s.next = s.next*s.step + 12345
		b[i] = dataplane.Frame{Chunk: chunk, Off: headroom, Len: uint16(len(s.template))}
	}
	return n
}

// stamp writes flow n's client into a frame. Checksums are left as they are: the director updates them incrementally.
func (s *source) stamp(f []byte, n uint32) {
	if s.v6 {
		binary.BigEndian.PutUint32(f[34:], n>>flowPortBits)
		binary.BigEndian.PutUint16(f[54:], uint16(1024+n&(1<<flowPortBits-1)))
		return
	}
	binary.BigEndian.PutUint32(f[26:], 198<<24|18<<16+n>>flowPortBits)
	binary.BigEndian.PutUint16(f[34:], uint16(1024+n&(1<<flowPortBits-1)))
}

// Send frees what the director forwarded.
func (s *source) Send(b []dataplane.Frame) int {
	for _, f := range b {
		s.mem.Free(f.Chunk)
	}
	s.sent += uint64(len(b))
	return len(b)
}

func (s *source) Flush() error { return nil }

func (s *source) FD() int { return -1 }

func (s *source) Stats() dataplane.PortStats { return dataplane.PortStats{TxPackets: s.sent} }

func (s *source) Close() error { return nil }

// tcpTemplate is an Ethernet frame of size bytes (at least 64 with FCS; 60 without) with a TCP segment to the service.
func tcpTemplate(v6 bool, flags byte, size int) []byte {
	n := max(size, 60)
	f := make([]byte, n)
	copy(f, []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2})
	l4 := 34
	if v6 {
		l4 = 54
		n = max(n, 74)
		f = append(f, make([]byte, n-len(f))...)
		binary.BigEndian.PutUint16(f[12:], packet.EtherIPv6)
		f[14] = 0x60
		binary.BigEndian.PutUint16(f[18:], uint16(n-54))
		f[20], f[21] = packet.ProtoTCP, 64
		src := netip.MustParseAddr("2001:db8:1::").As16()
		copy(f[22:], src[:])
		vip := vip6.As16()
		copy(f[38:], vip[:])
	} else {
		binary.BigEndian.PutUint16(f[12:], packet.EtherIPv4)
		f[14] = 0x45
		binary.BigEndian.PutUint16(f[16:], uint16(n-14))
		f[20] = 0x40
		f[22], f[23] = 64, packet.ProtoTCP
		vip := vip4.As4()
		copy(f[30:], vip[:])
		packet.SetIPv4Sum(f[14:34])
	}
	binary.BigEndian.PutUint16(f[l4+2:], 80)
	f[l4+12], f[l4+13] = 5<<4, flags
	f[l4+16], f[l4+17] = 0x12, 0x34
	return f
}

var (
	vip4 = netip.MustParseAddr("203.0.113.10")
	vip6 = netip.MustParseAddr("2001:db8:f::10")
)

// balancer is a snapshot with one TCP service on port 80 in the given mode and family.
func balancer(mode table.Mode, v6 bool, backends int, size uint64) (*table.Snapshot, error) {
	var names []maglev.Backend
	for i := range backends {
		names = append(names, maglev.Backend{Name: fmt.Sprintf("b%05d", i), Weight: 1})
	}
	m, err := maglev.New(names, size)
	if err != nil {
		return nil, err
	}
	vip := vip4
	if v6 {
		vip = vip6
	}
	s := &table.Snapshot{Generation: 1, Timeouts: flow.DefaultTimeouts(),
		Ports: []table.Port{{Name: "mem", MTU: 1500}}}
	svc := table.Service{Live: true, Name: "web", Addr: packet.FromNetip(vip), V6: v6, Port: 80, Proto: packet.ProtoTCP,
		Mode: mode, Slots: m.Slots()}
	for i := range backends {
		addr := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		if v6 {
			a := netip.MustParseAddr("2001:db8:b::").As16()
			a[14], a[15] = byte(i>>8), byte(i)
			addr = netip.AddrFrom16(a)
		}
		be := table.Backend{Live: true, Ref: table.MakeRef(i, 0), Name: names[i].Name, Addr: packet.FromNetip(addr), V6: v6,
			Port: 8080, Up: true, Resolved: true, MTU: 1500, TunSrc: packet.FromNetip(addr)}
		be.Eth = table.Eth(table.MAC{2, 0, 1, 0, byte(i >> 8), byte(i)}, table.MAC{2, 0, 0, 0, 0, 1})
		s.Backends = append(s.Backends, be)
		svc.Members = append(svc.Members, be.Ref)
	}
	s.Services = []table.Service{svc}
	return table.New(s)
}
