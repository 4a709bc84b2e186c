package perf

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// A Figure is what one run of a case measured.
type Figure struct {
	Metric, Unit string
	Value        float64
	Params       map[string]any // in addition to the case's
}

// A Case is one of several that are to be compared.
type Case struct {
	What    string // for the progress line
	Params  map[string]any
	Measure func(ctx context.Context) ([]Figure, error) // one run
}

// Interleave measures all cases once to warm up and then r.Runs times, in rounds: what drifts on the machine meanwhile
// (frequency, neighbours, temperature) is spread over all of them. It emits one row for each case and metric, also
// when ctx ends before the last round; then it returns ctx's error.
func (r *Run) Interleave(ctx context.Context, cases []Case) error {
	cases = slices.DeleteFunc(slices.Clone(cases), func(c Case) bool { return !r.Wanted(c.Params) })
	samples := make([]samples, len(cases))
	defer func() {
		for i := range cases {
			samples[i].record(r, cases[i].Params)
		}
	}()
	rounds := r.Runs + 1
	for round := range rounds {
		for i, c := range cases {
			if err := ctx.Err(); err != nil {
				return err
			}
			r.Progress(round*len(cases)+i, rounds*len(cases), c.What)
			figures, err := c.Measure(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", c.What, err)
			}
			if round > 0 {
				samples[i].add(figures)
			}
		}
	}
	r.Progress(rounds*len(cases), rounds*len(cases), "done")
	return nil
}

// samples are the values of one case, by figure in the order in which they came first.
type samples struct {
	order []Figure
	by    map[string][]float64
}

func (s *samples) add(figures []Figure) {
	if s.by == nil {
		s.by = map[string][]float64{}
	}
	for _, f := range figures {
		// fmt prints maps by sorted keys, so equal parameters make equal keys.
		k := fmt.Sprint(f.Metric, f.Params)
		if _, seen := s.by[k]; !seen {
			s.order = append(s.order, f)
		}
		s.by[k] = append(s.by[k], f.Value)
	}
}

func (s *samples) record(r *Run, params map[string]any) {
	for _, f := range s.order {
		p := maps.Clone(params)
		if p == nil {
			p = map[string]any{}
		}
		maps.Copy(p, f.Params)
		r.Record(p, f.Metric, f.Unit, s.by[fmt.Sprint(f.Metric, f.Params)])
	}
}
