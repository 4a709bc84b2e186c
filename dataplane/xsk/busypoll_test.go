package xsk

import (
	"testing"

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

// TestBusyPollsWhereKnown opens a port on veth, which does not tell its NAPI.
func TestBusyPollsWhereKnown(t *testing.T) {
	l := newLab(t, 1, 1)
	s := l.open(Config{Ports: l.ports(1), BusyPoll: BusyPoll{Microseconds: 20, IfKnown: true}})
	p := s.Ports[0]
	if known := p.NAPI() != 0; p.BusyPolls() != known {
		t.Errorf("the NAPI is known: %t; the port busy-polls: %t", known, p.BusyPolls())
	}
}
