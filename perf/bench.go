package perf

import (
	"fmt"
	"runtime"
	"time"

	"xlvs/dataplane"
)

// A bench is an engine of one worker whose packets come from a source, driven by hand.
type bench struct {
	balanced
	engine    *dataplane.Engine
	src       *source
	flows     int
	now       uint32 // the engine's clock, milliseconds
	refreshed uint32 // when all established flows were last heard of
	frames    [dataplane.MaxBurst]dataplane.Frame
}

// packetsPerMillisecond is how fast the bench's clock runs: as if eight million packets came in a second. It decides how
// often the worker looks for expired flows.
const packetsPerMillisecond = 8192

// newBench makes a bench whose flow table has so many entries, and whose packet memory so many chunks.
func newBench(o balanced, flows, entries, chunks int) (*bench, error) {
	src, err := newSourceOf(o.v6, flows, chunks)
	if err != nil {
		return nil, err
	}
	src.services = uint64(o.services)
	s, err := o.snapshot()
	if err != nil {
		return nil, err
	}
	b := &bench{balanced: o, src: src, flows: flows, now: 1}
	b.engine, err = dataplane.New(dataplane.Options{
		Workers: []dataplane.WorkerOptions{{CPU: -1, Memory: src.mem, Ports: []dataplane.Port{src}}},
		Flows:   entries, Seed: "perf", EventRing: 1})
	if err != nil {
		return nil, err
	}
	b.engine.Publish(s)
	return b, nil
}

func (b *bench) close() error { return b.engine.Close() }

// drive sends n packets through the worker.
func (b *bench) drive(n int) {
	b.src.budget = n
	for b.src.budget > 0 {
		// As many packets as one millisecond of the clock holds.
		for until := max(b.src.budget-packetsPerMillisecond, 0); b.src.budget > until; {
			b.engine.Step(0, b.now)
		}
		b.now++
	}
}

// harness is all that drive costs besides the worker: packets are made and freed.
func (b *bench) harness(n int) {
	b.src.budget = n
	for b.src.budget > 0 {
		k := b.src.Recv(b.frames[:])
		b.src.Send(b.frames[:k])
	}
}

// parts is into how many parts a run is cut. Worker and harness take turns at them, so that they meet the same moments of
// the machine, and the part in the middle stands for the run: a hypervisor that takes the core away for a millisecond
// spoils a part and not a run.
const parts = 32

// timing measures n packets of what the source is set to, beside the harness alone, and holds the worker to
// having forwarded every one of them.
func (b *bench) timing(n int) ([]Figure, error) {
	var before, after runtime.MemStats
	var total, alone, net, ratio [parts]float64
	sent := b.engine.Counters()
	runtime.ReadMemStats(&before)
	for i := range parts {
		k := n*(i+1)/parts - n*i/parts
		next := b.src.next
		t0 := threadTime()
		b.drive(k)
		t1 := threadTime()
		b.src.next = next // the same packets again
		t2 := threadTime()
		b.harness(k)
		t3 := threadTime()
		total[i], alone[i] = each(t1-t0, k), each(t3-t2, k)
		net[i], ratio[i] = total[i]-alone[i], total[i]/alone[i]
	}
	runtime.ReadMemStats(&after)
	got := b.engine.Counters()
	if err := allForwarded(&sent, &got, n); err != nil {
		return nil, err
	}
	return []Figure{
		{Metric: "ns_per_packet", Unit: "ns", Value: Median(total[:])},
		{Metric: "harness_ns_per_packet", Unit: "ns", Value: Median(alone[:])},
		{Metric: "net_ns_per_packet", Unit: "ns", Value: Median(net[:])},
		{Metric: "ratio_to_harness", Unit: "×", Value: Median(ratio[:])},
		{Metric: allocations, Unit: "", Value: float64(after.Mallocs-before.Mallocs) / float64(n)},
	}, nil
}

// quietly repeats a run in which something was allocated. The runtime counts allocations of the whole process, other
// goroutines' too: what the worker allocates at packets or bursts comes again. (What it might do more rarely, the tests
// that allow none in millions of packets would see.)
func quietly(run func() ([]Figure, error)) (figures []Figure, err error) {
	const tries = 5
	for range tries {
		again, err := run()
		if err != nil {
			return nil, err
		}
		if figures == nil || allocated(again) < allocated(figures) {
			figures = again
		}
		if allocated(figures) == 0 {
			break
		}
	}
	return figures, nil
}

const allocations = "allocations_per_packet"

func allocated(figures []Figure) float64 {
	for _, f := range figures {
		if f.Metric == allocations {
			return f.Value
		}
	}
	return 0
}

func each(d time.Duration, n int) float64 { return float64(d.Nanoseconds()) / float64(n) }

func allForwarded(before, after *dataplane.Counters, n int) error {
	var forwarded uint64
	for i := range after.Forwarded {
		forwarded += after.Forwarded[i] - before.Forwarded[i]
	}
	forwarded += after.Replies - before.Replies
	if forwarded == uint64(n) {
		return nil
	}
	for r := range after.Drops {
		if d := after.Drops[r] - before.Drops[r]; d > 0 {
			return fmt.Errorf("%d of %d packets were forwarded; %d dropped as %s", forwarded, n, d, dataplane.Reason(r))
		}
	}
	return fmt.Errorf("%d of %d packets were forwarded", forwarded, n)
}

// closeAll closes benches and returns the first error of their closing if err is nil.
func closeAll(benches []*bench, err error) error {
	for _, b := range benches {
		if e := b.close(); err == nil {
			err = e
		}
	}
	return err
}
