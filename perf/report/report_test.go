package report

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strings"
	"testing"
	"time"

	"xlvs/perf"
)

// result has lines, bars, a series without spread, zeroes on a logarithmic axis, and names that HTML must not take for its own.
func result() *perf.Result {
	res := &perf.Result{Started: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC), Runs: 3, Scenarios: []string{"s", "empty"},
		Plots: map[string][]perf.Plot{"s": {
			{Title: "Lines", Metric: []string{"ns"}, X: "flows", Series: []string{"mode"}, LogX: true, LogY: true},
			{Title: "Bars <b>", Note: "a & b", Metric: []string{"ns", "zero"}, X: "mode"},
			{Title: "One point", Metric: []string{"zero"}, X: "flows", LogY: true},
			{Title: "Nothing", Metric: []string{"absent"}, X: "flows"},
		}}}
	for _, mode := range []string{"dr", "<script>alert(1)</script>"} {
		for i, flows := range []int{1, 1024, 1 << 20} {
			v := float64(10 * (i + 1))
			res.Rows = append(res.Rows, perf.Row{Scenario: "s", Params: map[string]any{"mode": mode, "flows": flows}, Metric: "ns", Unit: "ns",
				Median: v, Min: v - 1, Max: v + 2, Runs: 3})
		}
	}
	res.Rows = append(res.Rows, perf.Row{Scenario: "s", Params: map[string]any{"mode": "dr", "flows": 7}, Metric: "zero", Unit: "packets", Runs: 3})
	return res
}

func render(t *testing.T, res *perf.Result) string {
	t.Helper()
	var b strings.Builder
	if err := Write(&b, res); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

var elements = regexp.MustCompile(`(?s)<svg.*?</svg>`)

func TestReport(t *testing.T) {
	page := render(t, result())
	svgs := elements.FindAllString(page, -1)
	if len(svgs) != 3 {
		t.Errorf("%d charts are drawn, want 3", len(svgs))
	}
	for _, s := range svgs {
		wellFormed(t, s)
	}
	for _, want := range []string{"Bars &lt;b&gt;", "a &amp; b", "All 7 figures", "&lt;script&gt;", "2026-01-02 03:04 UTC", "dr: 20 ns (19 to 22, 3 runs)"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q", want)
		}
	}
	if strings.Contains(page, `id="empty"`) {
		t.Error("a scenario without figures has a heading")
	}
}

// TestReportNeedsNothingElse: the page may load nothing, and run nothing.
func TestReportNeedsNothingElse(t *testing.T) {
	page := render(t, result())
	for _, bad := range []string{"http:", "https:", "//", "<script", "<link", "<img", "<iframe", "src=", "@import", "url(", "javascript:"} {
		if i := strings.Index(page, bad); i >= 0 {
			t.Errorf("the page has %q: …%s", bad, page[max(i-40, 0):min(i+60, len(page))])
		}
	}
}

// TestWordsLean: where words along the axis would run into each other they lean, and the chart is taller for it.
func TestWordsLean(t *testing.T) {
	tall := map[bool]string{}
	for _, long := range []bool{false, true} {
		res := result()
		res.Rows, res.Plots = nil, map[string][]perf.Plot{"s": {{Title: "Bars", Metric: []string{"ns"}, X: "mode"}}}
		for i := range 12 {
			name := fmt.Sprint("f", i)
			if long {
				name += " (quoted)"
			}
			res.Rows = append(res.Rows, perf.Row{Scenario: "s", Params: map[string]any{"mode": name}, Metric: "ns", Unit: "ns", Median: 1, Min: 1, Max: 1, Runs: 1})
		}
		svg := elements.FindString(render(t, res))
		wellFormed(t, svg)
		if leans := strings.Contains(svg, "rotate(-25)"); leans != long {
			t.Errorf("words lean: %v, want %v", leans, long)
		}
		tall[long], _, _ = strings.Cut(svg, `" role`)
	}
	if tall[true] <= tall[false] {
		t.Errorf("a chart with leaning words is %q, one without %q", tall[true], tall[false])
	}
}

// wellFormed parses an SVG and holds its coordinates to be numbers.
func wellFormed(t *testing.T, svg string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Errorf("%v in %s", err, svg)
			return
		}
		e, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		for _, a := range e.Attr {
			if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") {
				t.Errorf("<%s %s=%q>", e.Name.Local, a.Name.Local, a.Value)
			}
		}
	}
}

func TestEmptyReport(t *testing.T) {
	if page := render(t, &perf.Result{}); !strings.Contains(page, "The result holds no figures.") {
		t.Error("an empty result is not called one")
	}
}

func TestScale(t *testing.T) {
	for _, c := range []struct {
		lo, hi float64
		log    bool
	}{{0, 0, false}, {0, 1, false}, {5, 5, true}, {0.3, 250, true}, {1, 10 << 20, true}, {3, 1e9, false}, {0, 100, true}, {-2, 8, false}} {
		s := newScale(c.lo, c.hi, c.log, 300, 10, true)
		for _, v := range append(s.ticks(), c.lo, c.hi) {
			y := s.at(v)
			if math.IsNaN(y) || y < 10-0.01 || y > 300.01 {
				t.Errorf("%+v: %v is drawn at %v, outside of the chart", c, v, y)
			}
		}
		if n := len(s.ticks()); n < 1 || n > 12 {
			t.Errorf("%+v: %d ticks: %v", c, n, s.ticks())
		}
		if s.at(c.hi) > s.at(c.lo) {
			t.Errorf("%+v: larger values are drawn lower", c)
		}
	}
}

func TestLabels(t *testing.T) {
	for _, c := range []struct {
		v     float64
		short string
		bin   string
	}{{0, "0", "0"}, {1, "1", "1"}, {64, "64", "64"}, {1024, "1024", "1k"}, {65536, "65.5k", "64k"}, {1 << 20, "1M", "1M"}, {1000, "1k", "1k"},
		{10 << 20, "10.5M", "10M"}, {65537, "65.5k", "65.5k"}, {0.25, "0.25", "0.25"}, {1500, "1500", "1500"}} {
		if s, b := short(c.v), binary(c.v); s != c.short || b != c.bin {
			t.Errorf("%v: %q and %q, want %q and %q", c.v, s, b, c.short, c.bin)
		}
	}
}

func ExampleWrite() {
	var b strings.Builder
	err := Write(&b, &perf.Result{Started: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)})
	fmt.Println(strings.HasPrefix(b.String(), "<!DOCTYPE html>"), err)
	// Output: true <nil>
}
