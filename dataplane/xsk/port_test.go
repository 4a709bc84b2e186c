package xsk

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"xlvs/dataplane"
)

func TestEcho(t *testing.T) {
	needRoot(t)
	for name, cfg := range map[string]Config{
		"copy":        {Ring: 64, FramesPerPort: 256},
		"always wake": {Ring: 64, FramesPerPort: 256, AlwaysWake: true},
		"busy poll":   {Ring: 64, FramesPerPort: 256, BusyPoll: BusyPoll{Microseconds: 20, Budget: 64}},
		"4 KiB":       {Ring: 128, FrameSize: 4096},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, 1, 1)
			cfg.Ports = l.ports(1)
			s := l.open(cfg)
			p := s.Ports[0]
			l.steer(0, p)
			w := l.wire(0)
			const count = 1000 // many times around the ring
			carry(t, w, w, p, p, count)
			st := p.Stats()
			if st.RxPackets != count || st.TxPackets != count || st.RxBytes != 60*count || st.TxBytes != 60*count {
				t.Errorf("counters %+v", st)
			}
			if st.RxDropped+st.TxDropped+st.TxInvalid+st.Errors != 0 || st.Wakeups == 0 {
				t.Errorf("counters %+v, first error %v", st, p.FirstError())
			}
			if p.ZeroCopy() || !strings.Contains(s.Fallback, "refused zero-copy (bind: operation not supported)") || p.NeedWakeup() == cfg.AlwaysWake {
				t.Errorf("zero-copy %v, fallback %q, need_wakeup %v", p.ZeroCopy(), s.Fallback, p.NeedWakeup())
			}
			noLeak(t, s)
		})
	}
}

// A frame that came in by one interface leaves by another, without a copy.
func TestSharedMemory(t *testing.T) {
	l := newLab(t, 2, 1)
	s := l.open(Config{Ports: l.ports(2), Ring: 64, FramesPerPort: 256})
	a, b := s.Ports[0], s.Ports[1]
	l.steer(0, a)
	l.steer(1, b)
	wa, wb := l.wire(0), l.wire(1)
	carry(t, wa, wb, a, b, 500)
	carry(t, wb, wa, b, a, 500)
	noLeak(t, s)
	if s.Memory.Chunks() != 512 {
		t.Errorf("%d chunks for two ports with 256", s.Memory.Chunks())
	}
	// Whichever port goes first, the other lives on.
	must(t, a.Close())
	must(t, b.Close())
	must(t, a.Close())
}

func TestTwoQueues(t *testing.T) {
	l := newLab(t, 1, 2)
	name := l.links[0].Attrs().Name
	if n, err := Queues(name); err != nil || n != 2 {
		t.Fatalf("Queues = %d, %v", n, err)
	}
	s := l.open(Config{Ports: []Options{{Name: name, Queue: 0}, {Name: name, Queue: 1}}, Ring: 64})
	l.steer(0, s.Ports...)
	w := l.wire(0)
	in, out := s.Ports[0], s.Ports[1]
	must(t, w.send(1)) // the sender's kernel hashes: which queue it chooses is its affair
	var b [1]dataplane.Frame
	waitFor(t, "a frame on either queue", func() bool {
		if out.Recv(b[:]) == 1 {
			in, out = out, in
			return true
		}
		return in.Recv(b[:]) == 1
	})
	s.Memory.Free(b[0].Chunk)
	carry(t, w, w, in, out, 100)
	noLeak(t, s)
}

func TestPollWaitsForFrames(t *testing.T) {
	l := newLab(t, 1, 1)
	s := l.open(Config{Ports: l.ports(1), Ring: 64})
	p := s.Ports[0]
	l.steer(0, p)
	fds := []unix.PollFd{{Fd: int32(p.FD()), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 0); err != nil || n != 0 {
		t.Fatalf("idle: poll = %d, %v", n, err)
	}
	must(t, l.wire(0).send(1))
	if n, err := unix.Poll(fds, int(patience.Milliseconds())); err != nil || n != 1 {
		t.Fatalf("a frame was sent: poll = %d, %v", n, err)
	}
	var b [4]dataplane.Frame
	if n := p.Recv(b[:]); n != 1 {
		t.Errorf("Recv = %d", n)
	}
}

func TestLinkDownAndUp(t *testing.T) {
	l := newLab(t, 1, 1)
	s := l.open(Config{Ports: l.ports(1), Ring: 64, FramesPerPort: 256})
	p := s.Ports[0]
	l.steer(0, p)
	w := l.wire(0)
	carry(t, w, w, p, p, 100)

	must(t, netlink.LinkSetDown(l.links[0]))
	for range 5 { // 80 frames, more than the 64 slots of the ring
		send(t, s, p, 16)
		if err := p.Flush(); !errors.Is(err, unix.ENETDOWN) {
			t.Fatalf("Flush on a link that is down: %v", err)
		}
	}
	if st := p.Stats(); st.Errors != 5 || st.TxDropped != 16 {
		t.Errorf("counters %+v", st)
	}
	if !errors.Is(p.FirstError(), unix.ENETDOWN) {
		t.Errorf("first error %v", p.FirstError())
	}
	if n := testing.AllocsPerRun(50, func() { _ = p.Flush() }); n != 0 {
		t.Errorf("%v allocations a Flush on a link that is down", n)
	}
	noLeak(t, s)

	must(t, netlink.LinkSetUp(l.links[0]))
	waitFor(t, "the waiting frames to leave", func() bool {
		return p.Flush() == nil && p.Stats().Outstanding == 64
	})
	waitFor(t, "the link to carry frames again", func() bool {
		_ = w.send(7)
		must(t, forward(t, p, p))
		_, ok := w.receive()
		return ok
	})
	waitFor(t, "silence", func() bool {
		must(t, forward(t, p, p))
		_, ok := w.receive()
		return !ok && p.Stats().RxPackets == p.Stats().TxPackets-64
	})
	carry(t, w, w, p, p, 100)
	noLeak(t, s)
}

// An interface that is deleted under the port gives errors, not a panic.
func TestLinkDeleted(t *testing.T) {
	l := newLab(t, 1, 1)
	s := l.open(Config{Ports: l.ports(1), Ring: 64})
	must(t, netlink.LinkDel(l.links[0]))
	send(t, s, s.Ports[0], 4)
	waitFor(t, "ENXIO", func() bool { return errors.Is(s.Ports[0].Flush(), unix.ENXIO) })
	var b [4]dataplane.Frame
	if n := s.Ports[0].Recv(b[:]); n != 0 {
		t.Errorf("Recv = %d", n)
	}
	noLeak(t, s)
}

// Several bursts before a Flush are more than a short ring holds: what waits on it is sent first.
func TestSendMakesRoom(t *testing.T) {
	l := newLab(t, 1, 1)
	s := l.open(Config{Ports: l.ports(1), Ring: 64, FramesPerPort: 512})
	p := s.Ports[0]
	for i := range 4 {
		if n := send(t, s, p, 48); n != 48 {
			t.Errorf("burst %d: %d of 48 frames found room", i, n)
		}
	}
	must(t, p.Flush())
	if st := p.Stats(); st.TxDropped != 0 || st.TxPackets != 4*48 || st.Errors != 0 {
		t.Errorf("counters %+v", st)
	}
	noLeak(t, s)
}

func TestFlood(t *testing.T) {
	l := newLab(t, 1, 1)
	s := l.open(Config{Ports: l.ports(1), Ring: 64, FramesPerPort: 512})
	p, w := s.Ports[0], l.wire(0)
	total, queued := 0, 0
	for range 10 {
		queued += send(t, s, p, 100)
		total += 100
		must(t, p.Flush())
	}
	waitFor(t, "all frames to leave", func() bool { return p.Flush() == nil && p.Stats().Outstanding == 64 })
	st := p.Stats()
	if queued != 640 || int(st.TxPackets) != queued || int(st.TxPackets+st.TxDropped) != total {
		t.Errorf("of %d frames %d were queued: %+v", total, queued, st)
	}
	if s.Memory.Available() != 512-64 {
		t.Errorf("%d chunks free of 512 with 64 on the fill ring", s.Memory.Available())
	}
	arrived := 0
	waitFor(t, "the frames to arrive", func() bool {
		for {
			if _, ok := w.receive(); !ok {
				return arrived == queued
			}
			arrived++
		}
	})
}

// More frames than wait anywhere arrive while nobody receives: all are counted.
func TestReceiveFlood(t *testing.T) {
	l := newLab(t, 1, 1)
	s := l.open(Config{Ports: l.ports(1), Ring: 64, FramesPerPort: 256})
	p, w := s.Ports[0], l.wire(0)
	l.steer(0, p)
	for i := range uint32(200) {
		must(t, w.send(i))
	}
	var b [dataplane.MaxBurst]dataplane.Frame
	received := uint64(0)
	waitFor(t, "200 frames received or dropped", func() bool {
		n := p.Recv(b[:])
		for _, f := range b[:n] {
			s.Memory.Free(f.Chunk)
		}
		received += uint64(n)
		return received+p.Stats().RxDropped == 200
	})
	if st := p.Stats(); st.RxPackets != received || st.RxDropped == 0 {
		t.Errorf("received %d: %+v", received, st)
	}
	noLeak(t, s)
}

func TestHotPathDoesNotAllocate(t *testing.T) {
	l := newLab(t, 1, 1)
	s := l.open(Config{Ports: l.ports(1), Ring: 64, FramesPerPort: 256})
	p, w := s.Ports[0], l.wire(0)
	l.steer(0, p)
	carry(t, w, w, p, p, 10)
	for i := range uint32(32) {
		must(t, w.send(i))
	}
	var b [2]dataplane.Frame
	received := 0
	if n := testing.AllocsPerRun(50, func() {
		n := p.Recv(b[:])
		received += n
		p.Send(b[:n])
		if err := p.Flush(); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a poll", n)
	}
	if received == 0 {
		t.Error("no frame was received while counting")
	}
}

// Stats may be called from anywhere, also while the port is being closed; the race detector watches.
func TestStatsWhileWorking(t *testing.T) {
	l := newLab(t, 1, 1)
	s := l.open(Config{Ports: l.ports(1), Ring: 64, FramesPerPort: 256})
	p, w := s.Ports[0], l.wire(0)
	l.steer(0, p)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			if st := p.Stats(); st.Outstanding > 256 || st.TxPackets > 300 {
				t.Errorf("impossible counters %+v", st)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	carry(t, w, w, p, p, 300)
	must(t, s.Close())
	close(stop)
	<-done
	if st := p.Stats(); st.TxPackets != 300 {
		t.Errorf("counters after Close: %+v", st)
	}
}

// send allocates n frames and gives them to p.
func send(t testing.TB, s *Set, p *Port, n int) (queued int) {
	t.Helper()
	var b []dataplane.Frame
	for i := range n {
		c, ok := s.Memory.Alloc()
		if !ok {
			t.Fatalf("no chunk for frame %d of %d", i, n)
		}
		f := dataplane.Frame{Chunk: c, Off: 128, Len: 60}
		copy(s.Memory.Bytes(f), frameNumber(uint32(i)))
		b = append(b, f)
	}
	return p.Send(b)
}

func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for %s in vain", patience, what)
		}
	}
}
