package dataplane

import (
	"fmt"

	"xlvs/dataplane/packet"
)

// MaxBurst is the most frames a worker takes from a port at once.
const MaxBurst = 64

// A Frame names one packet in a worker's Memory: Len bytes that start Off bytes
// into chunk number Chunk. It holds no pointer, so a burst of frames is copied
// without write barriers and means nothing without the Memory it came from.
//
//	chunk: |<- headroom ->|<---- Len: Ethernet frame ---->|<- tailroom ->|
//	       0             Off                           Off+Len     ChunkSize
type Frame struct {
	Chunk uint32
	Off   uint16
	Len   uint16
}

// Memory is the packet memory of one worker: equal chunks and a LIFO list of the
// free ones (the chunk freed last is the one most likely still in cache). All ports
// of a worker share one Memory, so a frame received on one is sent on another without
// a copy. It belongs to its worker: no method may be called from two goroutines at once.
type Memory struct {
	buf   []byte
	size  uint32
	shift uint8
	free  []uint32
}

// NewMemory cuts buf into chunks of chunkSize bytes (a power of two from 2048 to
// 32768, as large as a Frame can address) and puts them all on the free list. buf is kept, not copied.
func NewMemory(buf []byte, chunkSize int) (*Memory, error) {
	if chunkSize < 2048 || chunkSize > 32768 || chunkSize&(chunkSize-1) != 0 {
		return nil, fmt.Errorf("packet memory: chunk size %d is not a power of two from 2048 to 32768", chunkSize)
	}
	n := len(buf) / chunkSize
	if n == 0 {
		return nil, fmt.Errorf("packet memory: %d bytes hold no chunk of %d bytes", len(buf), chunkSize)
	}
	m := &Memory{buf: buf[:n*chunkSize], size: uint32(chunkSize), free: make([]uint32, 0, n)}
	for s := chunkSize; s > 1; s >>= 1 {
		m.shift++
	}
	for i := n - 1; i >= 0; i-- {
		m.free = append(m.free, uint32(i))
	}
	return m, nil
}

// Bytes returns the frame's packet. The slice's capacity ends with the chunk.
func (m *Memory) Bytes(f Frame) []byte {
	chunk := uint64(f.Chunk) << (m.shift & 63)
	start := chunk + uint64(f.Off)
	return m.buf[start : start+uint64(f.Len) : chunk+uint64(m.size)]
}

// plainHead is as much of a packet.Plain frame as is rewritten by direct routing: all of it up to IPv4's transport header.
const plainHead = packet.EthLen + packet.IPv4Len

// head returns the first bytes of a frame that has at least so many.
func (m *Memory) head(f Frame) *[plainHead]byte {
	start := uint64(f.Chunk)<<(m.shift&63) + uint64(f.Off)
	return (*[plainHead]byte)(m.buf[start : start+plainHead])
}

// Chunk returns all bytes of chunk number c, headroom and tailroom included.
func (m *Memory) Chunk(c uint32) []byte {
	start := uint64(c) << m.shift
	end := start + uint64(m.size)
	return m.buf[start:end:end]
}

// Alloc takes a chunk from the free list; ok is false when none is left.
func (m *Memory) Alloc() (chunk uint32, ok bool) {
	n := len(m.free)
	if n == 0 {
		return 0, false
	}
	chunk = m.free[n-1]
	m.free = m.free[:n-1]
	return chunk, true
}

// Free gives a chunk back. Freeing one twice is a bug that the leak tests catch:
// the free list can then grow past the number of chunks, and Free panics.
func (m *Memory) Free(chunk uint32) {
	if len(m.free) == cap(m.free) {
		panic("dataplane: a chunk was freed twice")
	}
	m.free = append(m.free, chunk)
}

// Available returns how many chunks are free, Chunks how many there are, ChunkSize their size in bytes.
func (m *Memory) Available() int { return len(m.free) }

// Chunks returns the number of chunks.
func (m *Memory) Chunks() int { return cap(m.free) }

// ChunkSize returns a chunk's size in bytes.
func (m *Memory) ChunkSize() int { return int(m.size) }

// ChunkShift returns log2 of the chunk size: chunk c starts at byte c<<shift of the memory.
func (m *Memory) ChunkShift() uint8 { return m.shift }

// Detach makes m forget its bytes, for an owner that is about to unmap them: afterwards Bytes and
// Chunk panic, and the counts of chunks stay. Slices that they returned before must not be used any more.
func (m *Memory) Detach() { m.buf = nil }

// A Port is one queue of one interface, as one worker sees it. Its methods are called by
// that worker alone, once or a few times a burst and never per packet; only Stats may be
// called from anywhere.
type Port interface {
	// Recv fills b with received frames and returns how many; it never blocks. The frames
	// are the caller's: each must be given to Send of a port with the same Memory, or
	// to Memory.Free. Before it returns, Recv has put free chunks in the place of the received ones.
	Recv(b []Frame) int

	// Send takes all frames of b for transmission, in order, and frees those that find
	// no room, counting them in PortStats.TxDropped; before that it may do what Flush does. It
	// returns how many it queued.
	Send(b []Frame) int

	// Flush wakes the kernel for what Send queued, if it must be woken, and takes back
	// the chunks of frames that have left, though maybe not yet all of them while there are
	// more to send. The worker calls it once a poll, also when nothing was sent. An error says that the port is out of order for now (the interface is
	// down, say); the worker counts it and goes on.
	Flush() error

	// FD returns a descriptor that polls readable when there is something to receive, or -1 where
	// there is none: a worker with nothing to do sleeps on it.
	FD() int

	// Stats returns the port's counters. Any goroutine may call it.
	Stats() PortStats

	// Close releases the port. The worker must have stopped.
	Close() error
}

// A Reliever is a Port that can have some of its frames dropped before it must receive them, while more come than
// its worker can take.
type Reliever interface {
	Port
	// Relieve has it look after that. The worker calls it once a poll with its clock, in milliseconds. It reports
	// whether frames are being dropped: a worker that sleeps for long then would do so for no reason.
	Relieve(now uint32) bool
}

// A Yielder is a Port that drives its device itself as long as its worker polls, in place of the device's interrupts.
type Yielder interface {
	Port
	// Yield hands the device back to its interrupts, so that the next frame makes FD readable without delay. The worker calls it
	// before it sleeps; Recv takes the device over again when it finds nothing more.
	Yield()
}

// PortStats are a port's counters since it was opened.
type PortStats struct {
	RxPackets, RxBytes uint64
	TxPackets, TxBytes uint64
	TxDropped          uint64 // frames given to Send that found no room
	RxDropped          uint64 // frames the kernel had no room for (fill or RX ring)
	TxInvalid          uint64 // descriptors that the kernel refused
	Wakeups            uint64 // system calls made to wake the kernel
	Errors             uint64 // Flush or wake-up errors
	Outstanding        uint64 // chunks that the port holds: fill ring, RX ring, TX in flight
}
