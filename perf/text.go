package perf

import (
	"fmt"
	"math"
	"slices"
	"strings"
)

// Number prints a figure for people: three or four significant digits, and no exponent up to a billion.
func Number(v float64) string {
	a := math.Abs(v)
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case v == math.Trunc(v) && a < 1e6:
		return fmt.Sprintf("%.0f", v)
	case a >= 1e6:
		return fmt.Sprintf("%.2fM", v/1e6)
	case a >= 1000:
		return fmt.Sprintf("%.0f", v)
	case a >= 100:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	case a >= 0.001:
		return fmt.Sprintf("%.4f", v)
	}
	return fmt.Sprintf("%.2g", v)
}

// Spread prints how far the runs lie apart, as a share of the median.
func (r *Row) Spread() string {
	switch {
	case r.Runs == 0:
		return "quoted"
	case r.Runs == 1:
		return "one run"
	case r.Median == 0 && r.Max == 0 && r.Min == 0:
		return "0 %"
	case r.Median == 0:
		return "–"
	}
	return fmt.Sprintf("%.1f %%", (r.Max-r.Min)/math.Abs(r.Median)*100)
}

// What may be concluded from a delta.
const (
	Better       = "better"
	Worse        = "worse"
	Differs      = "differs"
	NoDifference = "no difference shown"
	TooFewRuns   = "too few runs to tell"
)

// Verdicts are all values of Delta.Verdict.
var Verdicts = []string{Better, Worse, Differs, NoDifference, TooFewRuns}

// Verdict says what may be concluded.
func (d *Delta) Verdict() string {
	switch {
	case !d.Possible:
		return TooFewRuns
	case !d.Significant:
		return NoDifference
	}
	lower, known := d.New.lowerIsBetter()
	switch {
	case !known:
		return Differs
	case (d.New.Median < d.Old.Median) == lower:
		return Better
	}
	return Worse
}

// Percent prints the change of the median.
func (d *Delta) Percent() string {
	if math.IsNaN(d.Change) {
		return "–"
	}
	return fmt.Sprintf("%+.1f %%", d.Change*100)
}

// lowerIsBetter tells in which direction a figure improves, if it is known: times and memory by falling, rates by rising.
func (r *Row) lowerIsBetter() (lower, known bool) {
	if strings.HasSuffix(r.Unit, "/s") {
		return false, true
	}
	if slices.Contains([]string{"ns", "µs", "ms", "s", "bytes"}, r.Unit) {
		return true, true
	}
	for _, m := range []string{"ratio_to_harness", "allocations_per_packet", "lost", "misdirected", "needless_moves", "most_to_least", "stalled"} {
		if r.Metric == m {
			return true, true
		}
	}
	return false, false
}

// Describe says in a few lines where and how a result was measured.
func (r *Result) Describe() []string {
	m := &r.Machine
	cpu := fmt.Sprintf("%s, %.0f MHz, %d cores", m.CPU, m.MHz, m.Cores)
	if m.L3 != "" {
		cpu += fmt.Sprintf(", L2 %s, L3 %s", m.L2, m.L3)
	}
	if m.Virtual {
		cpu += ", in a virtual machine"
	}
	lines := []string{cpu,
		fmt.Sprintf("Linux %s, %s, xlvs %s", m.Kernel, m.Go, r.XLVS),
		fmt.Sprintf("%d MiB of memory, transparent huge pages: %s, governor: %s", m.MemoryMiB, orUnknown(m.THP), orUnknown(m.Governor)),
		fmt.Sprintf("%s, %.0f s, %d runs of each figure, load average at the start %.2f", r.Started.Format("2006-01-02 15:04 UTC"),
			r.Seconds, r.Runs, m.Load[0])}
	if m.Load[0] > NoisyLoad {
		lines = append(lines, fmt.Sprintf("The load average was over %.1f: other programs took part of the machine. Measure again when it is quiet.", NoisyLoad))
	}
	if r.Interrupted {
		lines = append(lines, "The run did not end by itself: some figures are of fewer runs, and some are missing.")
	}
	return append(lines, r.Notes...)
}

// NoisyLoad is the load average from which figures are marked as measured on a busy machine.
const NoisyLoad = 1.5

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}
