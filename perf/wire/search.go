package wire

import (
	"context"
	"errors"
	"fmt"
	"time"

	"xlvs/perf"
)

// A bench is one forwarder at work in its rig.
type bench struct {
	rig  *rig
	gen  *generator
	data *stamper
	stop func() error
}

// load is what a forwarder is measured with.
type load struct {
	flows int
	size  int  // bytes a frame, without the frame check sequence
	loose bool // no SYN first: a forwarder that follows connections and sees but one direction of them
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
	if b.rig, err = newRig(ctx, c, f == nil); err != nil {
		return b, err
	}
	station := b.rig.station
	src, err := station.host.MAC("eth0")
	if err != nil {
		return b, err
	}
	index, err := ifindex(station.host, "eth0")
	if err != nil {
		return b, err
	}
	if b.gen, err = newGenerator(index, b.rig.first, src, l.size); err != nil {
		return b, err
	}
	b.data = newStamper(b.rig.first, src, l.flows, l.size, flagACK)
	first := b.data
	if !l.loose {
		first = newStamper(b.rig.first, src, l.flows, l.size, flagSYN)
	}
	if f != nil {
		stop, err := f.start(b.rig)
		if err != nil {
			return b, err
		}
		b.stop = stop
	}
	return b, b.open(ctx, first)
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

// Settings of the search for the no-loss rate. RFC 2544 asks for trials of 60 s and no loss at all. A machine that others share
// takes the CPU away for milliseconds many times a second, and a veth queue holds 256 frames, so that such trials would
// measure the others. Trials are short enough to fall between two such moments, and are made again before a rate counts as too high.
const (
	trialLength = 50 * time.Millisecond
	tolerated   = 0.001 // of the frames may be lost
	attempts    = 6     // at a rate
	samples     = 5     // trials that a figure at a given rate is the median of
	lowest      = 200_000
	growth      = 1.5
	resolution  = 0.03
	inFull      = 0.95 // of a rate offered is enough
	outOfBreath = 0.6  // a generator below this part of its rate has reached its own end
)

// noLoss searches for the highest rate at which no more than the tolerated part is lost: up in steps until it fails, then
// by halving. It returns the rate that was really offered there.
func (b *bench) noLoss(ctx context.Context) (float64, error) {
	best, low, high := 0.0, 0.0, 0.0
	for rate := float64(lowest); high == 0 || high-low > resolution*high; {
		ok, offered, err := b.carries(ctx, rate)
		if err != nil {
			return 0, err
		}
		switch {
		case ok && offered < outOfBreath*rate:
			return max(best, offered), nil
		case ok:
			low, best = rate, max(best, offered)
		default:
			high = rate
		}
		if rate = low * growth; high > 0 {
			rate = (low + high) / 2
		}
		if high > 0 && high < lowest/32 {
			return 0, nil
		}
	}
	return best, nil
}

// carries tries a rate up to attempts times: to see it carried, and offered in full.
func (b *bench) carries(ctx context.Context, rate float64) (ok bool, offered float64, err error) {
	for range attempts {
		o, err := b.stream(ctx, trial{rate: rate, length: trialLength})
		if err != nil {
			return false, 0, err
		}
		if o.lost() > tolerated {
			continue
		}
		if ok, offered = true, max(offered, o.offered()); offered >= inFull*rate {
			break
		}
	}
	return ok, offered, nil
}

// sample returns the medians of the rates offered and forwarded in several trials.
func (b *bench) sample(ctx context.Context, rate float64) (offered, forwarded float64, err error) {
	var in, out []float64
	for range samples {
		o, err := b.stream(ctx, trial{rate: rate, length: trialLength})
		if err != nil {
			return 0, 0, err
		}
		in, out = append(in, o.offered()), append(out, o.forwarded())
	}
	return perf.Median(in), perf.Median(out), nil
}
