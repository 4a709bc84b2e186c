package perf

import (
	"encoding/binary"
	"sync/atomic"
	"time"

	"xlvs/dataplane"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// A witness is a source that knows where its packets may go. Its first rebuildFlows flows are established; each must stay with
// the backend that it went to first, alive or dead, as TCP connections do. All further ones are opened by the packet seen,
// and must not go to a backend that is known to be dead.
type witness struct {
	*source
	engine *dataplane.Engine
	given  int

	mixed      bool   // deliver packets of the established flows and SYNs of new ones, half of each burst; else what source does
	lcg, fresh uint32 // where in its sequence each half is
	ack, syn   []byte

	first []uint16 // by established flow: its backend + 1

	// Set by whoever kills: the backend that is dead, 0 if none is, and when that was (nanoseconds since start).
	dead  atomic.Int32
	since atomic.Int64
	start time.Time

	// What the next poll knows, as of the end of the last one: a worker looks for a snapshot when a poll begins.
	snap   *table.Snapshot
	looked int32 // what dead was then
	known  int32 // the backend that is dead in snap

	misdirected int           // to where nothing that the worker could know let them go
	late        int           // to a backend that was dead, before the worker knew
	longest     time.Duration // from a death to the last of those
}

func newWitness() (*witness, error) {
	src, err := newSource(false, rebuildFlows)
	if err != nil {
		return nil, err
	}
	return &witness{source: src, fresh: rebuildFlows, first: make([]uint16, rebuildFlows), start: time.Now(),
		ack: tcpFrame(false, false, packet.FlagACK, 64), syn: tcpFrame(false, false, packet.FlagSYN, 64)}, nil
}

// open establishes the flows that stay, and goes over to traffic.
func (w *witness) open() error {
	b := bench{balanced: balanced{mode: table.DR}, engine: w.engine, src: w.source, flows: rebuildFlows, now: w.engine.Now()}
	err := b.establish()
	w.given, w.sent, w.mixed = 0, 0, true
	return err
}

// Recv hands out packets for as long as the worker runs.
func (w *witness) Recv(b []dataplane.Frame) int {
	if !w.mixed {
		return w.source.Recv(b)
	}
	w.random, w.template, w.next, w.budget = true, w.ack, w.lcg, len(b)/2
	n := w.source.Recv(b[:len(b)/2])
	w.lcg = w.next
	w.random, w.template, w.next, w.budget = false, w.syn, w.fresh, len(b)-n
	n += w.source.Recv(b[n:])
	w.fresh = w.next
	w.given += n
	return n
}

// Send looks where each packet goes: the backend's number is in the destination MAC, the flow's in the client.
func (w *witness) Send(b []dataplane.Frame) int {
	dead := w.dead.Load()
	for _, f := range b {
		p := w.mem.Bytes(f)
		host, port := binary.BigEndian.Uint32(p[26:])-clientNet, binary.BigEndian.Uint16(p[34:])-1024
		w.see(host<<flowPortBits|uint32(port), binary.BigEndian.Uint16(p[4:]), dead)
	}
	return w.source.Send(b)
}

// see judges a packet of a flow that went to a backend while another, or that one, was dead.
func (w *witness) see(flow uint32, backend uint16, dead int32) {
	switch {
	case flow < rebuildFlows && w.first[flow] == 0:
		w.first[flow] = backend + 1
	case flow < rebuildFlows:
		if w.first[flow] != backend+1 {
			w.misdirected++
		}
	case dead == 0 || int32(backend) != dead:
	case w.known == dead:
		w.misdirected++
	default:
		w.late++
		w.longest = max(w.longest, time.Since(w.start)-time.Duration(w.since.Load()))
	}
}

// Flush ends a poll: what is published now, the next one must heed.
func (w *witness) Flush() error {
	if !w.mixed {
		return nil
	}
	s, dead := w.engine.Snapshot(), w.dead.Load()
	if s == w.snap && dead == w.looked {
		return nil
	}
	w.snap, w.looked, w.known = s, dead, 0
	if dead != 0 && !up(s, dead) {
		w.known = dead
	}
	return nil
}

// up reports whether a snapshot has the backend of a number up.
func up(s *table.Snapshot, number int32) bool {
	for i := range s.Backends {
		if b := &s.Backends[i]; b.Live && int32(binary.BigEndian.Uint16(b.Eth[4:])) == number {
			return b.Up
		}
	}
	return false
}

// news tells of a death, or of a return.
func (w *witness) news(backend int32, up bool) {
	if up {
		w.dead.Store(0)
		return
	}
	w.since.Store(int64(time.Since(w.start)))
	w.dead.Store(backend)
}
