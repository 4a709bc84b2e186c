package flow

import (
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// State of a flow: IPVS' TCP states, and one for UDP.
type State uint8

// The states of net/netfilter/ipvs/ip_vs_proto_tcp.c. StateNone marks an entry that is not
// in use, StateDead one that is over but still named by a bucket, StateTemplate one that is no flow but remembers
// where the flows of a client go (persistence).
const (
	StateNone State = iota
	StateEstablished
	StateSynSent
	StateSynRecv
	StateFinWait
	StateTimeWait
	StateClose
	StateCloseWait
	StateLastAck
	StateListen
	StateSynAck
	StateUDP
	StateDead
	StateTemplate
	numStates
)

var stateNames = [numStates]string{"none", "established", "syn_sent", "syn_recv", "fin_wait", "time_wait",
	"close", "close_wait", "last_ack", "listen", "synack", "udp", "dead", "template"}

func (s State) String() string {
	if s < numStates {
		return stateNames[s]
	}
	return "invalid"
}

// Active reports whether IPVS counts the state as an active connection (the rest is inactive).
func (s State) Active() bool {
	switch s {
	case StateEstablished, StateSynSent, StateSynRecv, StateSynAck:
		return true
	}
	return false
}

// HalfOpen reports whether the handshake is not over: such flows are evicted before others.
func (s State) HalfOpen() bool {
	return s == StateSynSent || s == StateSynRecv || s == StateSynAck
}

// DefaultTimeouts are those of IPVS (ip_vs_proto_tcp.c, ip_vs_proto_udp.c), in milliseconds.
func DefaultTimeouts() table.Timeouts {
	return table.Timeouts{
		StateEstablished: 900_000, StateSynSent: 120_000, StateSynRecv: 60_000, StateFinWait: 120_000,
		StateTimeWait: 120_000, StateClose: 10_000, StateCloseWait: 60_000, StateLastAck: 30_000,
		StateListen: 120_000, StateSynAck: 120_000, StateUDP: 300_000,
	}
}

// Direction says which of IPVS' transition tables applies.
type Direction uint8

// In and Out are the two directions of a NAT flow. InOnly is for DR and TUN, whose replies
// are never seen.
const (
	In Direction = iota
	Out
	InOnly
)

const (
	no = StateNone
	es = StateEstablished
	ss = StateSynSent
	sr = StateSynRecv
	fw = StateFinWait
	tw = StateTimeWait
	cl = StateClose
	cw = StateCloseWait
	la = StateLastAck
	li = StateListen
	sa = StateSynAck
)

// transitions[direction][event][state]: tcp_states of ip_vs_proto_tcp.c.
var transitions = [3][4][16]State{
	In: {
		//  NO  ES  SS  SR  FW  TW  CL  CW  LA  LI  SA
		{sr, es, es, sr, sr, sr, sr, sr, sr, sr, sr}, // syn
		{cl, cw, ss, tw, tw, tw, cl, cw, la, li, tw}, // fin
		{es, es, ss, es, fw, tw, cl, cw, cl, li, es}, // ack
		{cl, cl, cl, sr, cl, cl, cl, cl, la, li, sr}, // rst
	},
	Out: {
		{ss, es, ss, sr, ss, ss, ss, ss, ss, li, sr},
		{tw, fw, ss, tw, fw, tw, cl, tw, la, li, tw},
		{es, es, ss, es, fw, tw, cl, cw, la, es, es},
		{cl, cl, ss, cl, cl, tw, cl, cl, cl, cl, cl},
	},
	InOnly: {
		{sr, es, es, sr, sr, sr, sr, sr, sr, sr, sr},
		{cl, fw, ss, tw, fw, tw, cl, cw, la, li, tw},
		{es, es, ss, es, fw, tw, cl, cw, cl, li, es},
		{cl, cl, cl, sr, cl, cl, cl, cl, la, li, cl},
	},
}

const (
	eventSYN = iota
	eventFIN
	eventACK
	eventRST
	eventNone
)

// events maps the four flag bits that matter to an event: RST is tested first, then SYN, FIN, ACK.
var events = func() (t [32]uint8) {
	for f := range t {
		switch {
		case f&packet.FlagRST != 0:
			t[f] = eventRST
		case f&packet.FlagSYN != 0:
			t[f] = eventSYN
		case f&packet.FlagFIN != 0:
			t[f] = eventFIN
		case f&packet.FlagACK != 0:
			t[f] = eventACK
		default:
			t[f] = eventNone
		}
	}
	return t
}()

// Next returns the state that follows s when a segment with the given flags travels in direction d.
func Next(s State, d Direction, tcpFlags uint8) State {
	e := events[tcpFlags&31]
	if e == eventNone || s > sa {
		return s
	}
	return transitions[d][e][s]
}
