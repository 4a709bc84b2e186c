package memio

import (
	"errors"
	"fmt"

	"xlvs/dataplane"
)

// Replay says what a benchmark receives.
type Replay struct {
	// Frames are the templates, delivered in turn, one to a chunk.
	Frames [][]byte
	// Restore is how many bytes of the template are written again before each delivery: enough to undo
	// what the code under test rewrites. 0: none, the frame is delivered as it came back.
	Restore int
	// Vary, if set, is called on each frame before its delivery with a running number, to make
	// more flows than there are chunks. It must not allocate.
	Vary func(frame []byte, n uint64)
}

// replay cycles chunks through a FIFO, so that all templates take their turn. Chunks
// that the worker freed (or sent by another port) are taken from the Memory again when
// the FIFO is empty: each chunk keeps its template's bytes.
type replay struct {
	Replay
	template []uint32 // by chunk number
	fifo     []uint32 // a ring as large as the Memory
	head     int
	n        int
	count    uint64
}

// Replay puts the port into its benchmark mode: it takes all free chunks of the Memory, fills
// them with r.Frames in turn, and delivers them for ever. Send then frees frames without looking at them. Another
// port of the same Memory may Send them as well, but must not Recv.
func (p *Port) Replay(r Replay) error {
	if len(r.Frames) == 0 {
		return errors.New("memio: nothing to replay")
	}
	for i, f := range r.Frames {
		if len(f) == 0 || Headroom+len(f) > p.mem.ChunkSize() {
			return fmt.Errorf("memio: frame %d of %d bytes does not fit a chunk of %d bytes behind %d of headroom", i, len(f), p.mem.ChunkSize(), Headroom)
		}
	}
	if p.mem.Available() != p.mem.Chunks() {
		return fmt.Errorf("memio: replay needs all chunks, but %d of %d are in use", p.mem.Chunks()-p.mem.Available(), p.mem.Chunks())
	}
	s := &replay{Replay: r, template: make([]uint32, p.mem.Chunks()), fifo: make([]uint32, p.mem.Chunks())}
	for i := range s.fifo {
		chunk, _ := p.mem.Alloc()
		s.template[chunk] = uint32(i % len(r.Frames))
		copy(p.mem.Chunk(chunk)[Headroom:], r.Frames[s.template[chunk]])
		s.push(chunk)
	}
	p.replay = s
	p.outstanding.Store(uint64(s.n))
	return nil
}

// push panics like Memory.Free, and for the same bug: a chunk that was sent or freed twice.
func (s *replay) push(chunk uint32) {
	if s.n == len(s.fifo) {
		panic("memio: a chunk was sent twice")
	}
	i := s.head + s.n
	if i >= len(s.fifo) {
		i -= len(s.fifo)
	}
	s.fifo[i] = chunk
	s.n++
}

func (s *replay) pop() uint32 {
	chunk := s.fifo[s.head]
	if s.head++; s.head == len(s.fifo) {
		s.head = 0
	}
	s.n--
	return chunk
}

func (p *Port) recvReplay(b []dataplane.Frame) int {
	s := p.replay
	for s.n < len(b) {
		chunk, ok := p.mem.Alloc()
		if !ok {
			break
		}
		s.push(chunk)
	}
	n, bytes := min(len(b), s.n), uint64(0)
	for i := range b[:n] {
		chunk := s.pop()
		t := s.Frames[s.template[chunk]]
		b[i] = dataplane.Frame{Chunk: chunk, Off: Headroom, Len: uint16(len(t))}
		if s.Restore > 0 {
			copy(p.mem.Bytes(b[i]), t[:min(s.Restore, len(t))])
		}
		if s.Vary != nil {
			s.Vary(p.mem.Bytes(b[i]), s.count)
			s.count++
		}
		bytes += uint64(len(t))
	}
	p.rxPackets.Add(uint64(n))
	p.rxBytes.Add(bytes)
	p.outstanding.Store(uint64(s.n))
	return n
}

func (p *Port) discard(b []dataplane.Frame) int {
	bytes := uint64(0)
	for _, f := range b {
		bytes += uint64(f.Len)
		p.replay.push(f.Chunk)
	}
	p.txPackets.Add(uint64(len(b)))
	p.txBytes.Add(bytes)
	p.outstanding.Store(uint64(p.replay.n))
	return len(b)
}

func (p *Port) stopReplay() {
	if p.replay == nil {
		return
	}
	for p.replay.n > 0 {
		p.mem.Free(p.replay.pop())
	}
	p.replay = nil
	p.outstanding.Store(0)
}
