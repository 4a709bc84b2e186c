package dataplane

import (
	"xlvs/dataplane/flow"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// EventKind says what happened.
type EventKind uint8

// Kinds of event.
const (
	EventFlowNew EventKind = iota
	EventFlowEnd
)

// An Event is a fixed-size record that a worker leaves for the log. Times are milliseconds of the engine's clock.
type Event struct {
	Kind     EventKind
	State    flow.State
	Client   packet.Addr
	Ports    packet.Ports // of the client's packets
	Service  table.Ref
	Backend  table.Ref
	Packets  uint32
	Bytes    uint64
	Time     uint32
	Duration uint32
	Hash     uint64
}
