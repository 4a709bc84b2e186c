// Package notation writes frames as text and reads them back:
//
//	eth 02:00:00:00:00:99 > 02:00:00:00:00:01 / ip 198.51.100.7 > 203.0.113.10 ttl=63 / tcp 40000 > 80 S / "GET /"
//
// Packet cases are written in it, so that a reviewer can read them. It is also what they are judged by, so it shares no code
// with what it judges: lengths and checksums are computed here once more, straight from their RFCs.
// docs/replay.md lists layers and options.
package notation

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A layer is one part of a frame's text, taken apart.
type layer struct {
	kind string
	args []string          // what stands at a fixed place
	opts map[string]string // key=value, and a bare word as key with no value
	text string            // payload in quotes, decoded
}

// grammar says how many words of each kind of layer have a fixed place, and what may follow.
var grammar = map[string]struct {
	args int
	opts []string
}{
	"eth":    {3, []string{"type"}},
	"vlan":   {1, []string{"pcp", "type"}},
	"qinq":   {1, []string{"pcp", "type"}},
	"ip":     {3, []string{"ttl", "tos", "id", "df", "mf", "off", "proto", "len", "csum", "opts", "ihl", "label"}},
	"hopopt": {0, []string{"data", "proto"}}, "dstopt": {0, []string{"data", "proto"}},
	"routing": {0, []string{"left", "type", "data", "proto"}},
	"frag":    {0, []string{"off", "mf", "id", "proto"}},
	"tcp":     {4, []string{"seq", "ack", "win", "mss", "opts", "csum", "off", "urg"}},
	"udp":     {3, []string{"len", "csum"}},
	"icmp":    {1, []string{"id", "seq", "mtu", "rest", "csum"}},
	"gre":     {0, []string{"type", "key"}},
	"gue":     {0, []string{"proto"}},
	"hex":     {1, nil}, "pay": {1, nil}, "pad": {1, nil}, "cut": {1, nil}, "raw": {1, nil},
}

// split takes a frame's text apart.
func split(s string) ([]layer, error) {
	var ls []layer
	for rest := strings.TrimSpace(s); ; {
		part, after, err := cutLayer(rest)
		if err != nil {
			return nil, err
		}
		l, err := newLayer(part)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", strings.TrimSpace(part), err)
		}
		ls = append(ls, l)
		if after == "" {
			return ls, nil
		}
		rest = after
	}
}

// cutLayer cuts s at its first slash outside of quotes; what stands behind it is empty at the end alone.
func cutLayer(s string) (part, after string, err error) {
	s = strings.TrimSpace(s)
	n := 0
	if strings.HasPrefix(s, `"`) {
		q, err := strconv.QuotedPrefix(s)
		if err != nil {
			return "", "", fmt.Errorf("a quote is not closed: %s", s)
		}
		n = len(q)
	}
	if strings.HasSuffix(s[n:], "/") {
		return "", "", fmt.Errorf("nothing follows the last slash: %s", s)
	}
	i := strings.Index(s[n:], "/ ")
	if i < 0 {
		return s, "", nil
	}
	return s[:n+i], s[n+i+2:], nil
}

func newLayer(part string) (l layer, err error) {
	part = strings.TrimSpace(part)
	if strings.HasPrefix(part, `"`) {
		l.kind = "text"
		if l.text, err = strconv.Unquote(part); err != nil {
			return l, fmt.Errorf("text in quotes cannot be read")
		}
		return l, nil
	}
	words := strings.Fields(part)
	if len(words) == 0 {
		return l, fmt.Errorf("the layer is empty")
	}
	l.kind, l.opts = words[0], map[string]string{}
	g, ok := grammar[l.kind]
	if !ok {
		return l, fmt.Errorf("there is no layer %q", l.kind)
	}
	if len(words)-1 < g.args {
		return l, fmt.Errorf("something is missing")
	}
	l.args = words[1 : 1+g.args]
	if g.args >= 3 && l.args[1] != ">" {
		return l, fmt.Errorf("there must be a > between source and destination")
	}
	for _, w := range words[1+g.args:] {
		key, value, _ := strings.Cut(w, "=")
		if !slices.Contains(g.opts, key) {
			return l, fmt.Errorf("%s has no option %q; it has %s", l.kind, key, strings.Join(g.opts, ", "))
		}
		l.opts[key] = value
	}
	return l, nil
}

func (l *layer) has(key string) bool {
	_, ok := l.opts[key]
	return ok
}
