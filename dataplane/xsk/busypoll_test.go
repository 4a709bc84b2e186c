package xsk

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"xlvs/dataplane"
)

// TestBusyPollsWhenEmpty counts the receive calls of a busy-polling port on a flooded and on an idle ring.
func TestBusyPollsWhenEmpty(t *testing.T) {
	l := newLab(t, 1, 1)
	s := l.open(Config{Ports: l.ports(1), BusyPoll: BusyPoll{Microseconds: 20, Budget: 32}})
	p := s.Ports[0]
	if !p.BusyPolls() {
		t.Fatal("the port does not busy-poll")
	}
	l.steer(0, p)
	in := l.wire(0)
	calls := func() uint64 { return p.Stats().Wakeups }
	var b [dataplane.MaxBurst]dataplane.Frame

	// A call on an empty ring polls, each time.
	start := calls()
	for range 3 {
		if n := p.Recv(b[:]); n != 0 {
			t.Fatalf("%d frames on an empty ring", n)
		}
	}
	if n := calls() - start; n != 3 {
		t.Errorf("3 receives of nothing made %d calls, want 3", n)
	}

	// With frames on the ring none polls, but one in reclaimAfter frames.
	const count = reclaimAfter + 64
	for i := range uint32(count) {
		must(t, in.send(i))
	}
	start = calls()
	got := 0
	for got < count {
		n := p.Recv(b[:])
		if n == 0 {
			t.Fatalf("%d of %d frames are on the ring", got, count)
		}
		for _, f := range b[:n] {
			s.Memory.Free(f.Chunk)
		}
		got += n
	}
	if n := calls() - start; n != 1 {
		t.Errorf("%d frames made %d calls, want 1", count, n)
	}
}

func TestPollThrough(t *testing.T) {
	l := newLab(t, 1, 1)
	s := l.open(Config{Ports: l.ports(1), BusyPoll: BusyPoll{Microseconds: 20}})
	p := s.Ports[0]
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	must(t, unix.Send(pair[1], []byte("x"), 0))
	var b [1]dataplane.Frame
	p.PollThrough(pair[0])
	p.Recv(b[:])
	// The call has taken the datagram.
	if _, _, err := unix.Recvfrom(pair[0], make([]byte, 1), unix.MSG_DONTWAIT); err != unix.EAGAIN {
		t.Errorf("after a receive through another socket, that one answers %v, want %v", err, unix.EAGAIN)
	}
	must(t, unix.Send(pair[1], []byte("x"), 0))
	p.PollThrough(-1)
	p.Recv(b[:])
	if n, _, err := unix.Recvfrom(pair[0], make([]byte, 1), unix.MSG_DONTWAIT); n != 1 || err != nil {
		t.Errorf("a socket that was taken back was received from: %d bytes, %v", n, err)
	}
	if err := p.FirstError(); err != nil {
		t.Error(err)
	}
}

// datagrams returns a socket at the director's end of pair 0 that knows the device's NAPI, because a datagram has
// come through it. The pair's program must let it pass.
func (l *lab) datagrams() (fd int) {
	l.t.Helper()
	here, there := &unix.SockaddrInet4{Port: 9, Addr: [4]byte{192, 0, 2, 2}}, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{192, 0, 2, 1}}
	socket := func(at *unix.SockaddrInet4, link netlink.Link) int {
		addr, err := netlink.ParseAddr(netip.AddrFrom4(at.Addr).String() + "/30")
		must(l.t, err)
		must(l.t, netlink.AddrAdd(link, addr))
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		must(l.t, err)
		l.t.Cleanup(func() { _ = unix.Close(fd) })
		must(l.t, unix.Bind(fd, at))
		return fd
	}
	var from int
	l.inGenerator(func() {
		peer, err := netlink.LinkByName(l.peers[0])
		must(l.t, err)
		from = socket(there, peer)
	})
	fd = socket(here, l.links[0])
	await(l.t, "the socket knows its NAPI", func() bool {
		_ = unix.Sendto(from, []byte("x"), 0, here)
		id, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_INCOMING_NAPI_ID)
		must(l.t, err)
		return id != 0
	})
	for b := make([]byte, 1); ; { // a receive call that finds something does not poll
		_, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
		if err == unix.EAGAIN {
			return fd
		}
		must(l.t, err)
	}
}

// await waits until a condition holds.
func await(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v still not so: %s", patience, what)
		}
	}
}

// TestYield has a port poll a device whose interrupts would stay off for a quarter of an hour after a poll.
func TestYield(t *testing.T) {
	l := newLab(t, 1, 1)
	s := l.open(Config{Ports: l.ports(1), BusyPoll: BusyPoll{Microseconds: 20, IfKnown: true}})
	p, name := s.Ports[0], l.links[0].Attrs().Name
	p.Yield()
	if n := p.Stats().Wakeups; n != 0 {
		t.Errorf("a port that does not poll yields by %d calls", n)
	}
	sockets := l.steer(0)
	fd := l.datagrams()
	must(t, busyPoll(fd, BusyPoll{Microseconds: 20, Budget: 64}))
	undo, err := SetAttributes(name, []Attribute{{File: "napi_defer_hard_irqs", Value: "1"}, {File: "gro_flush_timeout", Value: "900000000000"}})
	must(t, err)
	defer func() { must(t, undo()) }()
	must(t, sockets.Put(uint32(0), uint32(p.FD())))
	p.PollThrough(fd)
	in := l.wire(0)
	var b [dataplane.MaxBurst]dataplane.Frame
	receive := func(want int) {
		t.Helper()
		got := p.Recv(b[:])
		for _, f := range b[:got] {
			s.Memory.Free(f.Chunk)
		}
		if got != want {
			t.Fatalf("received %d frames, want %d", got, want)
		}
	}
	prefers := func(want int) {
		t.Helper()
		got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PREFER_BUSY_POLL)
		must(t, err)
		if got != want {
			t.Errorf("SO_PREFER_BUSY_POLL is %d, want %d", got, want)
		}
	}

	// An interrupt brings the first frame; from then on they are kept off.
	must(t, in.send(0))
	await(t, "an interrupt brings the first frame", func() bool { return p.rx.pending() == 1 })
	receive(1)
	for round := range uint32(3) {
		receive(0)
		prefers(1)
		must(t, in.send(round))
		if n := p.rx.pending(); n != 0 {
			t.Errorf("round %d: %d frames on the ring without a poll: interrupts are on", round, n)
		}
		p.Yield()
		if n := p.rx.pending(); n != 1 {
			t.Errorf("round %d: %d frames on the ring after a yielding poll, want the one that waited", round, n)
		}
		receive(1)
		receive(0) // polls as before
		prefers(1)
		p.Yield()
		calls := p.Stats().Wakeups
		p.Yield() // has no effect
		prefers(0)
		must(t, in.send(round))
		await(t, "an interrupt brings the frame", func() bool { return p.rx.pending() == 1 })
		if n := p.Stats().Wakeups; n != calls {
			t.Errorf("%d calls after the port had yielded", n-calls)
		}
		receive(1)
	}
	if err := p.FirstError(); err != nil {
		t.Error(err)
	}
	noLeak(t, s)
}

// A descriptor that yields for the port and is taken back meanwhile is not the port's to touch any more.
func TestYieldTakenBack(t *testing.T) {
	l := newLab(t, 1, 1)
	s := l.open(Config{Ports: l.ports(1), BusyPoll: BusyPoll{Microseconds: 20}})
	p := s.Ports[0]
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	must(t, err)
	defer unix.Close(pair[1])
	p.PollThrough(pair[0])
	p.Yield()
	p.PollThrough(-1)
	must(t, unix.Close(pair[0]))
	var b [1]dataplane.Frame
	p.Recv(b[:])
	if st := p.Stats(); st.Errors != 0 {
		t.Errorf("counters %+v, first error %v", st, p.FirstError())
	}

	// Its own is, even if another has taken its place when it polls next.
	prefers := func(want int) {
		t.Helper()
		got, err := unix.GetsockoptInt(p.FD(), unix.SOL_SOCKET, unix.SO_PREFER_BUSY_POLL)
		if must(t, err); got != want {
			t.Errorf("SO_PREFER_BUSY_POLL of the port's socket is %d, want %d", got, want)
		}
	}
	prefers(1)
	p.Yield()
	prefers(0)
	p.PollThrough(pair[1])
	p.Recv(b[:])
	prefers(1)
}

// A link that is down makes every poll fail: Yield adds nothing to what Recv and Flush say of it.
func TestYieldOnLinkDown(t *testing.T) {
	l := newLab(t, 1, 1)
	s := l.open(Config{Ports: l.ports(1), BusyPoll: BusyPoll{Microseconds: 20}})
	p := s.Ports[0]
	must(t, netlink.LinkSetDown(l.links[0]))
	p.Yield()
	if st := p.Stats(); st.Errors != 0 || p.FirstError() != nil {
		t.Errorf("counters %+v, first error %v", st, p.FirstError())
	}
}

func TestBudgetWithin(t *testing.T) {
	for _, c := range []struct{ budget, frames, want int }{{64, 2048, 64}, {64, 64, 32}, {64, 2 * txBatch, txBatch}, {0, 64, 0}} {
		if got := (BusyPoll{Budget: c.budget}).within(c.frames).Budget; got != c.want {
			t.Errorf("a budget of %d where a call may bring %d frames becomes %d, want %d", c.budget, c.frames, got, c.want)
		}
	}
}

// TestBusyPollsWhereKnown opens a port on veth, which does not tell its NAPI.
func TestBusyPollsWhereKnown(t *testing.T) {
	l := newLab(t, 1, 1)
	s := l.open(Config{Ports: l.ports(1), BusyPoll: BusyPoll{Microseconds: 20, IfKnown: true}})
	p := s.Ports[0]
	if known := p.NAPI() != 0; p.BusyPolls() != known {
		t.Errorf("the NAPI is known: %t; the port busy-polls: %t", known, p.BusyPolls())
	}
}
