package perf

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
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
		{Title: "Pauses that packets meet", Note: "The same pauses, each counted for the packets that arrive in it: by its length.",
			Metric: []string{"packet_gap_us"}, X: "quantile", Series: []string{"case"}, LogY: true},
		{Title: "Time in pauses of more than 200 µs", Note: "The share of packets, arriving at any moment, that would meet one.",
			Metric: []string{"stalled"}, X: "case"},
	},
}

const (
	gapRate     = 100_000                // new flows a second
	gapStalled  = 200 * time.Microsecond // pauses longer than this are counted as stalls
	gapPriority = 50

	// At this rate the flow table is full after 10 s of the minute, and from then on each new flow displaces another. Quick
	// runs fill a smaller one.
	gapTook, gapFlows           = time.Minute, 1 << 20
	gapTookQuick, gapFlowsQuick = 8 * time.Second, 1 << 18
)

// gapCase is one way to run the worker.
type gapCase struct {
	name     string
	bare     bool
	rare     bool // left out of quick runs
	gcOff    bool
	isolate  bool
	realtime int
}

// runGap measures each case once, in one piece: a minute, as long as what is rare and long takes to show.
func runGap(ctx context.Context, r *Run) error {
	cases := []gapCase{
		{name: "bare loop", bare: true},
		{name: "default", rare: true},
		{name: "no GC", rare: true, gcOff: true},
		{name: "isolated", isolate: true},
	}
	if mayRealtime() {
		cases = append(cases, gapCase{name: "isolated, SCHED_FIFO", rare: true, isolate: true, realtime: gapPriority})
	} else {
		r.Note("without CAP_SYS_NICE, which SCHED_FIFO takes, a real-time worker was not measured")
	}
	took, flows := gapTook, gapFlows
	if r.Quick {
		took, flows = gapTookQuick, gapFlowsQuick
		cases = slices.DeleteFunc(cases, func(c gapCase) bool { return c.rare })
		r.Note("quick: %v and a table of %d flows; workers that are not isolated, have no GC or are SCHED_FIFO were left out", took, flows)
	}
	for i, c := range cases {
		params := map[string]any{"case": c.name, "new_flows_per_second": gapRate}
		if !r.Wanted(params) {
			continue
		}
		r.Progress(i, len(cases), fmt.Sprintf("%s, %v", c.name, took))
		figures, err := c.measure(ctx, took, flows)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		var one samples
		one.add(figures)
		one.record(r, params)
	}
	r.Progress(len(cases), len(cases), "done")
	return nil
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
	met     *hdrhistogram.Histogram // each pause as often as it has nanoseconds
	stalled time.Duration           // of gaps over gapStalled, all of them

	polls      int
	began, cpu time.Duration // the thread's CPU time at the first poll; what it used up to the poll at time at
	at         time.Duration
}

func newMetronome(src *source) *metronome {
	// From a nanosecond to a minute, to three digits.
	h := func() *hdrhistogram.Histogram { return hdrhistogram.New(1, time.Minute.Nanoseconds(), 3) }
	return &metronome{source: src, hist: h(), met: h()}
}

// tick takes the time since the last tick, and returns that since the first.
func (m *metronome) tick() time.Duration {
	if m.start.IsZero() {
		m.start, m.began = time.Now(), threadTime()
		return 0
	}
	now := time.Since(m.start)
	g := now - m.last
	m.last = now
	ns := g.Nanoseconds()
	if errors.Join(m.hist.RecordValue(ns), m.met.RecordValues(ns, ns)) != nil {
		panic(fmt.Sprintf("perf: a pause of %v is out of the histogram's range", g))
	}
	if g > gapStalled {
		m.stalled += g
	}
	// Rarely, because this clock takes a system call.
	if m.polls++; m.polls&0xffff == 0 {
		m.cpu, m.at = threadTime()-m.began, now
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

func (c gapCase) measure(ctx context.Context, took time.Duration, flows int) ([]Figure, error) {
	src, err := newSource(false, flows)
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
	var counted []Figure
	if c.bare {
		err = pinned(cpu, func() error { return m.bareLoop(ctx, took) })
	} else {
		counted, err = c.runWorker(ctx, m, cpu, took, flows)
	}
	if err != nil {
		return nil, err
	}
	after, err := stolen(cpu)
	return append(append(m.figures(), counted...),
		Figure{Metric: "stolen", Unit: "%", Value: 100 * (after - before).Seconds() / m.last.Seconds()}), err
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
func (c gapCase) runWorker(ctx context.Context, m *metronome, cpu int, took time.Duration, flows int) (_ []Figure, err error) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(dataplane.Processors(1)))
	e, err := dataplane.New(dataplane.Options{Flows: flows, Seed: "perf", EventRing: 1, Isolate: c.isolate, Realtime: c.realtime,
		Workers: []dataplane.WorkerOptions{{CPU: cpu, Memory: m.mem, Ports: []dataplane.Port{m}}}})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, e.Close()) }()
	s, err := balanced{mode: table.DR, services: 1, backends: rebuildBackends, slots: pipelineSlots}.snapshot()
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
	got := e.Counters()
	if got.Forwarded[table.DR] != uint64(m.given) {
		return nil, fmt.Errorf("%d of %d packets were forwarded", got.Forwarded[table.DR], m.given)
	}
	return []Figure{
		{Metric: "flows_opened", Unit: "flows", Value: float64(got.FlowsNew)},
		{Metric: "flows_evicted", Unit: "flows", Value: float64(got.FlowsEvicted)},
		{Metric: "published", Unit: "tables", Value: float64(published)},
	}, nil
}

// gapQuantiles are those reported, by the name that they go by.
var gapQuantiles = []struct {
	name string
	q    float64
}{{"p50", 50}, {"p99", 99}, {"p99.9", 99.9}, {"p99.99", 99.99}, {"p99.999", 99.999}, {"max", 100}}

func (m *metronome) figures() []Figure {
	var out []Figure
	for _, q := range gapQuantiles {
		params := map[string]any{"quantile": q.name}
		out = append(out,
			Figure{Metric: "gap_us", Unit: "µs", Value: float64(m.hist.ValueAtQuantile(q.q)) / 1000, Params: params},
			Figure{Metric: "packet_gap_us", Unit: "µs", Value: float64(m.met.ValueAtQuantile(q.q)) / 1000, Params: params})
	}
	return append(out,
		// What other programs, and interrupts' threads, have had of the core meanwhile.
		Figure{Metric: "off_cpu", Unit: "%", Value: 100 * (1 - m.cpu.Seconds()/m.at.Seconds())},
		Figure{Metric: "stalled", Unit: "%", Value: 100 * m.stalled.Seconds() / m.last.Seconds()},
		Figure{Metric: "polls_per_second", Unit: "1/s", Value: float64(m.hist.TotalCount()) / m.last.Seconds()})
}
