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

	note func(string)
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

// Execute runs scenarios one after the other. What was measured is in the result also when there is an error:
// a scenario that failed, or ctx, which ended early.
func Execute(ctx context.Context, scenarios []Scenario, r Run, version string) (*Result, error) {
	res := &Result{Version: ResultVersion, Machine: ThisMachine(), XLVS: version, Started: time.Now().UTC(), Quick: r.Quick,
		Runs: r.Runs, Plots: map[string][]Plot{}}
	defer func() { res.Seconds = time.Since(res.Started).Seconds() }()
	emit, progress := r.Emit, r.Progress
	for _, s := range scenarios {
		res.Scenarios = append(res.Scenarios, s.Name)
		res.Plots[s.Name] = s.Plots
		one := r
		one.Emit = func(row Row) {
			row.Scenario = s.Name
			res.Rows = append(res.Rows, row)
			if emit != nil {
				emit(row)
			}
		}
		one.note = func(text string) { res.Notes = append(res.Notes, s.Name+": "+text) }
		one.Progress = func(done, total int, what string) {
			if progress != nil {
				progress(done, total, s.Name+": "+what)
			}
		}
		if err := s.Run(ctx, &one); err != nil {
			res.Interrupted = true
			return res, scenarioError(ctx, s.Name, err)
		}
	}
	return res, nil
}

// Wanted reports whether Only admits a case: a scenario need not set up others.
func (r *Run) Wanted(params map[string]any) bool {
	for k, v := range r.Only {
		if Text(params[k]) != v {
			return false
		}
	}
	return true
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
