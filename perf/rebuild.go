package perf

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"xlvs/dataplane"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// publishEvery is how often tables are published under load.
const publishEvery = 100 * time.Millisecond

// A witness is a source that remembers to which backend each flow went first, and counts frames that go elsewhere.
type witness struct {
	*source
	first       []uint16 // by flow: backend + 1; 0: not seen
	misdirected int
	given       int
}

// Recv hands out packets for as long as the worker runs.
func (w *witness) Recv(b []dataplane.Frame) int {
	w.budget = len(b)
	n := w.source.Recv(b)
	w.given += n
	return n
}

// Send reads the backend from the destination MAC, whose lower bytes are its number, and the flow from the client.
func (w *witness) Send(b []dataplane.Frame) int {
	for _, f := range b {
		p := w.mem.Bytes(f)
		host, port := binary.BigEndian.Uint32(p[26:])-clientNet, binary.BigEndian.Uint16(p[34:])-1024
		flow := host<<flowPortBits | uint32(port)
		be := binary.BigEndian.Uint16(p[4:]) + 1
		switch w.first[flow] {
		case be:
		case 0:
			w.first[flow] = be
		default:
			w.misdirected++
		}
	}
	return w.source.Send(b)
}

const (
	rebuildFlows    = 1 << 20
	rebuildBackends = 101
)

// runRebuild has a worker forward at full speed while tables are published in which the last backend comes and goes by
// its weight, as when it is drained. Flows open all the time, at first, under either table; each must stay where it went.
func runRebuild(ctx context.Context, r *Run) error {
	params := map[string]any{"case": "drain and return under load", "services": 1, "backends": rebuildBackends, "slots": pipelineSlots, "flows": rebuildFlows}
	took := 4 * time.Second
	if r.Quick {
		took = time.Second
	}
	return r.Interleave(ctx, []Case{{What: "new tables under load", Params: params,
		Measure: func(ctx context.Context) ([]Figure, error) { return measureRebuild(ctx, took) }}})
}

func measureRebuild(ctx context.Context, took time.Duration) (_ []Figure, err error) {
	src, err := newSource(false, rebuildFlows)
	if err != nil {
		return nil, err
	}
	src.random, src.template = true, tcpFrame(false, false, packet.FlagACK, 64)
	w := &witness{source: src, first: make([]uint16, rebuildFlows)}
	cpus, err := dataplane.AllowedCPUs()
	if err != nil {
		return nil, err
	}
	e, err := dataplane.New(dataplane.Options{Flows: 2 * rebuildFlows, Seed: "perf", EventRing: 1,
		Workers: []dataplane.WorkerOptions{{CPU: cpus[len(cpus)-1], Memory: src.mem, Ports: []dataplane.Port{w}}}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	s, err := drained(0)
	if err != nil {
		return nil, err
	}
	e.Publish(s)
	if err := e.Start(); err != nil {
		return nil, err
	}
	published, err := publishFor(ctx, e, took)
	e.Stop()
	if err != nil {
		return nil, err
	}
	c := e.Counters()
	return []Figure{
		{Metric: "lost", Unit: "packets", Value: float64(uint64(w.given) - src.sent)},
		{Metric: "misdirected", Unit: "packets", Value: float64(w.misdirected)},
		{Metric: "published", Unit: "tables", Value: float64(published)},
		{Metric: "packets", Unit: "packets", Value: float64(w.given)},
		{Metric: "flows_opened", Unit: "flows", Value: float64(c.FlowsNew)},
	}, nil
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
