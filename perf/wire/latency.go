package wire

import (
	"context"
	"errors"
	"slices"
	"time"

	"xlvs/perf"
)

var latency = perf.Scenario{
	Name: "latency", Root: true,
	Short: "one-way latency over veth at parts of the no-loss rate, what a forwarder adds to a cable's, beside kernel forwarding",
	Run:   runLatency,
	Plots: []perf.Plot{
		{Title: "One-way latency", Note: "From the time at which a frame was due to its arrival. A cable instead of the forwarder shows the lab's own part.",
			Metric: []string{"latency_p50", "latency_p99"}, X: "load_percent", Series: []string{"forwarder"}, LogY: true, XLabel: "part of the no-loss rate (%)"},
		{Title: "The slowest frame in a thousand", Metric: []string{"latency_p99.9"}, X: "load_percent", Series: []string{"forwarder"}, LogY: true,
			XLabel: "part of the no-loss rate (%)"},
		{Title: "Added latency", Note: "What is more than with a cable in the same round.",
			Metric: []string{"added_p50", "added_p99"}, X: "load_percent", Series: []string{"forwarder"}, XLabel: "part of the no-loss rate (%)"},
	},
}

// parts of the no-loss rate that latency is measured at, in percent.
var parts = []int{10, 50, 80, 95}

// A waiter is a subject of the latency scenario.
type waiter struct {
	subject
	rate float64 // the highest without loss, in this round
	got  map[int]*history
}

func waiters() []*waiter {
	var all []*waiter
	for _, s := range []subject{
		{name: "director", make: newDirector, receive: busyPoll},
		{name: "reflector", make: newReflector, receive: busyPoll},
		{name: "ip_forward", make: newRouter, receive: thread},
		{name: "cable", make: func(polling) forwarder { return nil }, receive: sender},
	} {
		s.flows, s.size = fewFlows, smallest
		w := &waiter{subject: s, got: map[int]*history{}}
		for _, percent := range parts {
			w.got[percent] = &history{}
		}
		all = append(all, w)
	}
	return all
}

func (w *waiter) isCable() bool { return w.name == "cable" }

func runLatency(ctx context.Context, r *perf.Run) error {
	all := waiters()
	wanted := map[string]bool{}
	for _, w := range all {
		if r.Wanted(w.params()) {
			wanted[w.name] = true
		}
	}
	// What is wanted of others is also what they add to a cable.
	all = slices.DeleteFunc(all, func(w *waiter) bool { return !wanted[w.name] && (!w.isCable() || len(wanted) == 0) })
	if len(all) == 0 {
		return nil
	}
	var names []string
	for _, w := range all {
		names = append(names, w.name)
	}
	rounds := howHard(r).rounds
	if r.Quick {
		rounds = 1
	}
	err := inTurns(ctx, r, names, rounds, func(c cores, round, i int) error {
		w := all[i]
		w.rate = 0
		if w.isCable() {
			w.rate = all[0].rate // it has no rate of its own here: it carries what the first of the others does
		}
		return w.measure(ctx, c, r, round)
	})
	for _, w := range all {
		if wanted[w.name] {
			w.report(r, all[len(all)-1])
		}
		for _, percent := range parts {
			if n := len(w.got[percent].values("behind")); n > 0 {
				r.Note("%s, %d %%: in %d of %d rounds the generator could not keep to its schedule; there are no latencies of those, which would be its own",
					w.name, percent, n, len(w.got[percent].values("offered")))
			}
		}
	}
	r.Note("the sink looks every %d µs: latencies are known to that; parameter lost is the part of the frames that have none because they never arrived", sinkFlush.Microseconds())
	return err
}

// measure takes the latencies at all parts of the no-loss rate, which it searches for first unless it is given.
func (w *waiter) measure(ctx context.Context, c cores, r *perf.Run, round int) (err error) {
	length := 2 * time.Second
	if r.Quick {
		length = 250 * time.Millisecond
	}
	b, err := newBench(ctx, c, w.make(polling{receive: w.receive}), w.load())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if w.rate == 0 {
		if w.rate, err = b.noLoss(ctx, howHard(r)); err != nil {
			return err
		}
	}
	if w.rate == 0 {
		return nil // a forwarder that carries nothing reliably has no latency to speak of
	}
	for _, percent := range parts {
		rate := w.rate * float64(percent) / 100
		o, err := b.stream(ctx, trial{rate: rate, length: length, watch: timeAll, strict: true})
		if err != nil {
			return err
		}
		if o.received == 0 {
			continue
		}
		f := w.got[percent].round(round)
		f["loss"], f["offered"] = o.lost(), o.offered()
		if o.elapsed.Seconds()-float64(o.sent)/rate > onSchedule.Seconds() {
			f["behind"] = 1
			continue
		}
		for _, q := range quantiles {
			f["latency_"+q.name] = float64(o.latency.ValueAtQuantile(q.percent)) / 1e3
		}
	}
	return nil
}

// onSchedule is how late a generator that can keep to its schedule may be at the end of a trial. What held it up before, it has made up
// for: that is in the latencies, as it is in the cable's.
const onSchedule = 2 * time.Millisecond

var quantiles = []struct {
	name    string
	percent float64
}{{"p50", 50}, {"p99", 99}, {"p99.9", 99.9}, {"max", 100}}

// report emits the latencies, and by how much they are more than the cable's.
func (w *waiter) report(r *perf.Run, reference *waiter) {
	for _, percent := range parts {
		h := *w.got[percent]
		params := w.params()
		params["load_percent"] = percent
		params["grain_us"] = int(sinkFlush.Microseconds())
		params["lost"] = lostText(h.values("loss"))
		for _, q := range quantiles {
			h.record(r, params, metric{"latency_" + q.name, "µs"})
		}
		for _, q := range quantiles {
			if reference.isCable() && !w.isCable() {
				r.Record(params, "added_"+q.name, "µs", h.minus(*reference.got[percent], "latency_"+q.name))
			}
		}
		h.record(r, params, metric{"loss", "ratio"}, metric{"offered", "packets/s"})
	}
}

// lostText says in one of a few words how many frames the latencies are not of.
func lostText(loss []float64) string {
	switch most := perf.Median(loss); {
	case most == 0:
		return "none"
	case most < 0.001:
		return "under 0.1 %"
	case most < 0.01:
		return "under 1 %"
	}
	return "1 % or more"
}
