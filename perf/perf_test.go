package perf

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// collect returns a Run that keeps its rows.
func collect(runs int) (*Run, *[]Row) {
	var rows []Row
	return &Run{Runs: runs, Emit: func(r Row) { rows = append(rows, r) }, Progress: func(int, int, string) {}}, &rows
}

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1}, 5}, {[]float64{5, 1, 9}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		in := slices.Clone(c.in)
		if got := Median(in); got != c.want || !slices.Equal(in, c.in) {
			t.Errorf("Median(%v) = %v, want %v; it left %v", c.in, got, c.want, in)
		}
	}
}

// counting is a case whose figure is how often it was measured, and that notes its turn.
func counting(name string, turns *[]string) Case {
	n := 0.0
	return Case{What: name, Params: map[string]any{"case": name}, Measure: func(context.Context) ([]Figure, error) {
		*turns = append(*turns, name)
		n++
		return []Figure{{Metric: "n", Unit: "runs", Value: n}, {Metric: "n", Unit: "runs", Value: -n, Params: map[string]any{"sign": "minus"}}}, nil
	}}
}

func TestInterleave(t *testing.T) {
	r, rows := collect(2)
	var turns []string
	if err := r.Interleave(t.Context(), []Case{counting("a", &turns), counting("b", &turns)}); err != nil {
		t.Fatal(err)
	}
	if want := strings.Fields("a b a b a b"); !slices.Equal(turns, want) {
		t.Errorf("cases were measured in the order %v, want %v", turns, want)
	}
	want := []Row{ // the first round warms up, so the values begin with 2
		{Params: map[string]any{"case": "a"}, Metric: "n", Unit: "runs", Median: 2.5, Min: 2, Max: 3, Runs: 2, Values: []float64{2, 3}},
		{Params: map[string]any{"case": "a", "sign": "minus"}, Metric: "n", Unit: "runs", Median: -2.5, Min: -3, Max: -2, Runs: 2, Values: []float64{-2, -3}},
	}
	if diff := cmp.Diff(want, (*rows)[:2]); diff != "" {
		t.Error(diff)
	}
	if len(*rows) != 4 {
		t.Errorf("%d rows, want 4", len(*rows))
	}
}

func TestInterleaveOnly(t *testing.T) {
	r, rows := collect(1)
	r.Only = map[string]string{"case": "b"}
	var turns []string
	if err := r.Interleave(t.Context(), []Case{counting("a", &turns), counting("b", &turns)}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(turns, []string{"b", "b"}) || len(*rows) != 2 {
		t.Errorf("turns %v, %d rows", turns, len(*rows))
	}
}

// TestInterrupted: what was measured before the end is in the result.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var turns []string
	stop := counting("b", &turns)
	measure := stop.Measure
	stop.Measure = func(ctx context.Context) ([]Figure, error) {
		f, err := measure(ctx)
		if len(turns) == 6 {
			cancel()
		}
		return f, err
	}
	s := Scenario{Name: "test", Run: func(ctx context.Context, r *Run) error {
		r.Note("nothing is left out but %s", "this")
		return r.Interleave(ctx, []Case{counting("a", &turns), stop})
	}}
	never := Scenario{Name: "never", Run: func(context.Context, *Run) error { t.Error("a scenario ran after the end"); return nil }}
	res, err := Execute(ctx, []Scenario{s, never}, Run{Runs: 7}, "v")
	if !errors.Is(err, ErrInterrupted) {
		t.Errorf("error %v", err)
	}
	if !res.Interrupted || len(res.Rows) != 4 || res.Rows[0].Runs != 2 || res.Rows[0].Scenario != "test" {
		t.Errorf("result %+v", res)
	}
	if text := strings.Join(res.Describe(), "\n"); !strings.Contains(text, "\ntest: nothing is left out but this") || !strings.Contains(text, "did not end by itself") {
		t.Errorf("the description does not tell all:\n%s", text)
	}
}

// TestExecuteGoesOn: a scenario that fails is named, and the next one runs. Each leaves a result that is kept.
func TestExecuteGoesOn(t *testing.T) {
	broken := Scenario{Name: "broken", Run: func(context.Context, *Run) error { return errors.New("no queue") }}
	whole := Scenario{Name: "whole", Run: func(_ context.Context, r *Run) error {
		r.Record(nil, "m", "ns", []float64{1})
		return nil
	}}
	var kept []int
	r := Run{Runs: 1, Notes: []string{"beforehand"}, Keep: func(res *Result) error { kept = append(kept, len(res.Rows)); return nil }}
	res, err := Execute(t.Context(), []Scenario{broken, whole}, r, "v")
	if err == nil || err.Error() != "scenario broken: no queue" || !res.Interrupted || len(res.Rows) != 1 {
		t.Errorf("error %v, result %+v", err, res)
	}
	if want := []string{"beforehand", "broken: it failed: no queue"}; !slices.Equal(res.Notes, want) {
		t.Errorf("notes %q, want %q", res.Notes, want)
	}
	if !slices.Equal(kept, []int{0, 1}) {
		t.Errorf("the results that were kept have %v rows", kept)
	}
}

// TestOnlyAdmitsNothing: an --only that fits no case is an error, one that fits the cases of one scenario is none.
func TestOnlyAdmitsNothing(t *testing.T) {
	asking := func(name string, params map[string]any) Scenario {
		return Scenario{Name: name, Run: func(_ context.Context, r *Run) error { r.Wanted(params); return nil }}
	}
	all := []Scenario{asking("a", map[string]any{"mode": "dr", "flows": 1}), asking("b", map[string]any{"size": 64})}
	for only, want := range map[string]string{
		"":          "",
		"size=64":   "",
		"flows=1":   "",
		"flow=1":    `no case has a parameter "flow"; there are mode, flows, size`,
		"flows=2":   "no case has all of these parameters",
		"mode=drrr": "no case has all of these parameters",
	} {
		r := Run{Only: map[string]string{}}
		if k, v, ok := strings.Cut(only, "="); ok {
			r.Only[k] = v
		}
		_, err := Execute(t.Context(), all, r, "v")
		var nothing *OnlyError
		if want == "" && err != nil || want != "" && (!errors.As(err, &nothing) || err.Error() != want) {
			t.Errorf("%q: %v, want %q", only, err, want)
		}
	}
}

func TestFlat(t *testing.T) {
	r := Row{Scenario: "pipeline", Params: map[string]any{"flows": 65536, "case": "hit", "mode": "dr", "family": "ipv4", "zeta": true, "alpha": 1.5},
		Metric: "ns_per_packet", Unit: "ns", Median: 31.5, Min: 30, Max: 33, Runs: 3, Values: []float64{30, 31.5, 33}}
	b, err := r.Flat()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"scenario":"pipeline","mode":"dr","family":"ipv4","case":"hit","flows":65536,"alpha":1.5,"zeta":true,` +
		`"metric":"ns_per_packet","unit":"ns","median":31.5,"min":30,"max":33,"runs":3}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	if !json.Valid(b) {
		t.Error("this is no JSON")
	}
	for _, name := range reserved {
		r := Row{Params: map[string]any{name: 1}}
		if _, err := r.Flat(); err == nil {
			t.Errorf("a parameter called %s hides a column and is not refused", name)
		}
	}
}

func TestSaveLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.json")
	want := &Result{Version: ResultVersion, XLVS: "v", Runs: 3, Scenarios: []string{"s"}, Machine: ThisMachine(),
		Plots: map[string][]Plot{"s": {{Title: "T", Metric: []string{"m"}, X: "n", Where: map[string]any{"case": "hit"}}}},
		Rows:  []Row{{Scenario: "s", Params: map[string]any{"n": float64(65536), "case": "hit"}, Metric: "m", Unit: "ns", Median: 2, Min: 1, Max: 3, Runs: 3, Values: []float64{1, 2, 3}}}}
	if err := want.Save(path); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// A number is an int when it is measured and a float64 when it is read: the row is the same.
	measured := want.Rows[0]
	measured.Params = map[string]any{"n": 65536, "case": "hit"}
	if a, b := measured.Key(), got.Rows[0].Key(); a != b {
		t.Errorf("keys differ: %q and %q", a, b)
	}
}

func TestLoadRefuses(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"no JSON":     {"scenario ns\n", "is no result file of `xlvs perf run --out`"},
		"other JSON":  {`{"a": 1}`, "it has no version"},
		"newer":       {`{"v": 99}`, "has version 99; this program knows up to 1"},
		"row by line": {"{\"scenario\":\"a\"}\n{\"scenario\":\"b\"}\n", "is no result file"},
	} {
		path := filepath.Join(t.TempDir(), "r.json")
		write(t, path, c.text)
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "absent.json")); err == nil {
		t.Error("an absent file was loaded")
	}
}

func TestThisMachine(t *testing.T) {
	m := ThisMachine()
	if m.Cores < 1 || m.MemoryMiB < 1 || m.Kernel == "" || !strings.HasPrefix(m.Go, "go") {
		t.Errorf("machine %+v", m)
	}
}
