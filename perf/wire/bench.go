package wire

import (
	"context"
	"errors"
	"fmt"
)

// A bench is one forwarder at work in its rig.
type bench struct {
	rig  *rig
	gen  *generator
	data *stamper
	stop func() error
	// clocks are those of all threads that work for the forwarder. Softirqs are in none of their own: on its core, they
	// are in that of the thread which they interrupt.
	clocks []cpuClock
}

// load is what a forwarder is measured with.
type load struct {
	flows int
	size  int  // bytes a frame, with the frame check sequence that a real wire would add
	loose bool // no SYN first: a forwarder that follows connections and sees but one direction of them
	back  bool // the forwarder sends frames back where they come from
}

// primeRate is how fast flows are opened: no faster than any forwarder takes them.
const primeRate = 200_000

// newBench builds a rig, starts a forwarder in it (nil: a cable) and opens all flows.
func newBench(ctx context.Context, c cores, f forwarder, l load) (b *bench, err error) {
	b = &bench{stop: func() error { return nil }}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	if b.rig, err = newRig(ctx, c, wayThrough(f, l)); err != nil {
		return b, err
	}
	station, size := b.rig.station, l.size-checkSequence
	src, err := station.host.MAC("eth0")
	if err != nil {
		return b, err
	}
	index, err := ifindex(station.host, "eth0")
	if err != nil {
		return b, err
	}
	if b.gen, err = newGenerator(index, b.rig.first, src, size); err != nil {
		return b, err
	}
	b.data = newStamper(b.rig.first, src, l.flows, size, flagACK)
	first := b.data
	if !l.loose {
		first = newStamper(b.rig.first, src, l.flows, size, flagSYN)
	}
	if f != nil {
		stop, err := f.start(b.rig)
		if err != nil {
			return b, err
		}
		b.stop = stop
		if err := b.findClocks(); err != nil {
			return b, err
		}
	}
	return b, b.open(ctx, first)
}

// checkSequence is the bytes of a frame that a wire would have and veth has not.
const checkSequence = 4

func wayThrough(f forwarder, l load) way {
	switch {
	case f == nil:
		return cable
	case l.back:
		return back
	}
	return through
}

func (b *bench) findClocks() error {
	own, err := pinned(b.rig.cores.forwarder)
	for _, tid := range own {
		b.clocks = append(b.clocks, clockOf(tid, true))
	}
	for _, pid := range b.rig.kernel {
		b.clocks = append(b.clocks, clockOf(pid, false))
	}
	return err
}

// open sends one frame of each flow, until nearly all arrive: a forwarder needs a moment to be ready.
func (b *bench) open(ctx context.Context, first *stamper) error {
	const tries = 5
	for try := range tries {
		o, err := b.stream(ctx, trial{rate: primeRate, frames: int(first.flows), stamp: first})
		if err != nil {
			return err
		}
		// The last try need not be perfect: what is lost by a forwarder that is no good is its result, not an error.
		if o.lost() == 0 || try == tries-1 && o.received > 0 {
			return nil
		}
	}
	return fmt.Errorf("of %d flows' first frames, none arrived", first.flows)
}

func (b *bench) stream(ctx context.Context, t trial) (outcome, error) {
	if t.stamp == nil {
		t.stamp = b.data
	}
	t.clocks = b.clocks
	return b.rig.station.stream(ctx, b.gen, t)
}

// Close ends the forwarder and takes the rig down.
func (b *bench) Close() error {
	err := b.stop()
	if b.gen != nil {
		err = errors.Join(err, b.gen.Close())
	}
	if b.rig != nil {
		err = errors.Join(err, b.rig.Close())
	}
	return err
}
