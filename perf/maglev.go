package perf

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"xlvs/maglev"
)

var maglevTables = Scenario{
	Name:  "maglev",
	Short: "Maglev tables: build time, evenness, slots that change when backends fail, beside the paper's figures",
	Run:   runMaglev,
	Plots: []Plot{
		{Title: "Time to build a table", Note: "The paper's: NSDI 2016, section 5.3.", Metric: []string{"build_ms"}, X: "slots",
			Series: []string{"backends", "source"}, LogX: true, LogY: true},
		{Title: "Slots moved without need", Note: "One backend is removed; of the slots that it did not have, the share that moves all the same.",
			Metric: []string{"needless_moves"}, X: "slots", Series: []string{"backends"}, LogX: true},
		{Title: "Evenness", Note: "Slots of the backend that has most, over those of the one that has least. 1 is even.",
			Metric: []string{"most_to_least"}, X: "slots", Series: []string{"backends"}, LogX: true},
		{Title: "Capacity kept for unevenness", Note: "What the backend with most slots has above the mean. The paper's figures are those of other ways to hash: of Maglev it says almost none.",
			Metric: []string{"above_mean"}, X: "slots", Series: []string{"backends", "source"}, LogX: true},
		{Title: "Slots that change when backends fail at once", Note: "As figure 12 of the paper has it: all that change, those of the failed backends among them.",
			Metric: []string{"changed"}, X: "failed", Series: []string{"backends", "slots"}, XLabel: "backends failed, %"},
		{Title: "Those that change without need", Note: "Slots of backends that live.",
			Metric: []string{"changed_needlessly"}, X: "failed", Series: []string{"backends", "slots"}, XLabel: "backends failed, %"},
	},
}

// runMaglev builds tables of N backends and M slots; each run removes another backend.
func runMaglev(ctx context.Context, r *Run) error {
	slots := []uint64{4093, 65537, 655373}
	if r.Quick {
		slots = slots[:2]
	}
	var cases []Case
	for _, m := range slots {
		for _, n := range []int{10, 100, 1000} {
			if maglev.CheckSize(m, n) != nil {
				continue
			}
			runs := 0
			cases = append(cases, Case{What: fmt.Sprintf("%d backends, %d slots", n, m),
				Params: map[string]any{"backends": n, "slots": m, "source": "measured"},
				Measure: func(context.Context) ([]Figure, error) {
					runs++
					return measureMaglev(n, m, runs*n/(r.Runs+2))
				}})
		}
	}
	for _, m := range []uint64{65537, 655373} {
		for _, n := range []int{100, 1000} {
			if r.Quick && (m > 65537 || n < 1000) {
				continue
			}
			cases = append(cases, failures(n, m)...)
		}
	}
	if err := onCore(func() error { return r.Interleave(ctx, cases) }); err != nil {
		return err
	}
	quoteMaglev(r)
	return nil
}

// measureMaglev builds a table, and another without backend number gone.
func measureMaglev(n int, size uint64, gone int) ([]Figure, error) {
	names := members("", n)
	start := threadTime()
	t, err := maglev.New(names, size)
	took := threadTime() - start
	if err != nil {
		return nil, err
	}
	rest := slices.Delete(slices.Clone(names), gone, gone+1)
	after, err := maglev.New(rest, size)
	if err != nil {
		return nil, err
	}
	counts := t.Counts()
	// Names are sorted by New, and members makes them in that order.
	lost := counts[gone]
	moved := maglev.Moved(t, after)
	return []Figure{
		{Metric: "build_ms", Unit: "ms", Value: float64(took.Microseconds()) / 1000},
		{Metric: "most_to_least", Unit: "×", Value: float64(slices.Max(counts)) / float64(slices.Min(counts))},
		{Metric: "above_mean", Unit: "%", Value: 100 * (float64(slices.Max(counts))*float64(n)/float64(size) - 1)},
		{Metric: "moves", Unit: "%", Value: 100 * float64(moved) / float64(size)},
		{Metric: "needless_moves", Unit: "%", Value: 100 * float64(moved-lost) / float64(size)},
	}, nil
}

// failedPercents are how many of the backends fail at once.
var failedPercents = []int{1, 2, 5, 10, 20, 50}

// failures are the cases of one table and more and more backends, drawn at random, that fail at once (figure 12 of the paper).
func failures(n int, size uint64) []Case {
	var cases []Case
	names := members("", n)
	whole := sync.OnceValues(func() (*maglev.Table, error) { return maglev.New(names, size) })
	for _, percent := range failedPercents {
		rng := rand.New(rand.NewPCG(uint64(n), uint64(percent))) // the same draws in every measurement, others in every run
		cases = append(cases, Case{What: fmt.Sprintf("%d %% of %d backends fail, %d slots", percent, n, size),
			Params: map[string]any{"case": "failures", "backends": n, "slots": size, "failed": percent, "source": "measured"},
			Measure: func(context.Context) ([]Figure, error) {
				t, err := whole()
				if err != nil {
					return nil, err
				}
				return measureFailures(t, names, rng.Perm(n)[:max(n*percent/100, 1)])
			}})
	}
	return cases
}

// measureFailures compares a table with that of the backends which are left when those of the numbers in dead fail.
func measureFailures(t *maglev.Table, names []maglev.Backend, dead []int) ([]Figure, error) {
	var rest []maglev.Backend
	for i, b := range names {
		if !slices.Contains(dead, i) {
			rest = append(rest, b)
		}
	}
	after, err := maglev.New(rest, t.Size())
	if err != nil {
		return nil, err
	}
	lost, counts := 0, t.Counts()
	for _, i := range dead {
		lost += counts[i]
	}
	moved := maglev.Moved(t, after)
	share := func(slots int) float64 { return 100 * float64(slots) / float64(t.Size()) }
	return []Figure{
		{Metric: "changed", Unit: "%", Value: share(moved)},
		{Metric: "changed_needlessly", Unit: "%", Value: share(moved - lost)},
	}, nil
}

// quoteMaglev adds the figures of the paper's section 5.3, with 1000 backends: build times, on its machine; and by how much
// backends would have to be overprovisioned with the other ways to hash that it compares. Of figure 12 the text gives no numbers.
func quoteMaglev(r *Run) {
	for _, q := range []struct {
		slots              uint64
		ms                 float64
		karger, rendezvous float64
	}{{65537, 1.8, 29.7, 49.5}, {655373, 22.9, 10.3, 12.3}} {
		quote := func(source, metric, unit string, v float64) {
			params := map[string]any{"backends": 1000, "slots": q.slots, "source": source}
			if r.Wanted(params) {
				r.Quote(params, metric, unit, v)
			}
		}
		quote("paper", "build_ms", "ms", q.ms)
		quote("paper, Karger", "above_mean", "%", q.karger)
		quote("paper, Rendezvous", "above_mean", "%", q.rendezvous)
	}
}
