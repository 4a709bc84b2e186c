package perf

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"xlvs/dataplane"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

var scale = Scenario{
	Name:  "scale",
	Short: "how ns a packet grow with services, backends, flows and workers",
	Run:   runScale,
	Plots: []Plot{
		{Title: "Services", Note: "DR, IPv4, 10 backends each; packets go to services at random.", Metric: []string{"ns_per_packet"},
			Where: map[string]any{"axis": "services"}, X: "services", Series: []string{"case"}, LogX: true},
		{Title: "Backends", Note: "DR, IPv4, one service.", Metric: []string{"ns_per_packet"},
			Where: map[string]any{"axis": "backends"}, X: "backends", Series: []string{"case"}, LogX: true},
		{Title: "Flows", Note: "DR, IPv4, one service; the flow table is half full at each.", Metric: []string{"ns_per_packet"},
			Where: map[string]any{"axis": "flows"}, X: "flows", Series: []string{"case"}, LogX: true},
		{Title: "Workers", Note: "All on cores of their own, at the same time.", Metric: []string{"packets_per_second"},
			Where: map[string]any{"axis": "workers"}, X: "workers", Series: []string{"case"}},
	},
}

// scaleFlows are open in every case: enough that entries do not all lie in the second-level cache.
const scaleFlows = 1 << 18

// manyBackendSlots are enough for ten thousand backends.
const manyBackendSlots = 655373

func runScale(ctx context.Context, r *Run) error {
	services, backends := []int{1, 10, 100, 1000, 10000}, []int{10, 100, 1000, 10000}
	flows := []int{1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22}
	if r.Quick {
		services, backends, flows = []int{1, 100, 1000}, []int{10, 1000}, []int{1 << 12, 1 << 16, 1 << 20}
	}
	var byServices, byBackends, byFlows []scalePoint
	for _, n := range services {
		byServices = append(byServices, scalePoint{"services", scaleFlows, balanced{services: n, backends: fewBackends, slots: scaleSlots}})
	}
	for _, n := range backends {
		byBackends = append(byBackends, scalePoint{"backends", scaleFlows, balanced{services: 1, backends: n, slots: manyBackendSlots}})
	}
	for _, n := range flows {
		byFlows = append(byFlows, scalePoint{"flows", n, balanced{services: 1, backends: pipelineBackends, slots: pipelineSlots}})
	}
	err := onCore(func() error {
		for _, axis := range [][]scalePoint{byServices, byBackends, byFlows} {
			if err := runAxis(ctx, r, axis); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	return runWorkers(ctx, r)
}

type scalePoint struct {
	axis  string
	flows int
	balanced
}

func (p scalePoint) params(name string) map[string]any {
	return map[string]any{"axis": p.axis, "services": p.services, "backends": p.backends, "case": name, "flows": p.flows,
		"mode": p.mode.String(), "family": family(p.v6)}
}

// runAxis measures known and new flows at each point of an axis.
func runAxis(ctx context.Context, r *Run, axis []scalePoint) (err error) {
	var benches []*bench
	defer func() { err = closeAll(benches, err) }()
	var cases []Case
	for _, p := range axis {
		var b *bench
		for _, name := range []string{caseHit, caseNew} {
			if err := ctx.Err(); err != nil {
				return err
			}
			if !r.Wanted(p.params(name)) || name == caseNew && p.flows < fewestNew {
				continue
			}
			what := fmt.Sprintf("%d services, %d backends each, %d flows, %s", p.services, p.backends, p.flows, name)
			if b == nil {
				r.Progress(0, 1, "setting up "+what)
				if b, err = newBench(p.balanced, p.flows, 2*p.flows, hotChunks); err != nil {
					return err
				}
				benches = append(benches, b)
				if err := b.establish(); err != nil {
					return err
				}
			}
			k := caseKind{name: name, mode: p.mode, v6: p.v6, flows: p.flows, size: 64}
			cases = append(cases, Case{What: what, Params: p.params(name), Measure: k.measure(b, r.Quick)})
		}
	}
	return r.Interleave(ctx, cases)
}

// runWorkers measures one worker, and 2, 4 … at once on different cores, as many as there are, each with flows of its own.
func runWorkers(ctx context.Context, r *Run) error {
	cpus, err := dataplane.AllowedCPUs()
	if err != nil {
		return err
	}
	var cases []Case
	var teams []*team
	for _, n := range teamSizes(len(cpus)) {
		params := map[string]any{"axis": "workers", "workers": n, "case": caseHit, "flows": scaleFlows, "mode": table.DR.String(), "family": family(false)}
		if !r.Wanted(params) {
			continue
		}
		t, err := newTeam(cpus[len(cpus)-n:])
		if err != nil {
			return errors.Join(err, closeTeams(teams))
		}
		teams = append(teams, t)
		cases = append(cases, Case{What: fmt.Sprintf("%d workers", n), Params: params,
			Measure: func(context.Context) ([]Figure, error) { return t.measure(r.Quick) }})
	}
	return errors.Join(r.Interleave(ctx, cases), closeTeams(teams))
}

// teamSizes are the powers of two up to the number of CPUs, and that number.
func teamSizes(cpus int) (sizes []int) {
	for n := 1; n < cpus; n *= 2 {
		sizes = append(sizes, n)
	}
	return append(sizes, cpus)
}

// A team is one engine with a worker on each of several cores, driven by hand.
type team struct {
	engine  *dataplane.Engine
	sources []*source
	cpus    []int
}

func newTeam(cpus []int) (*team, error) {
	t := &team{cpus: cpus}
	o := dataplane.Options{Flows: 2 * scaleFlows, Seed: "perf", EventRing: 1}
	for range cpus {
		src, err := newSource(false, scaleFlows)
		if err != nil {
			return nil, err
		}
		t.sources = append(t.sources, src)
		o.Workers = append(o.Workers, dataplane.WorkerOptions{CPU: -1, Memory: src.mem, Ports: []dataplane.Port{src}})
	}
	s, err := balanced{mode: table.DR, services: 1, backends: pipelineBackends, slots: pipelineSlots}.snapshot()
	if err != nil {
		return nil, err
	}
	if t.engine, err = dataplane.New(o); err != nil {
		return nil, err
	}
	t.engine.Publish(s)
	for i, src := range t.sources {
		for _, flags := range []byte{packet.FlagSYN, packet.FlagACK} {
			src.next, src.template, src.budget = 0, tcpFrame(false, false, flags, 64), scaleFlows
			t.step(i)
		}
		src.random = true
	}
	return t, nil
}

func closeTeams(teams []*team) (err error) {
	for _, t := range teams {
		err = errors.Join(err, t.engine.Close())
	}
	return err
}

func (t *team) step(i int) {
	for t.sources[i].budget > 0 {
		t.engine.Step(i, 1)
	}
}

// measure has all workers forward at once.
func (t *team) measure(quick bool) ([]Figure, error) {
	n := 1 << 21
	if quick {
		n = 1 << 19
	}
	before := t.engine.Counters()
	var wg sync.WaitGroup
	busy, errs := make([]time.Duration, len(t.cpus)), make([]error, len(t.cpus))
	start := time.Now()
	for i, cpu := range t.cpus {
		t.sources[i].budget = n
		wg.Go(func() {
			errs[i] = pinned(cpu, func() error {
				began := threadTime()
				t.step(i)
				busy[i] = threadTime() - began
				return nil
			})
		})
	}
	wg.Wait()
	wall := time.Since(start)
	after := t.engine.Counters()
	if err := errors.Join(append(errs, allForwarded(&before, &after, n*len(t.cpus)))...); err != nil {
		return nil, err
	}
	var sum time.Duration
	for _, d := range busy {
		sum += d
	}
	return []Figure{
		{Metric: "ns_per_packet", Unit: "ns", Value: each(sum, n*len(t.cpus))},
		{Metric: "packets_per_second", Unit: "1/s", Value: float64(n*len(t.cpus)) / wall.Seconds()},
	}, nil
}
