package perf

import (
	"math"
	"os"
	"testing"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func row(metric, name string, values ...float64) Row {
	return Row{Scenario: "s", Params: map[string]any{"case": name}, Metric: metric, Unit: "ns", Values: values, Runs: len(values), Median: Median(values)}
}

func rate(name string, values ...float64) Row {
	r := row("no_loss", name, values...)
	r.Unit = "packets/s"
	return r
}

func count(metric string, values ...float64) Row {
	r := row(metric, "x", values...)
	r.Unit = "packets"
	return r
}

func TestCompare(t *testing.T) {
	old := []float64{100, 101, 102, 103, 104}
	for _, c := range []struct {
		name    string
		a, b    Row
		verdict string
		p       float64 // 0: not checked
	}{
		// All of one below all of the other: 2 of the C(10,5) = 252 ways to deal the ranks are as extreme.
		{"apart", row("ns_per_packet", "x", old...), row("ns_per_packet", "x", 90, 91, 92, 93, 94), Better, 2.0 / 252},
		{"order of runs", row("ns_per_packet", "x", 104, 100, 102, 103, 101), row("ns_per_packet", "x", 93, 91, 90, 94, 92), Better, 2.0 / 252},
		{"worse", row("ns_per_packet", "x", old...), row("ns_per_packet", "x", 110, 111, 112, 113, 114), Worse, 2.0 / 252},
		{"more is better", rate("x", old...), rate("x", 110, 111, 112, 113, 114), Better, 0},
		{"fewer lost", count("lost", old...), count("lost", 90, 91, 92, 93, 94), Better, 0},
		{"unknown direction", count("packets", old...), count("packets", 110, 111, 112, 113, 114), Differs, 0},
		// The ranks of the second are 2 4 6 8 10: U = 10; 0.69 by R's wilcox.test.
		{"mixed", row("ns_per_packet", "x", 1, 3, 5, 7, 9), row("ns_per_packet", "x", 2, 4, 6, 8, 10), NoDifference, 0.6905},
		{"equal", row("ns_per_packet", "x", 5, 5, 5, 5, 5), row("ns_per_packet", "x", 5, 5, 5, 5, 5), NoDifference, 1},
		{"three runs", row("ns_per_packet", "x", 1, 2, 3), row("ns_per_packet", "x", 10, 20, 30), TooFewRuns, 0.1},
		{"no values", Row{Scenario: "s", Params: map[string]any{"case": "x"}, Metric: "ns_per_packet", Runs: 1}, row("ns_per_packet", "x", 1), TooFewRuns, 1},
	} {
		cmp := Compare(&Result{Rows: []Row{c.a}}, &Result{Rows: []Row{c.b}})
		if len(cmp.Deltas) != 1 {
			t.Fatalf("%s: %+v", c.name, cmp)
		}
		d := cmp.Deltas[0]
		if d.Verdict() != c.verdict || c.p != 0 && math.Abs(d.P-c.p) > 0.0001 {
			t.Errorf("%s: %s, p %.4f; want %s, %.4f", c.name, d.Verdict(), d.P, c.verdict, c.p)
		}
	}
}

func TestCompareMatchesRows(t *testing.T) {
	quoted := Row{Scenario: "s", Params: map[string]any{"case": "paper"}, Metric: "build_ms", Median: 1.8}
	a := &Result{Rows: []Row{row("m", "only old", 1), row("m", "both", 2, 2), quoted}}
	b := &Result{Rows: []Row{quoted, row("m", "only new", 1), row("m", "both", 3, 3), row("other", "both", 3)}}
	c := Compare(a, b)
	if len(c.Deltas) != 1 || c.Deltas[0].Change != 0.5 || c.Deltas[0].Percent() != "+50.0 %" {
		t.Errorf("deltas %+v", c.Deltas)
	}
	if len(c.OnlyOld) != 1 || c.OnlyOld[0] != "s case=only old m" || len(c.OnlyNew) != 2 {
		t.Errorf("only old %q, only new %q", c.OnlyOld, c.OnlyNew)
	}
	zero := compareRows(row("lost", "x", 0, 0), row("lost", "x", 3, 4))
	if zero.Percent() != "–" {
		t.Errorf("a change from 0 is printed as %s", zero.Percent())
	}
}

func TestLeastP(t *testing.T) {
	for _, c := range []struct {
		n, m int
		want float64
	}{{5, 5, 2.0 / 252}, {3, 3, 2.0 / 20}, {4, 4, 2.0 / 70}, {1, 1, 1}, {0, 5, 1}} {
		if got := leastP(c.n, c.m); math.Abs(got-c.want) > 1e-12 {
			t.Errorf("%d and %d runs: %v, want %v", c.n, c.m, got, c.want)
		}
	}
}

func TestNumber(t *testing.T) {
	for _, c := range []struct {
		v    float64
		want string
	}{{0, "0"}, {12, "12"}, {12.345, "12.35"}, {123.45, "123.5"}, {1234.5, "1234"}, {12345678, "12.35M"}, {0.12345, "0.1235"},
		{0.0000123, "1.2e-05"}, {65536, "65536"}, {math.NaN(), "–"}, {-3.14159, "-3.14"}} {
		if got := Number(c.v); got != c.want {
			t.Errorf("Number(%v) = %q, want %q", c.v, got, c.want)
		}
	}
}
