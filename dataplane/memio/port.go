// Package memio is dataplane.Port over memory, for tests, fuzzing and benchmarks: no
// interface, no root, no kernel.
//
// A test injects frames, lets the worker's code run, and looks at what was sent:
//
//	Inject -> [queue] -> Recv -> code under test -> Send -> [queue] -> Sent
//
// A benchmark calls Replay once; from then on Recv delivers prepared frames for ever and Send
// discards, neither of them allocating or, unless asked to, copying.
package memio

import (
	"sync"
	"sync/atomic"

	"xlvs/dataplane"
)

// Headroom is where Recv places a frame in its chunk: AF_XDP leaves as much (XDP_PACKET_HEADROOM).
const Headroom = 256

// A Port is a dataplane.Port over memory. Inject, Sent, SetRoom, FailFlush and Stats may be called from
// any goroutine; the rest belongs to the worker, which alone touches the Memory.
type Port struct {
	mem    *dataplane.Memory
	replay *replay

	mu    sync.Mutex
	rx    [][]byte
	tx    [][]byte
	room  int
	fault error

	rxPackets, rxBytes, rxDropped atomic.Uint64
	txPackets, txBytes            atomic.Uint64
	txDropped, txInvalid, errors  atomic.Uint64
	outstanding                   atomic.Uint64
}

var _ dataplane.Port = (*Port)(nil)

// New returns a port that receives into chunks of mem. Several ports may share mem.
func New(mem *dataplane.Memory) *Port { return &Port{mem: mem, room: -1} }

// Inject queues a copy of frame for Recv. It returns false if the frame is empty, does not
// fit a chunk behind the headroom, or as many frames are waiting as the Memory has chunks.
func (p *Port) Inject(frame []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(frame) == 0 || Headroom+len(frame) > p.mem.ChunkSize() || len(p.rx) >= p.mem.Chunks() {
		return false
	}
	p.rx = append(p.rx, append([]byte(nil), frame...))
	return true
}

// Recv delivers injected frames in order, each at Headroom of its own chunk. A frame for which no
// chunk is free is lost and counted in RxDropped, as a kernel with an empty fill ring does.
func (p *Port) Recv(b []dataplane.Frame) int {
	if p.replay != nil {
		return p.recvReplay(b)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n, bytes := 0, uint64(0)
	for n < len(b) && len(p.rx) > 0 {
		frame := p.rx[0]
		p.rx = p.rx[1:]
		chunk, ok := p.mem.Alloc()
		if !ok {
			p.rxDropped.Add(1)
			continue
		}
		b[n] = dataplane.Frame{Chunk: chunk, Off: Headroom, Len: uint16(len(frame))}
		copy(p.mem.Bytes(b[n]), frame)
		bytes += uint64(len(frame))
		n++
	}
	p.rxPackets.Add(uint64(n))
	p.rxBytes.Add(bytes)
	return n
}

// Send keeps a copy of each frame for Sent and frees its chunk. Frames beyond the room
// that SetRoom gave count as TxDropped, empty ones and ones that leave their chunk as TxInvalid.
func (p *Port) Send(b []dataplane.Frame) int {
	if p.replay != nil {
		return p.discard(b)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	sent := 0
	for _, f := range b {
		switch {
		case !p.valid(f):
			p.txInvalid.Add(1)
		case p.room >= 0 && len(p.tx) >= p.room:
			p.txDropped.Add(1)
		default:
			p.tx = append(p.tx, append([]byte(nil), p.mem.Bytes(f)...))
			p.txPackets.Add(1)
			p.txBytes.Add(uint64(f.Len))
			sent++
		}
		p.mem.Free(f.Chunk)
	}
	return sent
}

func (p *Port) valid(f dataplane.Frame) bool {
	return f.Len > 0 && int(f.Off)+int(f.Len) <= p.mem.ChunkSize()
}

// Sent returns the frames sent since it was last called, in order. They are the caller's.
func (p *Port) Sent() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.tx
	p.tx = nil
	return out
}

// SetRoom makes Send drop what exceeds n frames not yet fetched by Sent, like a full TX ring. A negative n is no limit.
func (p *Port) SetRoom(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.room = n
}

// FailFlush makes Flush return err until it is called with nil, like an interface that is down.
func (p *Port) FailFlush(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = err
}

// Flush returns what FailFlush set. There is no kernel to wake.
func (p *Port) Flush() error {
	if p.replay != nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fault != nil {
		p.errors.Add(1)
	}
	return p.fault
}

// FD returns -1: there is nothing to poll.
func (p *Port) FD() int { return -1 }

// Stats returns the counters. Outstanding is the chunks that Replay holds; else it is 0, since
// injected and sent frames wait outside the Memory, and a Memory with no free chunk missing leaks nothing.
func (p *Port) Stats() dataplane.PortStats {
	return dataplane.PortStats{
		RxPackets: p.rxPackets.Load(), RxBytes: p.rxBytes.Load(), RxDropped: p.rxDropped.Load(),
		TxPackets: p.txPackets.Load(), TxBytes: p.txBytes.Load(), TxDropped: p.txDropped.Load(),
		TxInvalid: p.txInvalid.Load(), Errors: p.errors.Load(), Outstanding: p.outstanding.Load(),
	}
}

// InHand returns how many chunks of mem are neither free nor held by one of ports: what the worker
// received and neither sent nor freed. Outside a burst it must be 0; anything else is a leak.
func InHand(mem *dataplane.Memory, ports ...*Port) int {
	n := mem.Chunks() - mem.Available()
	for _, p := range ports {
		n -= int(p.outstanding.Load())
	}
	return n
}

// Close frees the chunks that Replay holds and drops what is queued.
func (p *Port) Close() error {
	p.stopReplay()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rx, p.tx = nil, nil
	return nil
}
