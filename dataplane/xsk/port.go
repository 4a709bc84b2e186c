package xsk

import (
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"xlvs/dataplane"
)

// A Port is one AF_XDP socket: it implements dataplane.Port. Recv, Send and Flush
// belong to the worker; they never allocate and read or publish each shared ring index
// once a batch.
type Port struct {
	*rings
	mem        *dataplane.Memory
	shift      uint8
	hungry     bool // the fill ring has room that no chunk was free for
	busyPoll   bool
	pollFD     atomic.Int32 // whose receive call polls the device, plus 1; 0: this socket's own, if it busy-polls
	yielded    int          // the descriptor that Yield has told not to keep interrupts off, plus 1; 0: none
	alwaysWake bool
	zeroCopy   bool
	fd         int
	txBudget   int
	ringSize   uint32
	inFlight   uint32 // chunks sent and not yet back from the completion ring
	queued     uint32 // of these, sent since the last Flush
	lastErr    *WakeError
	unpolled   uint32 // frames received since pollNAPI
	pollMost   uint32 // frames that one pollNAPI takes from the device at most
	meter      atomic.Pointer[Meter]
	shed       shedder

	count counters

	set   *Set
	name  string
	queue int
	owner bool // this socket owns the UMEM and is closed last

	mu     sync.Mutex // guards closed and kernel against a concurrent Stats
	closed bool
	kernel unix.XDPStatistics // as last seen

	firstErr atomic.Pointer[WakeError]
}

var _ dataplane.Port = (*Port)(nil)

// reclaimAfter is how many frames a busy-polling port receives at most before it polls again. Normally it polls when the
// ring is empty, and only then: what the kernel received while frames still wait, it would soon have to drop. But when
// the worker was held up for longer than the device's interrupts are deferred, the softirq has taken the device over, and
// keeps it as long as there is more, whatever becomes of it. A poll makes it let go (napi_prefer_busy_poll).
const reclaimAfter = 256

// Recv takes up to len(b) frames from the RX ring and refills the fill ring.
// See dataplane.Port.
func (p *Port) Recv(b []dataplane.Frame) int {
	index, n := p.rx.peek(uint32(len(b)))
	if fd, ok := p.polls(); ok {
		if p.unpolled += n; n == 0 || p.unpolled >= reclaimAfter {
			p.pollNAPI(fd)
			if n == 0 {
				index, n = p.rx.peek(uint32(len(b)))
			}
		}
	}
	if n == 0 {
		p.refill(0)
		return 0
	}
	good, bytes := 0, uint64(0)
	for i := range n {
		d := p.rx.get(index + i)
		f, ok := p.frame(d)
		if !ok {
			p.reject(d)
			continue
		}
		b[good] = f
		good++
		bytes += uint64(f.Len)
	}
	p.rx.release(n)
	p.count.rxTaken.Add(uint64(n))
	p.count.rxBytes.Add(bytes)
	if bad := int(n) - good; bad > 0 {
		p.count.rxInvalid.Add(uint64(bad))
	}
	p.refill(n)
	return good
}

// frame translates a received descriptor: the chunk's number is the address over
// the chunk size, and the offset the remainder (the kernel's 256 bytes of headroom,
// unless the XDP program moved the start of the packet).
func (p *Port) frame(d unix.XDPDesc) (f dataplane.Frame, ok bool) {
	chunk := d.Addr >> p.shift
	off := uint32(d.Addr) & (1<<p.shift - 1)
	if chunk >= uint64(p.mem.Chunks()) || d.Len == 0 || d.Len > 1<<p.shift-off {
		return f, false
	}
	return dataplane.Frame{Chunk: uint32(chunk), Off: uint16(off), Len: uint16(d.Len)}, true
}

// reject frees the chunk of a descriptor that makes no sense, if there is such a chunk.
func (p *Port) reject(d unix.XDPDesc) {
	if chunk := d.Addr >> p.shift; chunk < uint64(p.mem.Chunks()) {
		p.mem.Free(uint32(chunk))
	}
}

// refill puts free chunks on the fill ring after n frames were received, and wakes the
// driver if it has run out of chunks and asks for it.
func (p *Port) refill(received uint32) {
	if received > 0 || p.hungry {
		index, room := p.fill.reserve(p.ringSize)
		n := min(room, uint32(p.mem.Available()))
		p.hungry = n < room
		for i := range n {
			chunk, _ := p.mem.Alloc()
			p.fill.set(index+i, uint64(chunk)<<p.shift)
		}
		if n > 0 {
			p.fill.submit(n)
			p.count.filled.Add(uint64(n))
		}
	}
	// The flag is looked at when idle too: a driver may raise it just after a refill has checked it. With
	// nothing on the ring there is nothing to wake up for. Copy mode never raises it.
	if p.fill.needWakeup() && !p.alwaysWake && p.fill.pending() > 0 {
		p.wakeRX()
	}
}

// Send puts b on the TX ring; Flush wakes the kernel for it. Where the ring has no room, what was sent since the last Flush is
// flushed first. See dataplane.Port.
func (p *Port) Send(b []dataplane.Frame) int {
	index, room := p.tx.reserve(uint32(len(b)))
	if room < uint32(len(b)) && p.queued > 0 {
		_ = p.Flush() // an error that lasts comes back at the worker's own
		index, room = p.tx.reserve(uint32(len(b)))
	}
	sent, dropped, invalid, bytes := uint32(0), uint64(0), uint64(0), uint64(0)
	for _, f := range b {
		switch {
		case f.Len == 0 || uint32(f.Off)+uint32(f.Len) > 1<<p.shift:
			// The kernel would skip such a descriptor without ever completing it.
			invalid++
			p.mem.Free(f.Chunk)
		case sent == room:
			dropped++
			p.mem.Free(f.Chunk)
		default:
			p.tx.set(index+sent, unix.XDPDesc{Addr: uint64(f.Chunk)<<p.shift + uint64(f.Off), Len: uint32(f.Len)})
			sent++
			bytes += uint64(f.Len)
		}
	}
	if sent > 0 {
		p.tx.submit(sent)
		p.inFlight += sent
		p.queued += sent
		p.count.txPackets.Add(uint64(sent))
		p.count.txBytes.Add(bytes)
	}
	if dropped > 0 {
		p.count.txDropped.Add(dropped)
	}
	if invalid > 0 {
		p.count.txInvalid.Add(invalid)
	}
	return int(sent)
}

// FD returns the socket, which goes into the XSKMAP and polls readable.
func (p *Port) FD() int { return p.fd }

// Name and Queue say which queue of which interface this is.
func (p *Port) Name() string { return p.name }

// Queue returns the queue's index.
func (p *Port) Queue() int { return p.queue }

// ZeroCopy reports whether the driver uses the packet memory directly.
func (p *Port) ZeroCopy() bool { return p.zeroCopy }

// NeedWakeup reports whether the socket was bound with XDP_USE_NEED_WAKEUP.
func (p *Port) NeedWakeup() bool { return !p.alwaysWake }

// NAPI returns the number of the NAPI context that serves the queue, or 0 if the socket does not know it, and busy
// polling has no effect. The kernel looks it up on bind if the driver tells it (Linux 6.14, netif_queue_set_napi); before
// 6.13 the first frame received told. veth's queues do not tell.
func (p *Port) NAPI() int {
	id, err := unix.GetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_INCOMING_NAPI_ID)
	if err != nil {
		return 0
	}
	return id
}

// BusyPolls reports whether the port polls its device itself.
func (p *Port) BusyPolls() bool {
	_, ok := p.polls()
	return ok
}

// PollThrough makes a port opened with BusyPoll poll its device by receive calls on fd instead of its own socket, for
// drivers that do not tell AF_XDP sockets the queue's NAPI; also one with IfKnown, which then polls where it would not by itself: its
// interface's interrupts are the caller's to defer. fd is a datagram socket that does not block, has received something
// through the queue, and has SO_PREFER_BUSY_POLL, SO_BUSY_POLL and the port's SO_BUSY_POLL_BUDGET set. Yield clears the first of these for
// a while, and for good if another takes fd's place meanwhile. fd stays the caller's: it may be closed when the worker has ended, or has
// polled after fd was taken back with -1. Any goroutine may call PollThrough.
func (p *Port) PollThrough(fd int) { p.pollFD.Store(int32(fd) + 1) }

// TXBudget returns how many frames one wake-up may send in copy mode.
func (p *Port) TXBudget() int { return p.txBudget }

// Close closes the socket. The chunks it held are not given back to the Memory. The socket
// that owns the memory, the Set's first, keeps its queue until the Set's last port is closed.
func (p *Port) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	if st, err := kernelStatistics(p.fd); err == nil {
		p.kernel = st
	}
	p.closed = true
	p.set.open--
	var err error
	if p.owner {
		p.forget() // the memory is unmapped with the socket
	} else {
		err = errors.Join(p.unmap(), unix.Close(p.fd))
	}
	return errors.Join(err, p.set.releaseMemory())
}
