// Package perf is the performance lab: scenarios that measure the director, each beside what it is to be
// compared with, in one run, interleaved.
package perf

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// A Row is one measured figure with everything needed to read it.
type Row struct {
	Scenario string         `json:"scenario"` // pipeline, maglev, wire, …
	Params   map[string]any `json:"params"`   // mode, family, case, flows, size …: flattened by Flat
	Metric   string         `json:"metric"`   // ns_per_packet, packets_per_second, …
	Unit     string         `json:"unit"`
	Median   float64        `json:"median"`
	Min      float64        `json:"min"`
	Max      float64        `json:"max"`
	Runs     int            `json:"runs"`   // how many runs the median is of; 0: a quoted reference, not measured here
	Values   []float64      `json:"values"` // of each run, in order
}

// A Scenario measures one thing.
type Scenario struct {
	Name  string
	Short string // one line for the list of scenarios
	Root  bool   // needs root: it makes network namespaces
	Plots []Plot // how its rows are drawn
	Run   func(ctx context.Context, r *Run) error
}

// A Plot draws the rows of one scenario and metric: their medians, and the spread from Min to Max as bars.
type Plot struct {
	Title  string         `json:"title"`
	Note   string         `json:"note,omitempty"` // one sentence on how to read it
	Metric []string       `json:"metric"`         // more than one: the metric is part of the series' name
	Where  map[string]any `json:"where,omitempty"`
	X      string         `json:"x"`                // parameter along the horizontal axis; words give bars, numbers lines
	Series []string       `json:"series,omitempty"` // parameters whose values make a series each
	LogX   bool           `json:"log_x,omitempty"`
	LogY   bool           `json:"log_y,omitempty"`
	XLabel string         `json:"x_label,omitempty"` // default: X
}

// Shows reports whether a row of the plot's scenario belongs to it.
func (p *Plot) Shows(r *Row) bool {
	if !slices.Contains(p.Metric, r.Metric) || r.Params[p.X] == nil {
		return false
	}
	for k, v := range p.Where {
		if Text(r.Params[k]) != Text(v) {
			return false
		}
	}
	return true
}

// A Run is what a scenario gets: its settings, and where results go.
type Run struct {
	Quick bool // fewer points and runs: minutes instead of an hour
	Runs  int  // repetitions of each figure; at least 5 unless Quick
	// Only restricts the run to cases whose parameters have these values; a case without such a parameter is left out.
	Only map[string]string
	Emit func(Row)
	// Progress says what is being measured now; done of total counts the figures.
	Progress func(done, total int, what string)
	// Trial is how long the trial is that confirms a rate without loss; 0: what the scenario finds right.
	Trial time.Duration
	// Notes are what the result says before a scenario adds to it.
	Notes []string
	// Keep is given the result after each scenario, so that little is lost however the run ends. Nil: it is not kept.
	Keep func(*Result) error

	note  func(string)
	asked *asked
}

// Note says in the result what was left out, and why, or what else its reader must know.
func (r *Run) Note(format string, args ...any) {
	if r.note != nil {
		r.note(fmt.Sprintf(format, args...))
	}
}

// Defaults of Run.Runs.
const (
	DefaultRuns      = 7
	DefaultQuickRuns = 3
)

// Scenarios returns those that need neither root nor a network: they measure in memory.
func Scenarios() []Scenario {
	return []Scenario{pipeline, maglevTables, scale, convergence, gap}
}

// Names returns the scenarios' names.
func Names(all []Scenario) []string {
	var names []string
	for _, s := range all {
		names = append(names, s.Name)
	}
	return names
}

// Quote emits a figure that was not measured here: a paper's, or a reference's. It has 0 runs.
func (r *Run) Quote(params map[string]any, metric, unit string, value float64) {
	r.Emit(Row{Params: params, Metric: metric, Unit: unit, Median: value, Min: value, Max: value})
}

// Record emits the figures of several runs.
func (r *Run) Record(params map[string]any, metric, unit string, values []float64) {
	if len(values) == 0 {
		return
	}
	r.Emit(Row{Params: params, Metric: metric, Unit: unit, Median: Median(values), Min: slices.Min(values), Max: slices.Max(values),
		Runs: len(values), Values: values})
}

// Median of values, which it leaves in their order: the mean of the middle two where there is no middle one.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}
