package steer

import (
	"fmt"
	"net/netip"
)

// Protocols that a Key may have.
const (
	protoTCP = 6
	protoUDP = 17
)

// A Key is an address, port and protocol. Port 0 stands for every port. Proto is 6 (TCP) or 17 (UDP). Bits is the length
// of a prefix whose first address Addr is, and stands for all its addresses; 0: Addr alone. Only services have prefixes.
type Key struct {
	Addr  netip.Addr
	Port  uint16
	Proto uint8
	Bits  uint8
}

// Rules are what the director wants to see. The order of the slices and repeated elements mean nothing.
type Rules struct {
	Services []Key // destinations; their addresses are the VIPs
	Replies  []Key // sources: NAT backends
	// Locals are the director's own addresses: what comes for them from a NAT backend, a health check's
	// answer say, is the kernel's. An address that is a VIP too is treated as a VIP, unless it is one only
	// as part of a prefix: whoever gives a whole network to services does not mean the director's own address in it. Subnet broadcast
	// addresses belong here as well where a NAT backend may send to one.
	Locals []netip.Addr
	// Tunnels are the backends that tunnels lead to: ICMP errors for a local address about packets to them are the director's.
	Tunnels []netip.Addr
}

// The Go names of the map keys in headers.h and steer.c; all fields are in network byte order.
type address [16]byte

type endpoint struct {
	Addr  address
	Port  [2]byte
	Proto uint8
	Zero  uint8
}

type role = steerRole

const (
	roleTCPPorts   = steerRoleROLE_TCP_PORTS
	roleUDPPorts   = steerRoleROLE_UDP_PORTS
	roleTCPAnyPort = steerRoleROLE_TCP_ANY_PORT
	roleUDPAnyPort = steerRoleROLE_UDP_ANY_PORT
	roleLocal      = steerRoleROLE_LOCAL
	roleTunnel     = steerRoleROLE_TUNNEL
	rolePrefix     = steerRoleROLE_PREFIX
	roleMatched    = roleTCPPorts | roleUDPPorts | roleTCPAnyPort | roleUDPAnyPort
)

// A RuleSet is Rules in the form of the program's maps. It is immutable; any number of goroutines may use it.
type RuleSet struct {
	dests    map[address]role
	services map[endpoint]role
	sources  map[address]role
	replies  map[endpoint]role
	mac      uint64
	shed     bool

	prefixes       map[prefix]role
	prefixServices map[prefixEndpoint]role
	lengths        []uint32 // of prefixes, longest first
}

// NewRuleSet checks rules. It refuses keys that no packet can match: a protocol other than TCP and UDP, an
// address that is invalid, unspecified, multicast or has a zone.
func NewRuleSet(rules Rules) (*RuleSet, error) {
	s := &RuleSet{
		dests:    make(map[address]role, len(rules.Services)+len(rules.Locals)),
		services: make(map[endpoint]role, len(rules.Services)),
		sources:  make(map[address]role, len(rules.Replies)),
		replies:  make(map[endpoint]role, len(rules.Replies)),
		prefixes: map[prefix]role{}, prefixServices: map[prefixEndpoint]role{},
	}
	for _, k := range rules.Services {
		add := func() error { return addKey(s.dests, s.services, k) }
		if k.Bits != 0 {
			add = func() error { return s.addPrefix(k) }
		}
		if err := add(); err != nil {
			return nil, fmt.Errorf("steering: service %w", err)
		}
	}
	for _, k := range rules.Replies {
		if k.Bits != 0 {
			return nil, fmt.Errorf("steering: NAT backend %s is a prefix of %d bits, and must be one address", k.Addr, k.Bits)
		}
		if err := addKey(s.sources, s.replies, k); err != nil {
			return nil, fmt.Errorf("steering: NAT backend %w", err)
		}
	}
	for _, a := range rules.Tunnels {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
			return nil, fmt.Errorf("steering: the end of a tunnel, %q, is not a unicast address without a zone", a)
		}
		s.sources[a.As16()] |= roleTunnel
	}
	for _, a := range rules.Locals {
		if !a.IsValid() {
			return nil, fmt.Errorf("steering: one of the director's own addresses is the zero netip.Addr")
		}
		s.dests[a.As16()] |= roleLocal
	}
	s.nest()
	return s, nil
}

// WithMAC returns the same rules for an interface that has this MAC address: frames for other hosts
// are then passed. See Attachment.SetMAC.
func (s *RuleSet) WithMAC(mac [6]byte) *RuleSet {
	t := *s
	t.mac = macNumber(mac[:])
	return &t
}

// Shedding returns the same rules for a queue whose worker asks for every packet to be dropped that would open a TCP flow: a
// meter's shed level of 256. Below that chance decides in the kernel; without Shedding the level is 0.
func (s *RuleSet) Shedding() *RuleSet {
	t := *s
	t.shed = true
	return &t
}

func macNumber(mac []byte) (n uint64) {
	for _, b := range mac {
		n = n<<8 | uint64(b)
	}
	return n
}

func (k Key) check() error {
	if !k.Addr.IsValid() || k.Addr.IsUnspecified() || k.Addr.IsMulticast() || k.Addr.Zone() != "" {
		return fmt.Errorf("address %q is not a unicast address without a zone", k.Addr)
	}
	if k.Proto != protoTCP && k.Proto != protoUDP {
		return fmt.Errorf("%s has protocol %d, which is neither TCP (6) nor UDP (17)", netip.AddrPortFrom(k.Addr, k.Port), k.Proto)
	}
	return nil
}

func addKey(addrs map[address]role, endpoints map[endpoint]role, k Key) error {
	if err := k.check(); err != nil {
		return err
	}
	a := address(k.Addr.As16())
	if k.Port == 0 {
		addrs[a] |= anyPortRole(k.Proto)
		return nil
	}
	addrs[a] |= portsRole(k.Proto)
	endpoints[endpoint{Addr: a, Port: [2]byte{byte(k.Port >> 8), byte(k.Port)}, Proto: k.Proto}] = portsRole(k.Proto)
	return nil
}

func portsRole(proto uint8) role {
	switch proto {
	case protoTCP:
		return roleTCPPorts
	case protoUDP:
		return roleUDPPorts
	}
	return 0
}

func anyPortRole(proto uint8) role {
	switch proto {
	case protoTCP:
		return roleTCPAnyPort
	case protoUDP:
		return roleUDPAnyPort
	}
	return 0
}
