package dataplane_test

import (
	"sync/atomic"
	"testing"
	"time"

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

// A driven port counts how often it is given back to its interrupts.
type driven struct {
	dataplane.Port
	yields atomic.Uint64
}

func (d *driven) Yield() { d.yields.Add(1) }

// A port that drives its device gives it back before each sleep, and only then.
func TestYieldsBeforeSleep(t *testing.T) {
	for _, sleep := range []bool{true, false} {
		var port *driven
		l := newLab(t, 1, func(o *dataplane.Options) {
			o.Idle = dataplane.IdlePolicy{Sleep: sleep, Spin: time.Microsecond}
			port = &driven{Port: o.Workers[0].Ports[0]}
			o.Workers[0].Ports[0] = port
		})
		if err := l.e.Start(); err != nil {
			t.Fatal(err)
		}
		if sleep {
			eventually(t, l.said("it yields"), func() bool { return port.yields.Load() > 2 })
		} else {
			eventually(t, l.said("it polls"), func() bool { return l.e.Worker(0).Idle > 1000 })
		}
		l.e.Stop()
		if slept := l.e.Worker(0).Sleeps; port.yields.Load() != slept {
			t.Errorf("sleeping %t: %d sleeps, and %d yields", sleep, slept, port.yields.Load())
		}
	}
}
