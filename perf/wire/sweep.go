package wire

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"xlvs/perf"
)

var sweep = perf.Scenario{
	Name: "polling", Root: true,
	Short: "what the defaults of busy polling are chosen by: batch, ring, deferral of interrupts, wake-ups",
	Run:   runPolling,
	Plots: []perf.Plot{
		{Title: "By deferral of interrupts", Note: "For so long after a poll, the softirq leaves the queue to the worker.", Metric: []string{"no_loss", "flooded"},
			Where: map[string]any{"budget": pollBudget, "ring": socketRing, "wake": "needed"}, X: "flush_us", Series: []string{"forwarder"}, LogX: true},
		{Title: "By batch", Note: "Half the frames that one system call takes in.", Metric: []string{"no_loss", "flooded"},
			Where: map[string]any{"flush_us": int(deferFlush.Microseconds()), "ring": socketRing, "wake": "needed"}, X: "budget", Series: []string{"forwarder"}, LogX: true},
		{Title: "By ring", Metric: []string{"no_loss", "flooded"},
			Where: map[string]any{"flush_us": int(deferFlush.Microseconds()), "budget": pollBudget, "wake": "needed"}, X: "ring", Series: []string{"forwarder"}, LogX: true},
		{Title: "By wake-up", Note: "When the kernel is told of frames to send: if its flag asks for it, or after every poll, of up to two bursts.", Metric: []string{"no_loss", "flooded"},
			Where: map[string]any{"flush_us": int(deferFlush.Microseconds()), "budget": pollBudget, "ring": socketRing, "forwarder": "reflector"}, X: "wake"},
	},
}

// A setting is a subject that polls in its own way.
type setting struct {
	subject
	polling polling
}

func (s *setting) params() map[string]any {
	wake := "needed"
	if s.polling.always {
		wake = "always"
	}
	p := s.subject.params()
	maps.Copy(p, map[string]any{"flush_us": int(s.polling.flush.Microseconds()), "budget": s.polling.budget, "ring": s.polling.ring, "wake": wake})
	return p
}

// settings vary one thing at a time around the default. Wake-ups are the reflector's: the director has no choice there.
func settings() (all []*setting) {
	add := func(name string, make func(polling) forwarder, rare bool, change func(p *polling)) {
		s := &setting{subject{name: name, make: make, receive: busyPoll, flows: fewFlows, size: smallest, rare: rare}, polling{receive: busyPoll}}
		s.polling.defaults()
		change(&s.polling)
		all = append(all, s)
	}
	add("director", newDirector, false, func(*polling) {})
	for _, flush := range []time.Duration{50 * time.Microsecond, 200 * time.Microsecond, time.Millisecond} {
		add("director", newDirector, flush == 200*time.Microsecond, func(p *polling) { p.flush = flush })
	}
	for _, budget := range []int{8, 16, 256} {
		add("director", newDirector, budget != 16, func(p *polling) { p.budget = budget })
	}
	for _, ring := range []int{256, 1024} {
		add("director", newDirector, ring > 256, func(p *polling) { p.ring = ring })
	}
	add("reflector", newReflector, false, func(*polling) {})
	add("reflector", newReflector, false, func(p *polling) { p.always = true })
	return all
}

func runPolling(ctx context.Context, r *perf.Run) error {
	all := slices.DeleteFunc(settings(), func(s *setting) bool { return !r.Wanted(s.params()) || s.skipped(r) })
	e := howHard(r)
	e.paced, e.strangers = nil, false
	if r.Quick {
		e.rounds = 1
	}
	var names []string
	for _, s := range all {
		names = append(names, fmt.Sprintf("%s, deferred %v, %d a batch, ring of %d", s.name, s.polling.flush, s.polling.budget, s.polling.ring))
	}
	got := make([]history, len(all))
	err := inTurns(ctx, r, names, e.rounds, func(c cores, round, i int) error {
		return all[i].measure(ctx, c, e, all[i].polling, got[i].round(round))
	})
	for i, s := range all {
		got[i].record(r, s.params(), metric{"no_loss", "packets/s"}, metric{"flooded", "packets/s"}, metric{"flooded_of_no_loss", "ratio"},
			metric{"flooded_per_cpu", "packets/s of CPU"})
	}
	return err
}
