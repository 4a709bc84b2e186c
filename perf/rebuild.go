package perf

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"xlvs/control"
	"xlvs/dataplane"
	"xlvs/dataplane/table"
)

// publishEvery is how often tables are published under load.
const publishEvery = 100 * time.Millisecond

const (
	rebuildFlows    = 1 << 18 // open all the time; the others of the table's 2^20 entries are new flows'
	rebuildBackends = 101
)

// runRebuild has a worker forward at full speed, packets of flows that are open and SYNs of new ones by turns, while one
// backend after the other dies and comes back, by the news that health checks would bring to the control loop.
func runRebuild(ctx context.Context, r *Run) error {
	params := map[string]any{"case": "deaths under load", "services": 1, "backends": pipelineBackends, "slots": pipelineSlots, "flows": rebuildFlows}
	took := 4 * time.Second
	if r.Quick {
		took = time.Second
	}
	return r.Interleave(ctx, []Case{{What: "deaths under load", Params: params,
		Measure: func(ctx context.Context) ([]Figure, error) { return measureRebuild(ctx, took) }}})
}

func measureRebuild(ctx context.Context, took time.Duration) (_ []Figure, err error) {
	w, err := newWitness()
	if err != nil {
		return nil, err
	}
	cpus, err := dataplane.AllowedCPUs()
	if err != nil {
		return nil, err
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(dataplane.Processors(1)))
	e, err := dataplane.New(dataplane.Options{Flows: 4 * rebuildFlows, Seed: "perf", EventRing: 1, Isolate: true,
		Workers: []dataplane.WorkerOptions{{CPU: cpus[len(cpus)-1], Memory: w.mem, Ports: []dataplane.Port{w}}}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	conf, err := manyServices(1, false)
	if err != nil {
		return nil, err
	}
	loop, err := control.NewRehearsal(conf, e)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, loop.Close()) }()
	if err := errors.Join(loop.Result("", true), second(loop.Reconcile())); err != nil {
		return nil, err
	}
	w.engine = e
	if err := w.open(); err != nil {
		return nil, err
	}
	if err := e.Start(); err != nil {
		return nil, err
	}
	died, err := w.kill(ctx, loop, took)
	e.Stop()
	if err != nil {
		return nil, err
	}
	c := e.Counters()
	return []Figure{
		{Metric: "lost", Unit: "packets", Value: float64(uint64(w.given) - w.sent)},
		{Metric: "misdirected", Unit: "packets", Value: float64(w.misdirected)},
		{Metric: "last_misdirected_ms", Unit: "ms", Value: float64(w.longest.Microseconds()) / 1000},
		{Metric: "misdirected_before_known", Unit: "packets", Value: float64(w.late)},
		{Metric: "deaths", Unit: "deaths", Value: float64(died)},
		{Metric: "packets", Unit: "packets", Value: float64(w.given)},
		{Metric: "flows_opened", Unit: "flows", Value: float64(c.FlowsNew)},
	}, nil
}

func second(_, _ time.Duration, err error) error { return err }

// kill has one backend after the other die and come back, a change every publishEvery, until the time is over. It returns
// how many died.
func (w *witness) kill(ctx context.Context, loop *control.Rehearsal, took time.Duration) (died int, err error) {
	run, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { loop.Run(run) })
	defer wg.Wait()
	defer cancel()
	tick := time.NewTicker(publishEvery)
	defer tick.Stop()
	for end := time.Now().Add(took); time.Now().Before(end); {
		k := 1 + died%(pipelineBackends-1) // by number, which is the last byte of its address
		for _, alive := range []bool{false, true} {
			w.news(int32(k), alive)
			if err := loop.Result(fmt.Sprintf("b%d", k), alive); err != nil {
				return died, err
			}
			for seen := false; !seen; {
				select {
				case <-ctx.Done():
					return died, ctx.Err()
				case <-tick.C:
				}
				seen = up(w.engine.Snapshot(), int32(k)) == alive
			}
		}
		died++
	}
	return died, nil
}

// publishFor publishes a freshly built snapshot every publishEvery, with the last backend in the table and out of it by turns.
func publishFor(ctx context.Context, e *dataplane.Engine, took time.Duration) (published int, err error) {
	tick := time.NewTicker(publishEvery)
	defer tick.Stop()
	end := time.After(took)
	for generation := 1; ; generation++ {
		select {
		case <-ctx.Done():
			return published, ctx.Err()
		case <-end:
			return published, nil
		case <-tick.C:
		}
		s, err := drained(generation)
		if err != nil {
			return published, fmt.Errorf("snapshot %d: %w", generation, err)
		}
		e.Publish(s)
		published++
	}
}

// drained is the snapshot of a generation: the last backend is in the Maglev table in every second one only. It stays live
// and up, so that its flows go on.
func drained(generation int) (*table.Snapshot, error) {
	o := balanced{mode: table.DR, services: 1, backends: rebuildBackends, slots: pipelineSlots, idle: generation % 2, sloppy: true,
		generation: uint64(generation + 1)}
	return o.snapshot()
}
