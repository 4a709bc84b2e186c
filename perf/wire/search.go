package wire

import (
	"context"
	"errors"
	"time"

	"xlvs/perf"
)

// effort is how thoroughly rates are measured. RFC 2544 asks for trials of 60 s at each rate. A machine that others share takes
// the CPU away for milliseconds many times a second, and a veth queue holds 256 frames, so that a search by such trials would
// measure the others. So the search is of short trials, made again before a rate counts as too high; it says where to begin.
// From there on down, the rate is the first that a longer trial confirms. A little loss is tolerated in both.
type effort struct {
	length     time.Duration // of a trial in the search, and of one at a given rate
	attempts   int           // at a rate
	samples    int           // trials that a figure at a given rate is the median of
	resolution float64       // of the rate
	confirm    time.Duration // length of the trial that confirms a rate
	confirms   int           // attempts at that
	rounds     int           // over all subjects, at most
	strangers  bool          // measure a flood of new flows too
	paced      []float64     // rates to measure at besides: those that peers were measured at
}

var (
	thorough = effort{length: 60 * time.Millisecond, attempts: 6, samples: 5, resolution: 0.03, confirm: time.Second, confirms: 3,
		rounds: 1000, strangers: true, paced: []float64{500e3, 700e3, 900e3}}
	hasty = effort{length: 30 * time.Millisecond, attempts: 2, samples: 3, resolution: 0.1, confirm: 100 * time.Millisecond, confirms: 2,
		rounds: 2, strangers: true}
)

// howHard returns what is right for a run.
func howHard(r *perf.Run) effort {
	e := thorough
	if r.Quick {
		e = hasty
	}
	if r.Trial > 0 {
		e.confirm = r.Trial
	}
	e.rounds = min(r.Runs, e.rounds)
	return e
}

const (
	// tolerated is the part of the frames that may be lost. In the trial that confirms, what the forwarder's queues take in
	// without its being carried is a few times as much at most; in a trial of the search, it is far more.
	tolerated   = 0.001
	lowest      = 300_000
	growth      = 1.5
	inFull      = 0.95 // of a rate offered is enough
	outOfBreath = 0.6  // a generator below this part of its rate has reached its own end
)

// params are what a rate without loss depends on besides the forwarder.
func (e *effort) params() map[string]any {
	return map[string]any{"trial_ms": e.confirm.Milliseconds(), "tolerated_loss": tolerated, "attempts": e.confirms}
}

// noLoss returns the highest rate that is found to be carried without loss, as it was really offered; 0: there is none. From
// the rate that the search found, it goes down in growing steps until one is confirmed, and halves what lies between. A generator
// that is near its end offers less than it is asked for: what counts in the search is what it was asked for.
func (b *bench) noLoss(ctx context.Context, e effort) (best float64, err error) {
	high, err := b.search(ctx, e)
	if err != nil {
		return 0, err
	}
	low, step := 0.0, e.resolution
	for rate := high; rate > lowest/32; {
		ok, offered, err := b.carries(ctx, trial{rate: rate, length: e.confirm}, e.confirms)
		if err != nil {
			return 0, err
		}
		if ok {
			low, best = rate, max(best, offered)
		} else {
			high = rate
		}
		switch {
		case low >= high*(1-e.resolution):
			return best, nil
		case low > 0:
			rate = (low + high) / 2
		default:
			rate = high * (1 - step)
			step = min(2*step, 0.5)
		}
	}
	return best, nil
}

// search goes up in steps until a rate is too high, then halves what lies between. It returns the highest that was not.
func (b *bench) search(ctx context.Context, e effort) (low float64, err error) {
	high := 0.0
	for rate := float64(lowest); high == 0 || high-low > e.resolution*high; {
		ok, offered, err := b.carries(ctx, trial{rate: rate, length: e.length}, e.attempts)
		if err != nil {
			return 0, err
		}
		switch {
		case ok && offered < outOfBreath*rate:
			return rate, nil
		case ok:
			low = rate
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
	return low, nil
}

// carries tries a rate up to attempts times: to see it carried with no more than the tolerated loss, and offered in full.
func (b *bench) carries(ctx context.Context, t trial, attempts int) (ok bool, offered float64, err error) {
	for range attempts {
		o, err := b.stream(ctx, t)
		if err != nil {
			return false, 0, err
		}
		if o.lost() > tolerated {
			continue
		}
		if ok, offered = true, max(offered, o.offered()); offered >= inFull*t.rate {
			break
		}
	}
	return ok, offered, nil
}

// A sample is the medians of several trials.
type sample struct {
	window
	perCPU float64 // frames that were forwarded for a second of CPU time; 0: not known
}

// sample measures at a rate, which may be a flood; 0: as many frames as the generator can make.
func (b *bench) sample(ctx context.Context, e effort, rate float64, m mix, flood bool) (s sample, err error) {
	var all []window
	for try := 0; len(all) < e.samples && try < 3*e.samples; try++ {
		o, err := b.stream(ctx, trial{rate: rate, length: e.length, mix: m, flood: flood})
		if err != nil {
			return s, err
		}
		if o.window.length > 0 {
			all = append(all, o.window)
		}
	}
	if len(all) == 0 {
		return s, errors.New("the machine is too busy: there was no time to look at a trial twice")
	}
	median := func(of func(window) float64) float64 {
		var values []float64
		for _, w := range all {
			values = append(values, of(w))
		}
		return perf.Median(values)
	}
	s.offered = median(func(w window) float64 { return w.offered })
	s.made = median(func(w window) float64 { return w.made })
	s.busy = median(func(w window) float64 { return w.busy })
	s.forwarded = median(func(w window) float64 { return w.forwarded })
	s.strangersOffered = median(func(w window) float64 { return w.strangersOffered })
	s.strangersTaken = median(func(w window) float64 { return w.strangersTaken })
	s.perCPU = median(func(w window) float64 {
		if w.busy == 0 {
			return 0
		}
		return w.forwarded / w.busy
	})
	return s, nil
}
