package report

import (
	"fmt"
	"html"
	"math"
	"strings"

	"xlvs/perf"
)

// A scale maps values to SVG units between from and to.
type scale struct {
	lo, hi   float64
	log      bool
	from, to float64
}

// newScale covers lo to hi. An axis of values (not of the cases along the bottom) starts at 0 if it is linear, and ends a little above hi.
func newScale(lo, hi float64, log bool, from, to float64, values bool) scale {
	s := scale{lo: lo, hi: hi, log: log && lo > 0, from: from, to: to}
	switch {
	case s.log && values:
		s.lo, s.hi = lo/1.25, hi*1.25
	case s.log:
		s.lo, s.hi = lo/1.2, hi*1.2
	case values:
		s.lo, s.hi = min(lo, 0), hi*1.1
	}
	if s.hi <= s.lo { // a single value, or nothing but zeroes
		s.hi = s.lo + 1
	}
	return s
}

func (s scale) at(v float64) float64 {
	lo, hi := s.lo, s.hi
	if s.log {
		lo, hi, v = math.Log(lo), math.Log(hi), math.Log(max(v, s.lo))
	}
	return s.from + (v-lo)/(hi-lo)*(s.to-s.from)
}

// ticks returns round values within the scale, about five of them.
func (s scale) ticks() []float64 {
	var out []float64
	if s.log {
		for _, digits := range [][]float64{{1, 2, 5}, {1}} {
			out = out[:0]
			for e := math.Floor(math.Log10(s.lo)); e <= math.Log10(s.hi); e++ {
				for _, d := range digits {
					if v := d * math.Pow(10, e); v >= s.lo && v <= s.hi {
						out = append(out, v)
					}
				}
			}
			if len(out) <= 8 {
				break
			}
		}
		return out
	}
	step := math.Pow(10, math.Floor(math.Log10((s.hi-s.lo)/5)))
	for _, m := range []float64{1, 2, 5, 10} {
		if (s.hi-s.lo)/(step*m) <= 6 {
			step *= m
			break
		}
	}
	for i := math.Ceil(s.lo / step); i*step <= s.hi; i++ {
		out = append(out, i*step)
	}
	return out
}

// short prints a value for an axis: 64k, 1M.
func short(v float64) string {
	a := math.Abs(v)
	switch {
	case a >= 1e6:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", v/1e6), ".0") + "M"
	case a >= 10000, a >= 1000 && v == math.Trunc(v/1000)*1000:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", v/1e3), ".0") + "k"
	case a >= 0.1 || a == 0:
		return strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", v), "0"), ".")
	}
	return perf.Number(v)
}

// binary prints powers of two in their own units, as numbers of flows are meant: 65536 is 64k.
func binary(v float64) string {
	for _, u := range []struct {
		size float64
		name string
	}{{1 << 20, "M"}, {1 << 10, "k"}} {
		if n := v / u.size; n >= 1 && n == math.Trunc(n) {
			return fmt.Sprintf("%.0f%s", n, u.name)
		}
	}
	return short(v)
}

// legendLines breaks the names of the series into lines that fit. An unnamed series needs no legend.
func (c *chart) legendLines() [][]int {
	var lines [][]int
	used := width
	for i, s := range c.series {
		if s.name == "" {
			continue
		}
		w := legendWidth(s.name)
		if used+w > width-left {
			lines, used = append(lines, nil), 0
		}
		lines[len(lines)-1] = append(lines[len(lines)-1], i)
		used += w
	}
	return lines
}

func legendWidth(name string) int { return 26 + 7*len([]rune(name)) }

func (c *chart) drawLegend(b *strings.Builder, lines [][]int) {
	for l, line := range lines {
		x, y := left, height+c.lean()+legend*l+4
		for _, i := range line {
			fmt.Fprintf(b, `<rect x="%d" y="%d" width="12" height="10" fill="%s"/>`, x, y-5, colour(i))
			fmt.Fprintf(b, `<text x="%d" y="%d">%s</text>`, x+17, y+4, html.EscapeString(c.series[i].name))
			x += legendWidth(c.series[i].name)
		}
	}
}
