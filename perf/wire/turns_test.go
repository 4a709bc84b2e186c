package wire

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"xlvs/perf"
)

// TestTurns: who fails is left out, the others go on, and the end of ctx ends it.
func TestTurns(t *testing.T) {
	broken := errors.New("no such file")
	for _, c := range []struct {
		name  string
		fails []string // of these turns, written as subject and round
		stop  string   // the turn that ctx ends in
		turns string
		err   bool
		notes int
	}{
		{name: "all well", turns: "a0 b0 a1 b1"},
		{name: "one fails", fails: []string{"a0"}, turns: "a0 b0 b1", notes: 1},
		{name: "one fails later", fails: []string{"b1"}, turns: "a0 b0 a1 b1", notes: 1},
		{name: "all fail", fails: []string{"a0", "b1"}, turns: "a0 b0 b1", notes: 1, err: true},
		{name: "interrupted", stop: "b0", turns: "a0 b0", err: true},
		{name: "interrupted within", fails: []string{"b0"}, stop: "b0", turns: "a0 b0", err: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var order []string
			var err error
			s := perf.Scenario{Run: func(ctx context.Context, r *perf.Run) error {
				err = turns(ctx, r, []string{"a", "b"}, 2, func(round, i int) error {
					turn := string("ab"[i]) + string("01"[round])
					order = append(order, turn)
					if turn == c.stop {
						cancel()
					}
					if slices.Contains(c.fails, turn) {
						return broken
					}
					return nil
				})
				return nil
			}}
			res, _ := perf.Execute(ctx, []perf.Scenario{s}, perf.Run{}, "test")
			if got := strings.Join(order, " "); got != c.turns || (err != nil) != c.err || len(res.Notes) != c.notes {
				t.Errorf("turns %q, want %q; error %v; notes %q", got, c.turns, err, res.Notes)
			}
		})
	}
}

// TestHistory: rounds that are missing on one side do not shift the others.
func TestHistory(t *testing.T) {
	var a, b history
	a.round(0)["x"], a.round(2)["x"], a.round(3)["x"] = 1, 6, 5
	b.round(1)["x"], b.round(2)["x"], b.round(3)["x"] = 9, 3, 0
	if got := a.values("x"); !slices.Equal(got, []float64{1, 6, 5}) {
		t.Errorf("values %v", got)
	}
	if got := a.ratios(b, "x"); !slices.Equal(got, []float64{2}) {
		t.Errorf("ratios %v", got)
	}
	if got := a.minus(b, "x"); !slices.Equal(got, []float64{3, 5}) {
		t.Errorf("differences %v", got)
	}
}
