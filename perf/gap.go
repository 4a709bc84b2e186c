package perf

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"xlvs/dataplane"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

var gap = Scenario{
	Name:  "gap",
	Short: "pauses of a worker's poll loop, with 100k new flows/s and a table published every 100 ms",
	Run:   runGap,
	Plots: []Plot{
		{Title: "Pauses of the poll loop", Note: "From one look for packets to the next, by quantile. The bare loop reads a clock and does nothing else: what the machine itself takes.",
			Metric: []string{"gap_us"}, X: "quantile", Series: []string{"case"}, LogY: true},
		{Title: "Time in pauses of more than 200 µs", Note: "The share of packets, arriving at any moment, that would meet one.",
			Metric: []string{"stalled"}, X: "case"},
	},
}

const (
	gapRate     = 100_000                // new flows a second
	gapStalled  = 200 * time.Microsecond // pauses longer than this are counted as stalls
	gapFlows    = 1 << 20
	gapTotal    = 60 * time.Second       // for each case, all runs together
	gapQuick    = 400 * time.Millisecond // for each run
	gapPriority = 50
)

// gapCase is one way to run the worker.
type gapCase struct {
	name     string
	bare     bool
	gcOff    bool
	isolate  bool
	realtime int
}

// runGap measures the cases in rounds, each, unless quickly, for so long that all of a case's runs together take a minute.
func runGap(ctx context.Context, r *Run) error {
	cases := []gapCase{
		{name: "bare loop", bare: true},
		{name: "default"},
		{name: "no GC", gcOff: true},
		{name: "isolated", isolate: true},
	}
	if mayRealtime() {
		cases = append(cases, gapCase{name: "isolated, SCHED_FIFO", isolate: true, realtime: gapPriority})
	} else {
		r.Note("without CAP_SYS_NICE, which SCHED_FIFO takes, a real-time worker was not measured")
	}
	took := gapTotal / time.Duration(r.Runs)
	if r.Quick {
		took = gapQuick
	}
	var list []Case
	for _, c := range cases {
		list = append(list, Case{What: c.name, Params: map[string]any{"case": c.name, "new_flows_per_second": gapRate},
			Measure: func(ctx context.Context) ([]Figure, error) { return c.measure(ctx, took) }})
	}
	return r.Interleave(ctx, list)
}

// mayRealtime reports whether threads of this process may be SCHED_FIFO.
func mayRealtime() bool {
	may := false
	_ = onOwnThread(func() error {
		attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: gapPriority}
		if may = unix.SchedSetAttr(0, &attr, 0) == nil; may {
			return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr}, 0)
		}
		return nil
	})
	return may
}

// A metronome is a port that delivers new flows at a rate, and takes the time between its polls.
type metronome struct {
	*source
	start   time.Time
	last    time.Duration
	given   int
	hist    *hdrhistogram.Histogram
	stalled time.Duration // of gaps over gapStalled, all of them
}

func newMetronome(src *source) *metronome {
	// From a nanosecond to a minute, to three digits.
	return &metronome{source: src, hist: hdrhistogram.New(1, time.Minute.Nanoseconds(), 3)}
}

// tick takes the time since the last tick, and returns that since the first.
func (m *metronome) tick() time.Duration {
	if m.start.IsZero() {
		m.start = time.Now()
		return 0
	}
	now := time.Since(m.start)
	g := now - m.last
	m.last = now
	if m.hist.RecordValue(g.Nanoseconds()) != nil {
		panic(fmt.Sprintf("perf: a pause of %v is out of the histogram's range", g))
	}
	if g > gapStalled {
		m.stalled += g
	}
	return now
}

// Recv delivers what is due.
func (m *metronome) Recv(b []dataplane.Frame) int {
	due := int(m.tick()*gapRate/time.Second) - m.given
	if due <= 0 {
		return 0
	}
	m.budget = due
	n := m.source.Recv(b)
	m.given += n
	return n
}

func (c gapCase) measure(ctx context.Context, took time.Duration) ([]Figure, error) {
	src, err := newSource(false, gapFlows)
	if err != nil {
		return nil, err
	}
	src.template = tcpFrame(false, false, packet.FlagSYN, 64)
	m := newMetronome(src)
	cpus, err := dataplane.AllowedCPUs()
	if err != nil {
		return nil, err
	}
	cpu := cpus[len(cpus)-1]
	before, err := stolen(cpu)
	if err != nil {
		return nil, err
	}
	if c.gcOff {
		defer debug.SetGCPercent(debug.SetGCPercent(-1))
	}
	if c.bare {
		err = pinned(cpu, func() error { return m.bareLoop(ctx, took) })
	} else {
		err = c.runWorker(ctx, m, cpu, took)
	}
	if err != nil {
		return nil, err
	}
	after, err := stolen(cpu)
	return append(m.figures(), Figure{Metric: "stolen", Unit: "%", Value: 100 * (after - before).Seconds() / m.last.Seconds()}), err
}

// stolen is the time that the hypervisor has kept from a CPU, of proc_stat(5), in its unit of 10 ms.
func stolen(cpu int) (time.Duration, error) {
	const column, hertz = 8, 100
	f, err := fieldsOf("/proc/stat", fmt.Sprintf("cpu%d", cpu))
	if err != nil || len(f) <= column {
		return 0, errors.Join(err, errors.ErrUnsupported)
	}
	n, err := strconv.ParseInt(f[column], 10, 64)
	return time.Duration(n) * time.Second / hertz, err
}

func (m *metronome) bareLoop(ctx context.Context, took time.Duration) error {
	for m.tick() < took && ctx.Err() == nil {
	}
	return ctx.Err()
}

// runWorker runs a worker for a while as the director does, and publishes tables meanwhile.
func (c gapCase) runWorker(ctx context.Context, m *metronome, cpu int, took time.Duration) (err error) {
	e, err := dataplane.New(dataplane.Options{Flows: gapFlows, Seed: "perf", EventRing: 1, Isolate: c.isolate, Realtime: c.realtime,
		Workers: []dataplane.WorkerOptions{{CPU: cpu, Memory: m.mem, Ports: []dataplane.Port{m}}}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	s, err := balanced{mode: table.DR, services: 1, backends: rebuildBackends, slots: pipelineSlots}.snapshot()
	if err != nil {
		return err
	}
	e.Publish(s)
	if err := e.Start(); err != nil {
		return err
	}
	_, err = publishFor(ctx, e, took)
	e.Stop()
	if err != nil {
		return err
	}
	if got := e.Counters(); got.Forwarded[table.DR] != uint64(m.given) {
		return fmt.Errorf("%d of %d packets were forwarded", got.Forwarded[table.DR], m.given)
	}
	return nil
}

// gapQuantiles are those reported, by the name that they go by.
var gapQuantiles = []struct {
	name string
	q    float64
}{{"p50", 50}, {"p99", 99}, {"p99.9", 99.9}, {"p99.99", 99.99}, {"max", 100}}

func (m *metronome) figures() []Figure {
	var out []Figure
	for _, q := range gapQuantiles {
		out = append(out, Figure{Metric: "gap_us", Unit: "µs", Value: float64(m.hist.ValueAtQuantile(q.q)) / 1000,
			Params: map[string]any{"quantile": q.name}})
	}
	return append(out,
		Figure{Metric: "stalled", Unit: "%", Value: 100 * m.stalled.Seconds() / m.last.Seconds()},
		Figure{Metric: "polls_per_second", Unit: "1/s", Value: float64(m.hist.TotalCount()) / m.last.Seconds()})
}
