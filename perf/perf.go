// Package perf is the performance lab: scenarios that measure the director, each beside what it is to be
// compared with, in one run, interleaved.
package perf

import "context"

// A Row is one measured figure with everything needed to read it.
type Row struct {
	Scenario string         // pipeline, maglev, wire, …
	Params   map[string]any // mode, family, case, flows, size …: flattened into the JSON object
	Metric   string         // ns_per_packet, packets_per_second, …
	Unit     string
	Median   float64
	Min, Max float64
	Runs     int       // how many runs the median is of
	Values   []float64 // of each run, in order
}

// A Scenario measures one thing.
type Scenario struct {
	Name  string
	Short string // one line for the list of scenarios
	Root  bool   // needs root: it makes network namespaces
	Run   func(ctx context.Context, r *Run) error
}

// A Run is what a scenario gets: its settings, and where results go.
type Run struct {
	Quick bool // fewer points and runs: minutes instead of an hour
	Runs  int  // repetitions of each figure; at least 5 unless Quick
	Emit  func(Row)
	// Progress says what is being measured now; done of total counts the figures.
	Progress func(done, total int, what string)
}
