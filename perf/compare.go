package perf

import (
	"math"
	"slices"

	"golang.org/x/perf/benchmath"
)

// A Delta is one row of two results side by side.
type Delta struct {
	Old, New Row
	Change   float64 // of the median, as a share of Old's; NaN where Old's is 0
	P        float64 // that the two differ as much by chance: Mann–Whitney U, two-sided
	// Possible is false where so few runs can show nothing at the level of 0.05, however far apart they are.
	Possible    bool
	Significant bool // P < 0.05
}

// A Comparison holds what two results have in common, and what only one of them has.
type Comparison struct {
	Deltas           []Delta
	OnlyOld, OnlyNew []string // keys of rows
}

// alpha is the level of significance. With many rows, one in twenty that did not change is taken for one that did.
const alpha = 0.05

// Compare sets the rows of two results against each other, in the order of the older one. Quoted figures are left out.
func Compare(older, newer *Result) Comparison {
	var c Comparison
	rest := map[string]Row{}
	for _, row := range newer.Rows {
		if row.Runs > 0 {
			rest[row.Key()] = row
		}
	}
	for _, row := range older.Rows {
		if row.Runs == 0 {
			continue
		}
		k := row.Key()
		other, ok := rest[k]
		if !ok {
			c.OnlyOld = append(c.OnlyOld, k)
			continue
		}
		delete(rest, k)
		c.Deltas = append(c.Deltas, compareRows(row, other))
	}
	for _, row := range newer.Rows {
		if _, left := rest[row.Key()]; left {
			c.OnlyNew = append(c.OnlyNew, row.Key())
		}
	}
	return c
}

func compareRows(a, b Row) Delta {
	d := Delta{Old: a, New: b, Change: math.NaN(), P: 1, Possible: leastP(len(a.Values), len(b.Values)) < alpha}
	if a.Median != 0 {
		d.Change = b.Median/a.Median - 1
	}
	if len(a.Values) == 0 || len(b.Values) == 0 || allEqual(a.Values, b.Values) {
		return d
	}
	t := benchmath.DefaultThresholds
	t.CompareAlpha = alpha
	// NewSample sorts its argument; the values of a row stay in the order of the runs.
	d.P = benchmath.AssumeNothing.Compare(benchmath.NewSample(slices.Clone(a.Values), &t), benchmath.NewSample(slices.Clone(b.Values), &t)).P
	d.Significant = d.P < alpha
	return d
}

// leastP is the least value that P can have: two of the C(n+m, n) ways to deal the ranks are the most extreme ones.
func leastP(n, m int) float64 {
	ways := 1.0
	for i := 1; i <= n; i++ {
		ways *= float64(m+i) / float64(i)
	}
	return min(2/ways, 1)
}

func allEqual(a, b []float64) bool {
	for _, v := range append(slices.Clone(a), b...) {
		if v != a[0] {
			return false
		}
	}
	return true
}
