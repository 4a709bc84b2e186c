package dataplane

import (
	"sync/atomic"

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

// eventRing carries events from a worker to the log: one writer, one reader, no waiting. What does not fit is
// counted and forgotten.
type eventRing struct {
	buf  []Event
	_    [64]byte
	head atomic.Uint64 // written by the worker
	_    [56]byte
	tail atomic.Uint64 // written by the reader
}

func newEventRing(n int) *eventRing {
	size := 1
	for size < n {
		size *= 2
	}
	return &eventRing{buf: make([]Event, size)}
}

// put stores an event; false means the ring is full.
func (r *eventRing) put(e *Event) bool {
	h := r.head.Load()
	if h-r.tail.Load() == uint64(len(r.buf)) {
		return false
	}
	r.buf[h&uint64(len(r.buf)-1)] = *e
	r.head.Store(h + 1)
	return true
}

// read moves events into out and returns how many.
func (r *eventRing) read(out []Event) int {
	t, h := r.tail.Load(), r.head.Load()
	n := min(int(h-t), len(out))
	for i := range n {
		out[i] = r.buf[(t+uint64(i))&uint64(len(r.buf)-1)]
	}
	r.tail.Store(t + uint64(n))
	return n
}
