package perf

import (
	"context"
	"fmt"
	"slices"

	"xlvs/maglev"
)

var maglevTables = Scenario{
	Name:  "maglev",
	Short: "Maglev tables: build time, evenness, slots moved when a backend goes, beside the paper's figures",
	Run:   runMaglev,
	Plots: []Plot{
		{Title: "Time to build a table", Note: "The paper's: NSDI 2016, section 5.3.", Metric: []string{"build_ms"}, X: "slots",
			Series: []string{"backends", "source"}, LogX: true, LogY: true},
		{Title: "Slots moved without need", Note: "One backend is removed; of the slots that it did not have, the share that moves all the same.",
			Metric: []string{"needless_moves"}, X: "slots", Series: []string{"backends"}, LogX: true},
		{Title: "Evenness", Note: "Slots of the backend that has most, over those of the one that has least. 1 is even.",
			Metric: []string{"most_to_least"}, X: "slots", Series: []string{"backends"}, LogX: true},
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
		{Metric: "moves", Unit: "%", Value: 100 * float64(moved) / float64(size)},
		{Metric: "needless_moves", Unit: "%", Value: 100 * float64(moved-lost) / float64(size)},
	}, nil
}

// quoteMaglev adds the figures of the paper, section 5.3: build times with 1000 backends, on its machine.
func quoteMaglev(r *Run) {
	for _, q := range []struct {
		slots uint64
		ms    float64
	}{{65537, 1.8}, {655373, 22.9}} {
		params := map[string]any{"backends": 1000, "slots": q.slots, "source": "paper"}
		if r.Wanted(params) {
			r.Quote(params, "build_ms", "ms", q.ms)
		}
	}
}
