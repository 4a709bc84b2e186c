package report

import (
	"embed"
	"html/template"
	"slices"
	"strings"

	"xlvs/perf"
)

//go:embed page.html
var files embed.FS

var page = template.Must(template.ParseFS(files, "page.html"))

// pageView is what page.html shows.
type pageView struct {
	Title     string
	Facts     []string
	Scenarios []scenarioView
}

type scenarioView struct {
	Name   string
	Charts []chartView
	Header []string // names of the parameters
	Rows   []rowView
}

type chartView struct {
	Title, Note string
	SVG         template.HTML
}

type rowView struct {
	Params                               []string
	Metric, Unit, Median, Min, Max, Runs string
	Spread                               string
	Bar                                  spreadBar
}

// spreadBar places min, median and max of a row on a scale from 0 to its max, in percent.
type spreadBar struct{ From, Width, Median float64 }

func view(res *perf.Result) pageView {
	v := pageView{Title: "xlvs performance, " + res.Started.Format("2006-01-02 15:04 UTC"), Facts: res.Describe()}
	for _, name := range res.Scenarios {
		rows := slices.DeleteFunc(slices.Clone(res.Rows), func(r perf.Row) bool { return r.Scenario != name })
		if len(rows) == 0 {
			continue
		}
		s := scenarioView{Name: name, Header: perf.ParamsOf(rows)}
		for _, p := range res.Plots[name] {
			if c := newChart(p, rows); c != nil {
				// The SVG is our own; every text in it went through the escaper of chart.go.
				s.Charts = append(s.Charts, chartView{Title: p.Title, Note: p.Note, SVG: template.HTML(c.svg())})
			}
		}
		for _, r := range rows {
			s.Rows = append(s.Rows, viewRow(r, s.Header))
		}
		v.Scenarios = append(v.Scenarios, s)
	}
	return v
}

func viewRow(r perf.Row, header []string) rowView {
	v := rowView{Metric: strings.ReplaceAll(r.Metric, "_", " "), Unit: r.Unit, Median: perf.Number(r.Median), Min: perf.Number(r.Min),
		Max: perf.Number(r.Max), Runs: perf.Text(float64(r.Runs)), Spread: r.Spread()}
	for _, h := range header {
		v.Params = append(v.Params, perf.Text(r.Params[h]))
	}
	if r.Max > 0 && r.Min >= 0 {
		v.Bar = spreadBar{From: r.Min / r.Max * 100, Width: (r.Max - r.Min) / r.Max * 100, Median: r.Median / r.Max * 100}
	}
	return v
}
