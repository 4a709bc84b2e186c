// Package table holds the snapshot: all that a worker needs to know of virtual services,
// backends and next hops, immutable from the moment it is published. The control loop builds
// one with New; workers read it with one atomic load a poll.
package table

import (
	"fmt"
	"math/bits"

	"xlvs/dataplane/packet"
)

// Limits of a snapshot. Flow entries name services and backends by a Ref, and the
// counters of a worker are arrays indexed by slot, reserved (not committed) at these sizes.
const (
	MaxServices = 1 << 16
	MaxBackends = 1 << 20
	MaxPorts    = 16  // interfaces
	MaxVLANs    = 240 // a flow entry has a byte for the port that a client is behind
)

// A Ref names a slot and the generation of what lives in it: slot in the lower 24 bits, generation
// in the upper 8. A flow keeps Refs; when a slot is used again with another generation,
// the flows of its former tenant no longer match.
type Ref uint32

// MakeRef builds a Ref. slot must be below 1<<24.
func MakeRef(slot int, gen uint8) Ref { return Ref(uint32(slot)&0xffffff | uint32(gen)<<24) }

// Slot returns the index into Snapshot.Services or Snapshot.Backends.
func (r Ref) Slot() int { return int(r & 0xffffff) }

// Mode is how frames reach a backend.
type Mode uint8

// The three Linux Virtual Server forwarding modes.
const (
	DR  Mode = iota // direct routing: only the MAC addresses change
	TUN             // tunnelling: wrapped in another IP header
	NAT             // address translation, both ways
)

func (m Mode) String() string { return [...]string{"dr", "tun", "nat"}[m] }

// MAC is an Ethernet address.
type MAC [6]byte

// Eth builds the address part of an Ethernet header.
func Eth(dst, src MAC) (e [12]byte) {
	copy(e[:6], dst[:])
	copy(e[6:], src[:])
	return e
}

// A Service is one virtual service. The zero Service (Ref 0 with Live false) marks an empty slot. One that was
// removed keeps its slot with Live false while flows may still name it: the flow table finds their buckets by its address.
type Service struct {
	Live      bool
	Ref       Ref
	Name      string
	Addr      packet.Addr // the VIP; of a prefix its first address
	Bits      uint8       // of a prefix: how many of Addr's 128 bits all its VIPs share (IPv4's /n is 96+n); 0: Addr is the only VIP
	V6        bool
	Port      uint16 // 0: every port of the address
	Proto     uint8
	Mode      Mode
	SloppyTCP bool // a TCP flow may start with any segment but a RST
	Reject    bool // no backend left: answer with ICMP port unreachable instead of silence

	NoEcho     bool   // this service does not make its address answer echo requests
	NoFragment bool   // IPv4 packets that are too big are dropped where they could be fragmented, too
	ClampMSS   uint16 // most bytes of a segment that a SYN may announce; AutoMSS: as the way to the backend allows; 0: any

	BySource  bool        // new flows are spread by the masked client address alone, not by all of the tuple
	Mask      packet.Addr // of the client address, where BySource or Persist is set
	Persist   uint32      // milliseconds that a masked client address is remembered after its last new flow; 0: not at all
	OnePacket bool        // UDP: no flows, each packet is decided on by itself (IPVS' one-packet scheduling)
	QUIC      *QUIC       // UDP: connection IDs decide before anything else; nil: they do not

	Timeouts *Timeouts // of its flows; nil: the snapshot's

	// New sets Singular: a flow entry found by client, service and ports alone does not settle where a packet goes.
	Singular bool

	// Slots is the Maglev table: each element indexes Members. Empty when no backend may
	// take new flows. Members are Refs of backends. Both may be shared between snapshots and services.
	Slots   []uint16
	Members []Ref
}

// AutoMSS as Service.ClampMSS stands for the MTU of the way to a flow's backend, less IP and TCP headers.
const AutoMSS = 0xffff

// A Backend is one real server of one service (the same host in two services is two backends). Like a
// Service, one that was removed stays for a while with Live false.
type Backend struct {
	Live     bool
	Ref      Ref
	Service  Ref
	Name     string
	Addr     packet.Addr
	V6       bool // family of Addr: decides the outer header in TUN
	Port     uint16
	Up       bool // healthy: false moves UDP flows and new connections away
	Resolved bool // Out and Eth are known
	Out      uint8
	Eth      [12]byte    // Ethernet header of the next hop: destination MAC, then the egress interface's
	TunSrc   packet.Addr // outer source address (TUN)
	Encap    Encap       // what lies between outer and inner header (TUN)
	EncapSum bool        // GUE: the outer UDP header has a checksum; GRE: the header has one
	EncapTo  uint16      // GUE: destination port
	MTU      uint16      // of the route to the backend, in bytes of IP packet

	// New sets these, so that a worker need not work them out for each packet.
	Ready   bool   // Live, Up and Resolved: what belongs to a flow is forwarded without further questions
	Limit   uint16 // largest packet that may be sent: MTU less, in TUN, the outer header
	AddrSum uint32 // NAT: what the change of the destination address adds to the complement of a checksum
	PortSum uint32 // NAT: the same for the port
	Sums    bool   // AddrSum and PortSum are known: not where the client chooses the port that is changed
}

// A Hop is what of a backend is needed to forward a packet of a known flow, in half a cache line: workers go over an array
// of them. New makes them of the backends; one that is not Ready has a limit that every packet exceeds.
type Hop struct {
	Ref   Ref
	Limit uint16
	Out   uint8
	_     uint8
	Eth   [12]byte
	_     [12]byte // a size that is a power of two is indexed by a shift
}

// A Gate is what of a service is needed to tell that a packet is to it, in half a cache line. New makes them of the
// services; one whose packets a flow entry alone does not settle, or which other services come before, has Key 0.
type Gate struct {
	Addr packet.Addr
	Key  uint32 // as GateKey makes it
	Ref  Ref
	Mode Mode
	_    [7]byte
}

// GateKey is the destination port as in packet.Ports, and the protocol.
func GateKey(ports packet.Ports, proto uint8) uint32 { return uint32(ports>>16) | uint32(proto)<<16 }

// gate makes the service's Gate. A service of every port, or of a prefix, has none: another may be more exact.
func (v *Service) gate() (g Gate) {
	if v.Live && v.Port != 0 && !v.Singular {
		g = Gate{Addr: v.Addr, Key: GateKey(packet.MakePorts(0, v.Port), v.Proto), Ref: v.Ref, Mode: v.Mode}
	}
	return g
}

// A Port is what workers must know of an interface: index i of Snapshot.Ports is port i of every worker. Behind those
// are the VLANs on them: what comes with a VLAN's tags came in by its port, and what leaves by its port gets them.
type Port struct {
	Name   string
	MAC    MAC
	MTU    uint16
	V4, V6 packet.Addr // source of ICMP errors; the zero Addr when the interface has none of that family
	Tags   packet.Tags // of a VLAN; 0: an interface
	Trunk  uint8       // of a VLAN: the port of the interface that its frames come and leave by
}

// A Snapshot is immutable once New has returned it.
type Snapshot struct {
	Generation uint64
	Services   []Service // by slot
	Backends   []Backend // by slot
	Hops       []Hop     // by slot, made by New
	Gates      []Gate    // by slot, made by New
	Ports      []Port
	Timeouts   Timeouts // of services that have none of their own

	timeouts timeoutIndex

	// New sets these.
	Interfaces int  // how many of Ports are interfaces
	Tagged     bool // the others exist

	vlans   index // VLANs' ports by tags and trunk
	ours    index // addresses of Ports, and VIPs that are no prefix's
	index   index // services by address, port, protocol
	vips    index // VIPs, whatever the port
	replies index // NAT backends by address, port, protocol
	nat     bool  // there are any
	anyPort bool  // some service of one address has port 0

	prefixes []prefixes // services of more than one address, longest prefix first
}

// New checks s and builds its indices. It refuses what would make a worker fail: a member that
// is no live backend or another service's, a slot that points past the members, two services with one key, a
// backend of a family that its mode cannot reach, a table over the limits.
func New(s *Snapshot) (*Snapshot, error) {
	if len(s.Services) > MaxServices || len(s.Backends) > MaxBackends {
		return nil, fmt.Errorf("snapshot: %d services, %d backends; the limits are %d and %d",
			len(s.Services), len(s.Backends), MaxServices, MaxBackends)
	}
	if err := s.buildPorts(); err != nil {
		return nil, err
	}
	s.Gates = make([]Gate, len(s.Services))
	for i := range s.Services {
		if err := s.checkService(i); err != nil {
			return nil, err
		}
		s.Gates[i] = s.Services[i].gate()
	}
	s.Hops = make([]Hop, len(s.Backends))
	s.buildTimeouts()
	for i := range s.Backends {
		b := &s.Backends[i]
		if b.Live && b.Resolved && int(b.Out) >= len(s.Ports) {
			return nil, fmt.Errorf("snapshot: backend %s leaves by port %d of %d", b.Name, b.Out, len(s.Ports))
		}
		if b.Live && b.Ref.Slot() != i {
			return nil, fmt.Errorf("snapshot: backend %s is in slot %d with ref %#x", b.Name, i, b.Ref)
		}
		if v := s.Service(b.Service); b.Live && v != nil && (b.V6 == b.Addr.Is4() || v.Mode != TUN && b.V6 != v.V6) {
			return nil, fmt.Errorf("snapshot: backend %s at %s is of the wrong family for service %s in mode %s",
				b.Name, b.Addr.Netip(), v.Name, v.Mode)
		}
		s.derive(b)
		if b.Ready {
			s.Hops[i] = Hop{Ref: b.Ref, Limit: b.Limit, Out: b.Out, Eth: b.Eth}
		}
	}
	if err := s.buildIndex(); err != nil {
		return nil, err
	}
	return s, s.buildQUIC()
}

// derive sets what follows from a backend's other fields.
func (s *Snapshot) derive(b *Backend) {
	b.Ready, b.Limit = b.Live && b.Up && b.Resolved, b.MTU
	v := s.Service(b.Service)
	if v == nil {
		return
	}
	switch v.Mode {
	case TUN:
		b.Limit -= min(uint16(b.Overhead()), b.Limit)
	case NAT:
		b.Sums = v.Bits == 0 && (v.Port != 0 || b.Port == 0)
		b.AddrSum = change(packet.AddrSum(v.Addr), packet.AddrSum(b.Addr))
		if b.Port != 0 {
			b.PortSum = change(uint64(bits.ReverseBytes16(v.Port)), uint64(bits.ReverseBytes16(b.Port)))
		}
	}
}

// change is the term ~m + m' of RFC 1624, equation 3, folded.
func change(old, next uint64) uint32 {
	return uint32(packet.Fold(uint64(^packet.Fold(old)) + next))
}

func (s *Snapshot) checkService(i int) error {
	v := &s.Services[i]
	if !v.Live {
		return nil
	}
	if v.Ref.Slot() != i {
		return fmt.Errorf("snapshot: service %s is in slot %d with ref %#x", v.Name, i, v.Ref)
	}
	if err := v.checkShape(); err != nil {
		return err
	}
	v.Singular = v.Bits != 0 || v.OnePacket || v.QUIC != nil
	for _, r := range v.Members {
		if r.Slot() >= len(s.Backends) || !s.Backends[r.Slot()].Live || s.Backends[r.Slot()].Ref != r {
			return fmt.Errorf("snapshot: service %s has member %#x, which is no live backend", v.Name, r)
		}
		if b := &s.Backends[r.Slot()]; b.Service != v.Ref {
			return fmt.Errorf("snapshot: service %s has member %s, which belongs to another service", v.Name, b.Name)
		}
	}
	for _, m := range v.Slots {
		if int(m) >= len(v.Members) {
			return fmt.Errorf("snapshot: service %s has a slot that points at member %d of %d", v.Name, m, len(v.Members))
		}
	}
	return nil
}

// Former returns the service and the backend that a flow names, also when they were removed and are only
// remembered; nil where the slot is another's by now.
func (s *Snapshot) Former(svc, be Ref) (*Service, *Backend) {
	var v *Service
	var b *Backend
	if i := svc.Slot(); i < len(s.Services) && s.Services[i].Ref == svc {
		v = &s.Services[i]
	}
	if i := be.Slot(); i < len(s.Backends) && s.Backends[i].Ref == be {
		b = &s.Backends[i]
	}
	return v, b
}

// Backend returns the backend that r names, or nil when its slot has another tenant by now.
func (s *Snapshot) Backend(r Ref) *Backend {
	if i := r.Slot(); i < len(s.Backends) && s.Backends[i].Ref == r && s.Backends[i].Live {
		return &s.Backends[i]
	}
	return nil
}

// Service returns the service that r names, or nil when its slot has another tenant by now.
func (s *Snapshot) Service(r Ref) *Service {
	if i := r.Slot(); i < len(s.Services) && s.Services[i].Ref == r && s.Services[i].Live {
		return &s.Services[i]
	}
	return nil
}
