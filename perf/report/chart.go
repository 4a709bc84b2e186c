package report

import (
	"cmp"
	"fmt"
	"html"
	"math"
	"slices"
	"strings"

	"xlvs/perf"
)

// A chart is one plot with the rows that belong to it: lines over numbers, or groups of bars over words.
type chart struct {
	plot   perf.Plot
	unit   string
	bars   bool
	x      scale
	y      scale
	words  []string // bars: what stands along the axis
	series []series
}

type series struct {
	name   string
	points []point
}

type point struct {
	x                float64 // bars: index into words
	row              perf.Row
	median, min, max float64
}

// Size of a chart in SVG units, and the room around the plotting area.
const (
	width  = 640
	height = 320
	left   = 62
	right  = 14
	top    = 14
	bottom = 46
	legend = 18 // height of one line of the legend
)

// colours are those of Okabe and Ito, which people with any colour vision tell apart.
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f", "#b8a900"}

func colour(i int) string { return colours[i%len(colours)] }

// newChart returns nil when no row belongs to the plot.
func newChart(p perf.Plot, rows []perf.Row) *chart {
	c := &chart{plot: p}
	for _, r := range rows {
		if p.Shows(&r) {
			c.add(r)
		}
	}
	if len(c.series) == 0 {
		return nil
	}
	c.arrange()
	return c
}

func (c *chart) add(r perf.Row) {
	var name []string
	for _, s := range c.plot.Series {
		if v := perf.Text(r.Params[s]); v != "" {
			name = append(name, label(s, v))
		}
	}
	if len(c.plot.Metric) > 1 {
		name = append(name, strings.ReplaceAll(r.Metric, "_", " "))
	}
	x, isNumber := number(r.Params[c.plot.X])
	if !isNumber {
		c.bars = true
	}
	full := strings.Join(name, " ")
	i := slices.IndexFunc(c.series, func(s series) bool { return s.name == full })
	if i < 0 {
		i = len(c.series)
		c.series = append(c.series, series{name: full})
	}
	c.unit = r.Unit
	c.series[i].points = append(c.series[i].points, point{x: x, row: r, median: r.Median, min: r.Min, max: r.Max})
}

// label says what a number is; words say it themselves.
func label(param, v string) string {
	if strings.Trim(v, "0123456789.") == "" {
		return param + " " + v
	}
	return v
}

func number(v any) (float64, bool) {
	switch n := v.(type) {
	case float64:
		return n, true
	case int:
		return float64(n), true
	case uint64:
		return float64(n), true
	case int64:
		return float64(n), true
	}
	return 0, false
}

// arrange chooses the scales once all points are known.
func (c *chart) arrange() {
	lo, hi := math.Inf(1), math.Inf(-1)
	xlo, xhi := lo, hi
	for i := range c.series {
		s := &c.series[i]
		for k := range s.points {
			p := &s.points[k]
			if c.bars {
				p.x = float64(c.word(perf.Text(p.row.Params[c.plot.X])))
			}
			xlo, xhi = min(xlo, p.x), max(xhi, p.x)
			if !c.plot.LogY || p.min > 0 {
				lo, hi = min(lo, p.min), max(hi, p.max)
			}
		}
		slices.SortStableFunc(s.points, func(a, b point) int { return cmp.Compare(a.x, b.x) })
	}
	if lo > hi { // nothing but zeroes, which a logarithmic axis has no place for
		lo, hi = 0, 0
	}
	if c.bars {
		xlo, xhi = -0.5, float64(len(c.words))-0.5
	}
	c.x = newScale(xlo, xhi, c.plot.LogX && !c.bars, left, width-right, false)
	c.y = newScale(lo, hi, c.plot.LogY, height-bottom, top, true)
}

func (c *chart) word(w string) int {
	i := slices.Index(c.words, w)
	if i < 0 {
		i = len(c.words)
		c.words = append(c.words, w)
	}
	return i
}

// svg draws the chart. Hovering over a point shows its figures: title elements need no script.
func (c *chart) svg() string {
	var b strings.Builder
	lines := c.legendLines()
	h := height + c.lean() + legend*len(lines)
	fmt.Fprintf(&b, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s">`, width, h, html.EscapeString(c.plot.Title))
	c.axes(&b)
	for i, s := range c.series {
		if c.bars {
			c.drawBars(&b, i, s)
		} else {
			c.drawLine(&b, i, s)
		}
	}
	c.drawLegend(&b, lines)
	b.WriteString("</svg>")
	return b.String()
}

func (c *chart) axes(b *strings.Builder) {
	for _, v := range c.y.ticks() {
		y := c.y.at(v)
		fmt.Fprintf(b, `<line class="grid" x1="%d" x2="%d" y1="%.1f" y2="%.1f"/>`, left, width-right, y, y)
		fmt.Fprintf(b, `<text class="soft" x="%d" y="%.1f" text-anchor="end">%s</text>`, left-6, y+4, short(v))
	}
	fmt.Fprintf(b, `<line class="axis" x1="%d" x2="%d" y1="%d" y2="%d"/>`, left, width-right, height-bottom, height-bottom)
	if c.bars {
		for i, w := range c.words {
			c.drawWord(b, c.x.at(float64(i)), w)
		}
	} else {
		for _, v := range c.xTicks() {
			x := c.x.at(v)
			fmt.Fprintf(b, `<line class="axis" x1="%.1f" x2="%.1f" y1="%d" y2="%d"/>`, x, x, height-bottom, height-bottom+4)
			fmt.Fprintf(b, `<text class="soft" x="%.1f" y="%d" text-anchor="middle">%s</text>`, x, height-bottom+17, binary(v))
		}
	}
	xl := c.plot.XLabel
	if xl == "" {
		xl = c.plot.X
	}
	fmt.Fprintf(b, `<text class="soft" x="%d" y="%d" text-anchor="middle">%s</text>`, (left+width-right)/2, height-bottom+36+c.lean(), html.EscapeString(xl))
	fmt.Fprintf(b, `<text class="soft" transform="translate(13 %d) rotate(-90)" text-anchor="middle">%s</text>`, (top+height-bottom)/2, html.EscapeString(c.unit))
}

// letter is about how wide a character is, in SVG units, and slope the sine of the angle that words lean at.
const (
	letter = 6.2
	slope  = 0.42
)

// lean is how much further down the words along the axis reach because they lean: 0 where they stand upright beside each other.
func (c *chart) lean() int {
	longest := 0
	for _, w := range c.words {
		longest = max(longest, len(w))
	}
	if !c.bars || letter*float64(longest) < c.x.at(1)-c.x.at(0) {
		return 0
	}
	return int(letter * slope * float64(longest))
}

func (c *chart) drawWord(b *strings.Builder, x float64, w string) {
	if c.lean() == 0 {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`, x, height-bottom+16, html.EscapeString(w))
		return
	}
	fmt.Fprintf(b, `<text transform="translate(%.1f %d) rotate(-25)" text-anchor="end">%s</text>`, x+4, height-bottom+14, html.EscapeString(w))
}

// xTicks are the measured values themselves where there are few of them.
func (c *chart) xTicks() []float64 {
	var seen []float64
	for _, s := range c.series {
		for _, p := range s.points {
			if !slices.Contains(seen, p.x) {
				seen = append(seen, p.x)
			}
		}
	}
	if len(seen) <= 8 {
		return seen
	}
	return c.x.ticks()
}

func (c *chart) drawLine(b *strings.Builder, i int, s series) {
	var path []string
	for _, p := range s.points {
		path = append(path, fmt.Sprintf("%.1f,%.1f", c.x.at(p.x), c.y.at(p.median)))
	}
	dash := ""
	if i >= len(colours)/2 {
		dash = ` stroke-dasharray="5 3"`
	}
	fmt.Fprintf(b, `<polyline points="%s" fill="none" stroke="%s" stroke-width="1.8"%s/>`, strings.Join(path, " "), colour(i), dash)
	for _, p := range s.points {
		x := c.x.at(p.x)
		c.whisker(b, x, p, colour(i))
		fmt.Fprintf(b, `<circle cx="%.1f" cy="%.1f" r="3.2" fill="%s">%s</circle>`, x, c.y.at(p.median), colour(i), tooltip(s, p))
	}
}

func (c *chart) drawBars(b *strings.Builder, i int, s series) {
	group := (c.x.at(1) - c.x.at(0)) * 0.8
	w := group / float64(len(c.series))
	floor := float64(height - bottom)
	for _, p := range s.points {
		x := c.x.at(p.x) - group/2 + w*float64(i)
		y := c.y.at(p.median)
		fmt.Fprintf(b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s">%s</rect>`, x+1, y, max(w-2, 1), max(floor-y, 0.5), colour(i), tooltip(s, p))
		c.whisker(b, x+w/2, p, "currentColor")
		if w > 34 {
			fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`, x+w/2, c.y.at(p.max)-4, short(p.median))
		}
	}
}

// whisker draws the spread from the least to the greatest run.
func (c *chart) whisker(b *strings.Builder, x float64, p point, stroke string) {
	if p.max > p.min {
		fmt.Fprintf(b, `<line x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f" stroke="%s" stroke-width="1.2"/>`, x, x, c.y.at(p.min), c.y.at(p.max), stroke)
	}
}

func tooltip(s series, p point) string {
	t := fmt.Sprintf("%s: %s %s (%s to %s, %d runs)", strings.TrimSpace(s.name+" "+perf.Text(p.row.Params["case"])), perf.Number(p.median), p.row.Unit,
		perf.Number(p.min), perf.Number(p.max), p.row.Runs)
	return "<title>" + html.EscapeString(t) + "</title>"
}
