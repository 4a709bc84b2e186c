// Package wire is the part of the performance lab that needs a wire: veth pairs between network namespaces.
//
// On a machine of two cores, one is the forwarder's and the other is everything else's, so that a figure is what
// one core can do. Other forwarders run in the director's place, one after the other, in the same run:
//
//	core 1                                           core 0
//	generator: an XDP program that makes frames ==== eth0  forwarder
//	sink: an XDP program that counts them       ==== eth1
//
// Linux 6.14 or later, for how its sockets busy-poll; root.
package wire

import (
	"context"
	"errors"
	"fmt"

	"xlvs/perf"
)

// Scenarios returns those that need a wire. All need root.
func Scenarios() []perf.Scenario {
	return []perf.Scenario{wire, latency, modes, failover}
}

var wire = perf.Scenario{
	Name: "wire", Root: true,
	Short: "packets per second over veth, paced and flooded, beside kernel forwarding, nftables and XDP",
	Run:   runWire,
	Plots: []perf.Plot{
		{Title: "Highest rate without loss, and forwarded when flooded", Note: "One core does all of the forwarder's work.",
			Metric: []string{"no_loss", "flooded"}, Where: map[string]any{"receive_core": "same", "flows": 1000},
			X: "forwarder", Series: []string{"receive"}, XLabel: "forwarder"},
		{Title: "The same with the receive side on the sender's core", Metric: []string{"no_loss", "flooded"},
			Where: map[string]any{"receive_core": "elsewhere", "flows": 1000}, X: "forwarder", XLabel: "forwarder"},
		{Title: "Forwarded when flooded, by flows", Metric: []string{"flooded"}, Where: map[string]any{"receive_core": "same"},
			X: "flows", Series: []string{"forwarder", "receive"}, LogX: true},
		{Title: "Forwarded for a second of CPU, flooded", Note: "What other programs take of the core meanwhile does not count.",
			Metric: []string{"flooded_per_cpu"}, Where: map[string]any{"flows": fewFlows}, X: "forwarder", Series: []string{"receive"}},
	},
}

// A subject is a forwarder in one setting.
type subject struct {
	name    string
	make    func(p polling) forwarder
	receive receive
	flows   int
	loose   bool
	rare    bool // left out of quick runs
}

func (s *subject) params() map[string]any {
	return map[string]any{"forwarder": s.name, "receive": string(s.receive), "receive_core": s.receive.core(), "flows": s.flows, "frame_bytes": frameBytes}
}

// frameBytes is the size of the frames, with the frame check sequence that a real wire would add.
const frameBytes = 64

const (
	fewFlows  = 1000
	manyFlows = 100_000
)

func newDirector(p polling) forwarder  { return &director{polling: p, backends: 8} }
func newReflector(p polling) forwarder { return &reflector{p} }
func newRouter(p polling) forwarder    { return &router{polling: p} }
func newNFT(p polling) forwarder       { return &router{polling: p, dnat: true} }
func newXDP(p polling) forwarder       { return &xdpForwarder{p} }

// subjects are all that the scenario compares.
func subjects() []subject {
	return []subject{
		{name: "director", make: newDirector, receive: busyPoll, flows: fewFlows},
		{name: "reflector", make: newReflector, receive: busyPoll, flows: fewFlows},
		{name: "director", make: newDirector, receive: busyPoll, flows: manyFlows},
		{name: "reflector", make: newReflector, receive: busyPoll, flows: manyFlows},
		{name: "ip_forward", make: newRouter, receive: thread, flows: fewFlows},
		{name: "nft_dnat", make: newNFT, receive: thread, flows: fewFlows, loose: true},
		{name: "xdp_redirect", make: newXDP, receive: thread, flows: fewFlows},
		{name: "director", make: newDirector, receive: thread, flows: fewFlows, rare: true},
		{name: "reflector", make: newReflector, receive: thread, flows: fewFlows, rare: true},
		{name: "ip_forward", make: newRouter, receive: thread, flows: manyFlows, rare: true},
		{name: "nft_dnat", make: newNFT, receive: thread, flows: manyFlows, loose: true, rare: true},
		{name: "director", make: newDirector, receive: sender, flows: fewFlows},
		{name: "reflector", make: newReflector, receive: sender, flows: fewFlows, rare: true},
		{name: "director", make: newDirector, receive: sender, flows: manyFlows, rare: true},
		{name: "ip_forward", make: newRouter, receive: sender, flows: fewFlows, rare: true},
		{name: "nft_dnat", make: newNFT, receive: sender, flows: fewFlows, loose: true, rare: true},
		{name: "xdp_redirect", make: newXDP, receive: sender, flows: fewFlows, rare: true},
	}
}

// figures are what is measured of a subject, by metric.
type figures map[string][]float64

func (f figures) add(metric string, v float64) { f[metric] = append(f[metric], v) }

func runWire(ctx context.Context, r *perf.Run) (err error) {
	c, restore, err := claimCores()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()
	var all []subject
	for _, s := range subjects() {
		if r.Wanted(s.params()) && !(r.Quick && s.rare) {
			all = append(all, s)
		}
	}
	e := howHard(r.Quick)
	rounds := min(r.Runs, e.rounds)
	got := make([]figures, len(all))
	for round := range rounds {
		for i := range all {
			s := &all[i]
			if got[i] == nil {
				got[i] = figures{}
			}
			r.Progress(round*len(all)+i, rounds*len(all), fmt.Sprintf("%s, %s, %d flows", s.name, s.receive, s.flows))
			if err := s.measure(ctx, c, e, got[i]); err != nil {
				return fmt.Errorf("%s (%s): %w", s.name, s.receive, err)
			}
		}
	}
	for i := range all {
		report(r, all[i].params(), got[i])
	}
	compare(r, all, got)
	quote(r)
	return nil
}

// measure takes all figures of a subject once.
func (s *subject) measure(ctx context.Context, c cores, e effort, f figures) (err error) {
	b, err := newBench(ctx, c, s.make(polling{receive: s.receive}), load{flows: s.flows, size: minFrame, loose: s.loose})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	best, err := b.noLoss(ctx, e)
	if err != nil {
		return err
	}
	f.add("no_loss", best)
	for _, rate := range e.paced {
		at, err := b.sample(ctx, e, rate)
		if err != nil {
			return err
		}
		f.add(fmt.Sprintf("paced_%.0fk", rate/1e3), at.forwarded)
	}
	flood, err := b.sample(ctx, e, 0)
	if err != nil {
		return err
	}
	f.add("flooded", flood.forwarded)
	f.add("flood_offered", flood.offered)
	if s.receive != sender { // whose core does a part of the work then, which no clock tells from its own
		f.add("flooded_per_cpu", flood.perCPU)
	}
	if best > 0 {
		f.add("flooded_of_no_loss", flood.forwarded/best)
		f.add("offered_of_no_loss", flood.offered/best)
	}
	return nil
}

// report emits the figures of one subject in a fixed order.
func report(r *perf.Run, params map[string]any, f figures) {
	for _, m := range []struct{ name, unit string }{
		{"no_loss", "packets/s"}, {"flooded", "packets/s"}, {"flood_offered", "packets/s"},
		{"flooded_per_cpu", "packets/s of CPU"},
		{"paced_500k", "packets/s"}, {"paced_700k", "packets/s"}, {"paced_900k", "packets/s"},
		{"flooded_of_no_loss", "ratio"}, {"offered_of_no_loss", "ratio"},
	} {
		r.Record(params, m.name, m.unit, f[m.name])
	}
}

// compare emits the director's figures as parts of the reflector's of the same round.
func compare(r *perf.Run, all []subject, got []figures) {
	for i := range all {
		for j := range all {
			d, m := &all[i], &all[j]
			if d.name != "director" || m.name != "reflector" || d.receive != m.receive || d.flows != m.flows {
				continue
			}
			for _, metric := range []string{"no_loss", "flooded", "flooded_per_cpu"} {
				var ratios []float64
				for k, v := range got[i][metric] {
					if k < len(got[j][metric]) && got[j][metric][k] > 0 {
						ratios = append(ratios, v/got[j][metric][k])
					}
				}
				r.Record(d.params(), metric+"_of_reflector", "ratio", ratios)
			}
		}
	}
}

// quote repeats what the C programs reached on a machine like this one, in docs/performance.md.
func quote(r *perf.Run) {
	for _, q := range []struct {
		name    string
		flooded float64
	}{{"testpmd (quoted)", 385e3}, {"xdpsock (quoted)", 101e3}} {
		params := map[string]any{"forwarder": q.name, "receive": "softirq", "receive_core": "same", "flows": fewFlows, "frame_bytes": frameBytes}
		if r.Wanted(params) {
			r.Quote(params, "flooded", "packets/s", q.flooded)
		}
	}
}
