package perf

import (
	"context"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestScenarios runs every scenario, quickly and once, so that none can rot.
func TestScenarios(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	only := map[string][]map[string]string{ // one mode at each size is enough of the pipeline
		"pipeline": {{"flows": "65536", "mode": "nat"}, {"flows": "65536", "mode": "dr", "family": "ipv4"}, {"flows": "1048576", "mode": "dr", "family": "ipv4"}, {"load": "90"}, {"case": "memory"}},
	}
	metrics := map[string][]string{
		"pipeline":    {"ns_per_packet", "harness_ns_per_packet", "net_ns_per_packet", "ratio_to_harness", "allocations_per_packet", "bytes_per_flow", "established_kept"},
		"maglev":      {"build_ms", "most_to_least", "moves", "needless_moves", "above_mean", "changed", "changed_needlessly"},
		"scale":       {"ns_per_packet", "packets_per_second"},
		"convergence": {"publish_ms", "tables_ms", "publish_cpu_ms", "lost", "misdirected", "last_misdirected_ms", "deaths"},
		"gap":         {"gap_us", "packet_gap_us", "stalled", "off_cpu", "polls_per_second", "flows_evicted"},
	}
	for _, s := range Scenarios() {
		t.Run(s.Name, func(t *testing.T) {
			rows := runQuickly(t, s, only[s.Name])
			got := map[string]bool{}
			for i := range rows {
				r := &rows[i]
				got[r.Metric] = true
				if _, err := r.Flat(); err != nil {
					t.Error(err)
				}
				if v, must := fixed[r.Metric]; must && r.Max != v {
					t.Errorf("%s is %v, want %v", r.Key(), r.Max, v)
				}
			}
			if len(metrics[s.Name]) == 0 {
				t.Error("the test does not know what this scenario measures")
			}
			for _, m := range metrics[s.Name] {
				if !got[m] {
					t.Errorf("%s was not measured", m)
				}
			}
			plotsShowSomething(t, s, rows)
		})
	}
}

// fixed are figures that do not depend on the machine.
var fixed = map[string]float64{"lost": 0, "misdirected": 0, "allocations_per_packet": 0}

func runQuickly(t *testing.T, s Scenario, only []map[string]string) (rows []Row) {
	t.Helper()
	if only == nil {
		only = []map[string]string{nil}
	}
	for _, o := range only {
		r := Run{Quick: true, Runs: 1, Only: o}
		res, err := Execute(context.Background(), []Scenario{s}, r, "test")
		if err != nil {
			t.Fatal(err)
		}
		if len(res.Rows) == 0 {
			t.Errorf("no figures for %v", o)
		}
		rows = append(rows, res.Rows...)
	}
	keys := map[string]bool{}
	for i := range rows {
		if k := rows[i].Key(); keys[k] {
			t.Errorf("two rows are called %s", k)
		} else {
			keys[k] = true
		}
	}
	return rows
}

// plotsShowSomething: a plot whose metric or parameter nothing has would be left out of the report.
func plotsShowSomething(t *testing.T, s Scenario, rows []Row) {
	t.Helper()
	for _, p := range s.Plots {
		shown := false
		for i := range rows {
			shown = shown || p.Shows(&rows[i])
		}
		if !shown {
			t.Errorf("plot %q shows nothing", p.Title)
		}
	}
}
