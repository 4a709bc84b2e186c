package steer

import "encoding/binary"

// Protocol numbers and EtherTypes that the decision knows.
const (
	protoHopByHop    = 0
	protoICMP        = 1
	protoIPIP        = 4
	protoIPv6        = 41
	protoGRE         = 47
	protoRouting     = 43
	protoFragment    = 44
	protoICMPv6      = 58
	protoDestOptions = 60

	etherIPv4  = 0x0800
	etherIPv6  = 0x86dd
	etherVLAN  = 0x8100 // IEEE 802.1Q
	etherSVLAN = 0x88a8 // IEEE 802.1ad

	tcpSYN = 0x02
	tcpRST = 0x04
	tcpACK = 0x10

	maxExtensions       = 6
	maxQuotedExtensions = 3
)

// undecided is what reading a packet returns when it is to be decided on.
const undecided = Reason(NumReasons)

// A Verdict is where a frame goes, and why.
type Verdict struct {
	Director bool // false: the kernel's, or nobody's if it is Shed
	Reason   Reason
}

type parsed struct {
	src, dst endpoint
	quoted   endpoint // destination of the packet that an ICMP error quotes
	v6       bool
	fragment bool
	proto    uint8
	icmpType uint8
	opening  bool // a TCP segment that a client opens a connection with
}

// Decide says what the steering program does with an Ethernet frame under these rules, in the same
// terms and the same order as bpf/steer.c. It reads frame and keeps nothing of it.
func Decide(frame []byte, rules *RuleSet) Verdict {
	r := decide(frame, rules)
	return Verdict{Director: r.Director(), Reason: r}
}

func decide(frame []byte, rules *RuleSet) Reason {
	if len(frame) < 14 {
		return PassNotIP
	}
	etherType, at := binary.BigEndian.Uint16(frame[12:]), 14
	for range 2 {
		if etherType != etherVLAN && etherType != etherSVLAN {
			break
		}
		if at += 4; len(frame) < at {
			return PassNotIP
		}
		etherType = binary.BigEndian.Uint16(frame[at-2:])
	}
	if etherType == 0 {
		return PassNotIP
	}
	if frame[0]&1 != 0 || rules.mac != 0 && rules.mac != macNumber(frame[:6]) {
		return PassL2
	}
	var p parsed
	var r Reason
	switch etherType {
	case etherIPv4:
		r = p.readIPv4(frame[at:])
	case etherIPv6:
		r = p.readIPv6(frame[at:])
	default:
		return PassNotIP
	}
	if r != undecided {
		return r
	}
	r = rules.match(&p)
	if rules.shed && p.opening && (r == Service || r == ServiceAnyPort) {
		return Shed
	}
	return r
}

func (p *parsed) readIPv4(b []byte) Reason {
	if len(b) < 20 {
		return PassMalformed
	}
	header, total := int(b[0]&0xf)*4, int(binary.BigEndian.Uint16(b[2:]))
	if b[0]>>4 != 4 || header < 20 || total < header || total > len(b) {
		return PassMalformed
	}
	p.src.Addr, p.dst.Addr = mapped(b[12:16]), mapped(b[16:20])
	p.proto = b[9]
	p.fragment = binary.BigEndian.Uint16(b[6:])&0x3fff != 0
	if !p.fragment && !p.readUpper(b[header:total]) {
		return PassMalformed
	}
	return undecided
}

func mapped(v4 []byte) address {
	return address{10: 0xff, 11: 0xff, 12: v4[0], 13: v4[1], 14: v4[2], 15: v4[3]}
}

func isMapped(a *address) bool {
	return *a == mapped(a[12:])
}

func (p *parsed) readIPv6(b []byte) Reason {
	if len(b) < 40 || b[0]>>4 != 6 {
		return PassMalformed
	}
	p.v6 = true
	copy(p.src.Addr[:], b[8:24])
	copy(p.dst.Addr[:], b[24:40])
	p.proto = b[6]
	end := 40 + int(binary.BigEndian.Uint16(b[4:]))
	if end > len(b) || isMapped(&p.src.Addr) || isMapped(&p.dst.Addr) {
		return PassMalformed
	}
	at, r := p.walkExtensions(b, 40)
	if r != undecided {
		return r
	}
	if at > end {
		return PassMalformed
	}
	if !p.fragment && !p.readUpper(b[at:end]) {
		return PassMalformed
	}
	return undecided
}

func isExtension(proto uint8) bool {
	return proto == protoHopByHop || proto == protoRouting || proto == protoDestOptions
}

func (p *parsed) walkExtensions(b []byte, at int) (int, Reason) {
	for range maxExtensions {
		if !isExtension(p.proto) && p.proto != protoFragment {
			return at, undecided
		}
		if at+8 > len(b) {
			return at, PassMalformed
		}
		ext := b[at : at+8]
		if p.proto == protoFragment {
			p.fragment = true
			p.proto = ext[0]
			return at + 8, undecided
		}
		if p.proto == protoRouting && ext[3] != 0 {
			return at, PassExtension
		}
		p.proto = ext[0]
		at += 8 + 8*int(ext[1])
	}
	if isExtension(p.proto) || p.proto == protoFragment {
		return at, PassExtension
	}
	return at, undecided
}

func (p *parsed) isICMP() bool {
	if p.v6 {
		return p.proto == protoICMPv6
	}
	return p.proto == protoICMP
}

// readUpper reads ports or the ICMP type from what the IP header leaves to the upper layer; false when that
// is less than the protocol's header.
func (p *parsed) readUpper(b []byte) bool {
	switch {
	case p.isICMP():
		if len(b) < 8 {
			return false
		}
		p.icmpType = b[0]
		if p.isICMPError() {
			p.readQuote(b[8:])
		}
	case p.proto == protoTCP && len(b) < 20, p.proto == protoUDP && len(b) < 8:
		return false
	case p.proto == protoTCP || p.proto == protoUDP:
		copy(p.src.Port[:], b[0:2])
		copy(p.dst.Port[:], b[2:4])
		p.opening = p.proto == protoTCP && b[13]&(tcpSYN|tcpACK|tcpRST) == tcpSYN
	}
	return true
}

func (s *RuleSet) match(p *parsed) Reason {
	roles, known := s.dests[p.dst.Addr]
	if roles&roleMatched != 0 {
		return s.matchVIP(p, roles)
	}
	if known {
		return s.matchLocal(p)
	}
	if roles = s.longest(p.dst.Addr); roles != 0 {
		return s.matchVIP(p, roles)
	}
	if !p.isRoutable() {
		return PassOther
	}
	if roles = s.sources[p.src.Addr]; roles&roleMatched != 0 {
		return s.matchBackend(p, roles)
	}
	return s.matchError(p)
}

// matchLocal decides on what is for one of the director's own addresses: an error about a tunnel to a backend is the director's.
func (s *RuleSet) matchLocal(p *parsed) Reason {
	switch p.quoted.Proto {
	case protoIPIP, protoIPv6, protoGRE, protoUDP:
		if s.sources[p.quoted.Addr]&roleTunnel != 0 {
			return TunnelICMP
		}
	}
	return PassLocal
}

// matchError decides on what may be an error about what a client sent to a NAT backend, which goes to the client: from the backend or
// from a router before it. What else they send errors about is none of the director's.
func (s *RuleSet) matchError(p *parsed) Reason {
	if p.quoted.Proto != protoTCP && p.quoted.Proto != protoUDP {
		return PassOther
	}
	roles := s.sources[p.quoted.Addr]
	if _, ok := s.replies[p.quoted]; ok && roles&portsRole(p.quoted.Proto) != 0 || roles&anyPortRole(p.quoted.Proto) != 0 {
		return ReplyICMP
	}
	return PassOther
}

func (s *RuleSet) matchVIP(p *parsed, roles role) Reason {
	switch {
	case p.fragment && (p.isICMP() || p.fragmentMatches(roles)):
		return Fragment
	case p.fragment:
		return PassVIPOther
	case p.isICMP() && p.isControl():
		return PassControl
	case p.isICMP():
		return ICMP
	}
	p.dst.Proto = p.proto
	if _, ok := s.services[p.dst]; ok {
		return Service
	}
	if roles&rolePrefix != 0 && s.inPrefix(p.dst) {
		return Service
	}
	if roles&anyPortRole(p.proto) != 0 {
		return ServiceAnyPort
	}
	return PassVIPOther
}

func (s *RuleSet) matchBackend(p *parsed, roles role) Reason {
	switch {
	case p.fragment && p.fragmentMatches(roles):
		return ReplyFragment
	case p.fragment:
		return PassOther
	case p.isICMP():
		return s.matchError(p)
	case roles&anyPortRole(p.proto) != 0:
		return Reply
	}
	p.src.Proto = p.proto
	if _, ok := s.replies[p.src]; ok {
		return Reply
	}
	return PassOther
}

func (p *parsed) fragmentMatches(roles role) bool {
	return roles&(portsRole(p.proto)|anyPortRole(p.proto)) != 0 || p.v6 && isExtension(p.proto)
}

func (p *parsed) isControl() bool {
	return p.v6 && (p.icmpType >= 130 && p.icmpType <= 137 || p.icmpType == 143)
}

func (p *parsed) isICMPError() bool {
	if p.v6 {
		return p.icmpType < 128
	}
	return p.icmpType == 3 || p.icmpType == 4 || p.icmpType == 11 || p.icmpType == 12
}

// isRoutable reports whether a reply can be forwarded to the packet's destination.
func (p *parsed) isRoutable() bool {
	a := &p.dst.Addr
	if !p.v6 {
		return a[12] != 0 && a[12] != 127 && a[12] < 224 && (a[12] != 169 || a[13] != 254)
	}
	if a[0] == 0xff || a[0] == 0xfe && a[1]&0xc0 == 0x80 {
		return false
	}
	return *a != address{} && *a != address{15: 1}
}
