package perf

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Execute runs scenarios one after the other. One that fails does not keep the next from running; one that ctx ends does.
// What was measured is in the result also when there is an error.
func Execute(ctx context.Context, scenarios []Scenario, r Run, version string) (*Result, error) {
	res := &Result{Version: ResultVersion, Machine: ThisMachine(), XLVS: version, Started: time.Now().UTC(), Quick: r.Quick,
		Runs: r.Runs, Plots: map[string][]Plot{}, Notes: slices.Clone(r.Notes)}
	r.asked = &asked{keys: map[string]bool{}}
	var failed []error
	for _, s := range scenarios {
		if ctx.Err() != nil {
			res.Interrupted = true
			break
		}
		err := res.run(ctx, s, r)
		res.Seconds = time.Since(res.Started).Seconds()
		res.Interrupted = res.Interrupted || err != nil
		if err != nil && ctx.Err() == nil {
			failed = append(failed, fmt.Errorf("scenario %s: %w", s.Name, err))
			res.Notes = append(res.Notes, fmt.Sprintf("%s: it failed: %v", s.Name, err))
		}
		if r.Keep != nil {
			failed = append(failed, r.Keep(res))
		}
	}
	if ctx.Err() != nil && res.Interrupted {
		failed = append(failed, ErrInterrupted)
	}
	if err := errors.Join(failed...); err != nil {
		return res, err
	}
	return res, r.asked.nothing(r.Only)
}

// run runs one scenario and takes what it measures into the result.
func (res *Result) run(ctx context.Context, s Scenario, r Run) error {
	res.Scenarios = append(res.Scenarios, s.Name)
	res.Plots[s.Name] = s.Plots
	emit, progress := r.Emit, r.Progress
	r.Emit = func(row Row) {
		row.Scenario = s.Name
		res.Rows = append(res.Rows, row)
		if emit != nil {
			emit(row)
		}
	}
	r.note = func(text string) { res.Notes = append(res.Notes, s.Name+": "+text) }
	r.Progress = func(done, total int, what string) {
		if progress != nil {
			progress(done, total, s.Name+": "+what)
		}
	}
	return s.Run(ctx, &r)
}

// Wanted reports whether Only admits a case: a scenario need not set up others.
func (r *Run) Wanted(params map[string]any) bool {
	wanted := true
	for k, v := range r.Only {
		wanted = wanted && Text(params[k]) == v
	}
	if r.asked != nil {
		for k := range params {
			r.asked.keys[k] = true
		}
		r.asked.admitted = r.asked.admitted || wanted
	}
	return wanted
}

// asked is what scenarios have asked Only about. Their parameters are declared nowhere else.
type asked struct {
	keys     map[string]bool
	admitted bool // at least one case
}

// An OnlyError says that Run.Only admits no case of any scenario that ran.
type OnlyError struct{ text string }

func (e *OnlyError) Error() string { return e.text }

func (a *asked) nothing(only map[string]string) error {
	if len(only) == 0 || a.admitted {
		return nil
	}
	for _, k := range slices.Sorted(maps.Keys(only)) {
		if !a.keys[k] {
			return &OnlyError{fmt.Sprintf("no case has a parameter %q; there are %s", k, strings.Join(sortParams(slices.Collect(maps.Keys(a.keys))), ", "))}
		}
	}
	return &OnlyError{"no case has all of these parameters"}
}

// ErrInterrupted is returned by Execute when its context ended: the result holds what was measured until then.
var ErrInterrupted = errors.New("interrupted; the results are those measured so far")
