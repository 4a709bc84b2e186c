package dataplane_test

import (
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xlvs/dataplane"
)

// A burdened port has frames dropped for it all the time.
type burdened struct {
	dataplane.Port
	asked, now atomic.Uint32
}

func (b *burdened) Relieve(now uint32) bool {
	b.asked.Add(1)
	b.now.Store(now)
	return true
}

func TestRelieve(t *testing.T) {
	var port *burdened
	l := newLab(t, 1, func(o *dataplane.Options) {
		port = &burdened{Port: o.Workers[0].Ports[0]}
		o.Workers[0].Ports[0] = port
	})
	for _, now := range []uint32{7, 7, 9} {
		before := port.asked.Load()
		l.e.Step(0, now)
		if n := port.asked.Load() - before; n != 1 || port.now.Load() != now {
			t.Errorf("at %d ms it was asked %d times, with the time %d", now, n, port.now.Load())
		}
	}
}

// What is dropped for a worker wakes it no more than what does not come: it must look itself whether that goes on.
func TestRelievedWorkerSleepsLightly(t *testing.T) {
	var port *burdened
	l := newLab(t, 1, func(o *dataplane.Options) {
		o.Idle = dataplane.IdlePolicy{Sleep: true, Spin: time.Microsecond}
		port = &burdened{Port: o.Workers[0].Ports[0]}
		o.Workers[0].Ports[0] = port
	})
	if err := l.e.Start(); err != nil {
		t.Fatal(err)
	}
	// Sleeps of 100 ms would not make so many in the ten seconds that are waited for.
	eventually(t, l.said("it looks again and again"), func() bool { return l.e.Worker(0).Sleeps > 150 && port.asked.Load() > 150 })
	l.e.Stop()
}

// A driven port wakes the worker that it yields before: its descriptor is readable until it is received from.
type driven struct {
	dataplane.Port
	fd     int
	yields atomic.Uint64
}

func (d *driven) Yield() {
	d.yields.Add(1)
	_, _ = unix.Write(d.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (d *driven) FD() int { return d.fd }

func (d *driven) Recv(b []dataplane.Frame) int {
	_, _ = unix.Read(d.fd, make([]byte, 8))
	return d.Port.Recv(b)
}

// A port that drives its device gives it back before each sleep, and only then.
func TestYieldsBeforeSleep(t *testing.T) {
	for _, sleep := range []bool{true, false} {
		fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		var port *driven
		l := newLab(t, 1, func(o *dataplane.Options) {
			o.Idle = dataplane.IdlePolicy{Sleep: sleep, Spin: time.Microsecond}
			port = &driven{Port: o.Workers[0].Ports[0], fd: fd}
			o.Workers[0].Ports[0] = port
		})
		if err := l.e.Start(); err != nil {
			t.Fatal(err)
		}
		if sleep {
			// Sleeps that begin before the port yields last 100 ms: there would not be so many in the ten seconds that are waited for.
			eventually(t, l.said("it yields"), func() bool { return port.yields.Load() > 150 })
		} else {
			eventually(t, l.said("it polls"), func() bool { return l.e.Worker(0).Idle > 1000 })
		}
		l.e.Stop()
		if slept := l.e.Worker(0).Sleeps; port.yields.Load() != slept {
			t.Errorf("sleeping %t: %d sleeps, and %d yields", sleep, slept, port.yields.Load())
		}
	}
}

// An asked port counts how often it is received from.
type asked struct {
	dataplane.Port
	calls int
}

func (a *asked) Recv(b []dataplane.Frame) int {
	a.calls++
	return a.Port.Recv(b)
}

// A worker takes another burst at once only if the one before was full: a look at a ring that is empty may be a system call.
func TestBurstsPerPoll(t *testing.T) {
	for _, c := range []struct{ frames, calls, taken int }{
		{0, 1, 0}, {1, 1, 1}, {63, 1, 63}, {64, 2, 64}, {70, 2, 70}, {128, 2, 128}, {200, 2, 128},
	} {
		var port *asked
		l := newLab(t, 1, func(o *dataplane.Options) {
			port = &asked{Port: o.Workers[0].Ports[0]}
			o.Workers[0].Ports[0] = port
		})
		for range c.frames {
			if !l.ports[0][0].Inject(make([]byte, 60)) {
				t.Fatal("no room for a frame")
			}
		}
		if n := l.e.Step(0, 1); n != c.taken || port.calls != c.calls {
			t.Errorf("of %d frames a poll took %d by %d calls, want %d by %d", c.frames, n, port.calls, c.taken, c.calls)
		}
	}
}
