package wire

import (
	"context"
	"errors"
	"fmt"

	"xlvs/perf"
)

// turns has subjects measured one after the other, in so many rounds. One that fails is noted and left out from then on; the others
// go on. It returns an error if ctx ends, or if nothing is left to measure. The caller reports what there is either way.
func turns(ctx context.Context, r *perf.Run, subjects []string, rounds int, measure func(round, subject int) error) error {
	failed := make([]error, len(subjects))
	left := len(subjects)
	for round := range rounds {
		for i, name := range subjects {
			if failed[i] != nil {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			r.Progress(round*len(subjects)+i, rounds*len(subjects), name)
			err := measure(round, i)
			if err == nil {
				continue
			}
			if ctx.Err() != nil {
				return err
			}
			failed[i] = fmt.Errorf("%s: %w", name, err)
			left--
			if left == 0 {
				return errors.Join(failed...)
			}
			r.Note("%s failed in round %d of %d and is left out from there on: %v", name, round+1, rounds, err)
		}
	}
	return nil
}

// inTurns is turns on cores that are claimed as long as it lasts. Where there is nothing to measure, it claims none.
func inTurns(ctx context.Context, r *perf.Run, subjects []string, rounds int, measure func(c cores, round, subject int) error) (err error) {
	if len(subjects) == 0 {
		return nil
	}
	c, restore, err := claimCores()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()
	return turns(ctx, r, subjects, rounds, func(round, subject int) error { return measure(c, round, subject) })
}

// figures are what is measured of a subject in one round, by metric.
type figures map[string]float64

// A history is the figures of a subject by round. A round in which it was not measured is empty.
type history []figures

// round returns the figures of a round, to be filled.
func (h *history) round(n int) figures {
	for len(*h) <= n {
		*h = append(*h, figures{})
	}
	return (*h)[n]
}

// values returns a metric of all rounds that have it.
func (h history) values(metric string) (all []float64) {
	for _, f := range h {
		if v, ok := f[metric]; ok {
			all = append(all, v)
		}
	}
	return all
}

// against calls f with each metric of h and its value in the same round of other.
func (h history) against(other history, metric string, f func(own, others float64)) {
	for round, own := range h {
		if round >= len(other) {
			return
		}
		v, ok := own[metric]
		w, both := other[round][metric]
		if ok && both {
			f(v, w)
		}
	}
}

// ratios returns a metric as part of other's in each round. A round in which other's is zero has no ratio.
func (h history) ratios(other history, metric string) (all []float64) {
	h.against(other, metric, func(own, others float64) {
		if others > 0 {
			all = append(all, own/others)
		}
	})
	return all
}

// minus returns by how much a metric is more than other's in each round.
func (h history) minus(other history, metric string) (all []float64) {
	h.against(other, metric, func(own, others float64) { all = append(all, own-others) })
	return all
}

// A metric is a name and a unit under which values are reported.
type metric struct{ name, unit string }

// record emits metrics of a subject, in the order given.
func (h history) record(r *perf.Run, params map[string]any, metrics ...metric) {
	for _, m := range metrics {
		r.Record(params, m.name, m.unit, h.values(m.name))
	}
}
