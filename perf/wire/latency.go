package wire

import (
	"context"
	"errors"
	"fmt"
	"time"

	"xlvs/perf"
)

var latency = perf.Scenario{
	Name: "latency", Root: true,
	Short: "one-way latency over veth at parts of the no-loss rate, beside a cable and kernel forwarding",
	Run:   runLatency,
	Plots: []perf.Plot{
		{Title: "One-way latency", Note: "From the time at which a frame was due to its arrival. A cable instead of the forwarder shows the lab's own part.",
			Metric: []string{"latency_p50", "latency_p99"}, X: "load_percent", Series: []string{"forwarder"}, LogY: true, XLabel: "part of the no-loss rate (%)"},
		{Title: "The slowest frame in a thousand", Metric: []string{"latency_p99.9"}, X: "load_percent", Series: []string{"forwarder"}, LogY: true,
			XLabel: "part of the no-loss rate (%)"},
	},
}

// parts of the no-loss rate that latency is measured at, in percent.
var parts = []int{10, 50, 80, 95}

// A waiter is a subject of the latency scenario.
type waiter struct {
	subject
	rate float64 // the highest without loss, in this round
	got  map[int]figures
}

func waiters() []*waiter {
	return []*waiter{
		{subject: subject{name: "director", make: newDirector, receive: busyPoll, flows: fewFlows}},
		{subject: subject{name: "reflector", make: newReflector, receive: busyPoll, flows: fewFlows}},
		{subject: subject{name: "ip_forward", make: newRouter, receive: thread, flows: fewFlows}},
		{subject: subject{name: "cable", make: func(polling) forwarder { return nil }, receive: sender, flows: fewFlows}},
	}
}

func runLatency(ctx context.Context, r *perf.Run) (err error) {
	c, restore, err := claimCores()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()
	var all []*waiter
	for _, w := range waiters() {
		if r.Wanted(w.params()) {
			w.got = map[int]figures{}
			all = append(all, w)
		}
	}
	rounds := min(r.Runs, howHard(r.Quick).rounds)
	for round := range rounds {
		reference := 0.0
		for i, w := range all {
			r.Progress(round*len(all)+i, rounds*len(all), w.name)
			if w.name == "cable" && reference > 0 {
				w.rate = reference // a cable has no rate of its own here: it carries what the director does
			}
			if err := w.measure(ctx, c, r.Quick); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
			if i == 0 {
				reference = w.rate
			}
		}
	}
	for _, w := range all {
		w.report(r)
	}
	return nil
}

// measure takes the latencies at all parts of the no-loss rate, which it searches for first unless it is given.
func (w *waiter) measure(ctx context.Context, c cores, quick bool) (err error) {
	length := 2 * time.Second
	if quick {
		length = 250 * time.Millisecond
	}
	b, err := newBench(ctx, c, w.make(polling{receive: w.receive}), load{flows: w.flows, size: minFrame})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if w.name != "cable" || w.rate == 0 {
		if w.rate, err = b.noLoss(ctx, howHard(quick)); err != nil {
			return err
		}
	}
	if w.rate == 0 {
		return nil // a forwarder that carries nothing reliably has no latency to speak of
	}
	for _, percent := range parts {
		o, err := b.stream(ctx, trial{rate: w.rate * float64(percent) / 100, length: length, watch: timeAll, strict: true})
		if err != nil {
			return err
		}
		if o.received == 0 {
			continue
		}
		f := w.got[percent]
		if f == nil {
			f = figures{}
			w.got[percent] = f
		}
		for _, q := range quantiles {
			f.add(q.name, float64(o.latency.ValueAtQuantile(q.percent))/1e3)
		}
		f.add("loss", o.lost())
		f.add("offered", o.offered())
	}
	return nil
}

var quantiles = []struct {
	name    string
	percent float64
}{{"latency_p50", 50}, {"latency_p99", 99}, {"latency_p99.9", 99.9}, {"latency_max", 100}}

func (w *waiter) report(r *perf.Run) {
	for _, percent := range parts {
		f := w.got[percent]
		if f == nil {
			continue
		}
		params := w.params()
		params["load_percent"] = percent
		for _, q := range quantiles {
			r.Record(params, q.name, "µs", f[q.name])
		}
		r.Record(params, "loss", "ratio", f["loss"])
		r.Record(params, "offered", "packets/s", f["offered"])
	}
}
