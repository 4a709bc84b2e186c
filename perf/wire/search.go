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
	// clocks are those of all threads that work for the forwarder. Softirqs are in none of their own: on its core, they
	// are in that of the thread which they interrupt.
	clocks []cpuClock
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
		if err := b.findClocks(); err != nil {
			return b, err
		}
	}
	return b, b.open(ctx, first)
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

// Settings of the search for the no-loss rate. RFC 2544 asks for trials of 60 s and no loss at all. A machine that others share
// takes the CPU away for milliseconds many times a second, and a veth queue holds 256 frames, so that such trials would
// measure the others. Trials are short enough to fall between two such moments, and are made again before a rate counts as too high.
type effort struct {
	length     time.Duration // of a trial
	attempts   int           // at a rate
	samples    int           // trials that a figure at a given rate is the median of
	resolution float64       // of the rate
	rounds     int           // over all subjects, at most
	paced      []float64     // rates to measure at besides: those that peers were measured at
}

var (
	thorough = effort{length: 50 * time.Millisecond, attempts: 6, samples: 5, resolution: 0.03, rounds: 1000, paced: []float64{500e3, 700e3, 900e3}}
	hasty    = effort{length: 30 * time.Millisecond, attempts: 4, samples: 3, resolution: 0.06, rounds: 2}
)

// howHard returns what is right for a run.
func howHard(quick bool) effort {
	if quick {
		return hasty
	}
	return thorough
}

const (
	tolerated   = 0.001 // of the frames may be lost
	lowest      = 300_000
	growth      = 1.5
	inFull      = 0.95 // of a rate offered is enough
	outOfBreath = 0.6  // a generator below this part of its rate has reached its own end
)

// noLoss searches for the highest rate at which no more than the tolerated part is lost: up in steps until it fails, then
// by halving. It returns the rate that was really offered there.
func (b *bench) noLoss(ctx context.Context, e effort) (float64, error) {
	best, low, high := 0.0, 0.0, 0.0
	for rate := float64(lowest); high == 0 || high-low > e.resolution*high; {
		ok, offered, err := b.carries(ctx, e, rate)
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
func (b *bench) carries(ctx context.Context, e effort, rate float64) (ok bool, offered float64, err error) {
	for range e.attempts {
		o, err := b.stream(ctx, trial{rate: rate, length: e.length})
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

// A sample is the medians of several trials.
type sample struct {
	offered, forwarded float64 // frames a second
	perCPU             float64 // frames that were forwarded for a second of CPU time
}

func (b *bench) sample(ctx context.Context, e effort, rate float64) (s sample, err error) {
	var in, out, cpu []float64
	for range e.samples {
		o, err := b.stream(ctx, trial{rate: rate, length: e.length})
		if err != nil {
			return s, err
		}
		in, out = append(in, o.offered()), append(out, o.forwarded())
		if o.busy > 0 {
			cpu = append(cpu, o.forwarded()/o.busy)
		}
	}
	return sample{perf.Median(in), perf.Median(out), perf.Median(cpu)}, nil
}
