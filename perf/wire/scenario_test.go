package wire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"xlvs/perf"
)

// TestMain runs the tests in a session of their own, as `xlvs perf run` does its scenarios: what other programs do at the same time
// disturbs them less.
func TestMain(m *testing.M) {
	if os.Geteuid() == 0 {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		status, ran, err := OwnSession(ctx)
		stop()
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		if ran {
			os.Exit(status)
		}
	}
	goleak.VerifyTestMain(m)
}

// execute runs a scenario once, as short as it can be, and returns what it measured by metric.
func execute(t *testing.T, s perf.Scenario, only map[string]string) map[string][]perf.Row {
	t.Helper()
	rows, _ := executeNoted(t, s, only)
	return rows
}

// executeNoted returns the run's notes, too.
func executeNoted(t *testing.T, s perf.Scenario, only map[string]string) (rows map[string][]perf.Row, notes []string) {
	t.Helper()
	needRoot(t)
	res, err := perf.Execute(t.Context(), []perf.Scenario{s}, perf.Run{Quick: true, Runs: 1, Only: only}, "test")
	if err != nil {
		t.Fatal(err)
	}
	rows = map[string][]perf.Row{}
	for _, r := range res.Rows {
		if r.Runs == 0 {
			continue // quoted
		}
		rows[r.Metric] = append(rows[r.Metric], r)
	}
	return rows, res.Notes
}

// want fails the test unless there are so many rows of a metric, and all their values are from low to high.
func want(t *testing.T, rows map[string][]perf.Row, metric string, n int, low, high float64) {
	t.Helper()
	if len(rows[metric]) != n {
		t.Errorf("%d rows of %s, want %d", len(rows[metric]), metric, n)
	}
	for _, r := range rows[metric] {
		for _, v := range r.Values {
			if v < low || v > high {
				t.Errorf("%s of %v is %v, want %v to %v", metric, r.Params, v, low, high)
			}
		}
	}
}

// TestWireScenario measures the director, also with NAT, and the reflector. How much they forward is not this test's: other programs run.
func TestWireScenario(t *testing.T) {
	rows := execute(t, wire, map[string]string{"receive": "busy-poll", "flows": fmt.Sprint(fewFlows), "size": fmt.Sprint(smallest)})
	for _, metric := range []string{"flooded", "flood_offered", "flood_made"} {
		want(t, rows, metric, 3, 1, 50e6)
	}
	want(t, rows, "flooded_busy", 3, 0.01, 1.1)
	want(t, rows, "established_of_made", 3, 0.01, 1.3)
	want(t, rows, "established_made", 3, 1, 50e6)
	want(t, rows, "no_loss", 3, 0, 50e6)
	for _, r := range rows["flooded"] {
		if name := r.Params["forwarder"]; name != "director" && name != "director_nat" && name != "reflector" {
			t.Errorf("%v was measured too", name)
		}
	}
}

// TestWireInterrupted ends a run while the second forwarder is measured: the first one's figures are there.
func TestWireInterrupted(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := perf.Run{Quick: true, Runs: 1, Only: map[string]string{"receive": "busy-poll", "size": fmt.Sprint(smallest)}}
	r.Progress = func(_, _ int, what string) {
		if strings.Contains(what, "reflector") {
			cancel()
		}
	}
	res, err := perf.Execute(ctx, []perf.Scenario{wire}, r, "test")
	if !errors.Is(err, perf.ErrInterrupted) || !res.Interrupted {
		t.Errorf("the run ended with %v", err)
	}
	measured := map[any]bool{}
	for _, row := range res.Rows {
		if row.Runs > 0 {
			measured[row.Params["forwarder"]] = true
		}
	}
	if !measured["director"] || measured["reflector"] {
		t.Errorf("there are rows of %v, want those of the director", measured)
	}
}

func TestLatencyScenario(t *testing.T) {
	rows, notes := executeNoted(t, latency, map[string]string{"forwarder": "cable"})
	want(t, rows, "loss", len(parts), 0, 1)
	// Near its own end, or where others take its core, the generator is behind: there is a note then, and no latency.
	behind := 0
	for _, n := range notes {
		if strings.Contains(n, "could not keep to its schedule") {
			behind++
		}
	}
	if behind == len(parts) {
		t.Error("no latency at any part of the rate")
	}
	for _, q := range quantiles {
		want(t, rows, "latency_"+q.name, len(parts)-behind, 0.1, 2e6)
	}
}

// TestPrograms needs the real xlvs: its director and its proxy.
func TestPrograms(t *testing.T) {
	needRoot(t)
	program := filepath.Join(t.TempDir(), "xlvs")
	// -buildvcs=false: the checkout may belong to another user, whose repository git refuses to read.
	build := exec.Command(cmp.Or(os.Getenv("GO"), "go"), "build", "-buildvcs=false", "-o", program, "xlvs/cmd/xlvs")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build xlvs: %v\n%s", err, out)
	}
	saved := executable
	executable = func() (string, error) { return program, nil }
	defer func() { executable = saved }()

	t.Run("modes", func(t *testing.T) {
		rows := execute(t, modes, nil)
		balancers := 4
		if haproxyProgram() != "" {
			balancers++
		}
		want(t, rows, "requests", balancers*len(replySizes), 1, 1e6)
		want(t, rows, "cpu_per_request", balancers*len(replySizes), 0, 1e6)
		for _, r := range rows["bytes_through"] {
			size := float64(r.Params["reply_bytes"].(int))
			direct := slices.Contains([]any{"dr", "tun"}, r.Params["by"])
			// A request is small; acknowledgements of a large reply pass the director too.
			if direct && r.Median > 400+size/100 || !direct && r.Median < size {
				t.Errorf("%v bytes for a reply of %v passed by %v", r.Median, size, r.Params["by"])
			}
		}
	})
	t.Run("failover", func(t *testing.T) {
		rows := execute(t, failover, nil)
		// None, where nothing else wants the cores: a full ring is the machine's doing. That tables cost no packet is held in memory.
		want(t, rows, "dropped_by_director", 2, 0, 1e6)
		want(t, rows, "sent", 2, 1000, 1e6)
		want(t, rows, "declared_down", 1, 1, 5000)
		want(t, rows, "last_new_connection", 1, 0, 5000)
		want(t, rows, "broken_connections", 1, 0, 0)
		want(t, rows, "failed_elsewhere", 1, 0, 0)
	})
}

// TestProxyEnds starts the proxy and ends it with a connection open.
func TestProxyEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- RunProxy(ctx, "127.0.0.1:0", []string{"127.0.0.1:1"}) }()
	cancel()
	if err := <-done; err != nil && ctx.Err() == nil {
		t.Error(err)
	}
	if err := RunProxy(t.Context(), "127.0.0.1:0", nil); err == nil {
		t.Error("a proxy without servers is no error")
	}
}
