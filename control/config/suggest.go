package config

import (
	"fmt"
	"slices"
	"strings"
)

// nearest returns the candidate that word is most likely a slip of, or "" when none is close: at
// most a third of its letters, and at least one, may differ.
func nearest(word string, candidates []string) string {
	if len(word) > 64 { // no key or value is that long, and distance is quadratic
		return ""
	}
	best, limit := "", max(1, len(word)/3)+1
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), c); d < limit {
			best, limit = c, d
		}
	}
	return best
}

// distance counts insertions, deletions, substitutions and swaps of neighbours that turn a
// into b (optimal string alignment): swapped letters are the commonest slip.
func distance(a, b string) int {
	before, last := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last = last, row
	}
	return last[len(b)]
}

// Suggest words the remedy for a word that is none of the choices, of which there must be one: the nearest of them, and all, or as many as one reads.
func Suggest(word string, choices []string) string {
	const most = 40
	if len(choices) <= most {
		return choose(word, choices)
	}
	rest := fmt.Sprintf("%s and %d more", sorted(choices[:most]), len(choices)-most)
	if near := nearest(word, choices); near != "" {
		return "did you mean " + near + "? (possible: " + rest + ")"
	}
	return "use one of " + rest
}

// sorted lists choices so that a reader finds one: in the order of the alphabet.
func sorted(choices []string) string {
	return strings.Join(slices.Sorted(slices.Values(choices)), ", ")
}

// elsewhere are words of ipvsadm, keepalived, ip link and YAML for what has another name here.
var elsewhere = map[string]string{
	"true": "on", "yes": "on", "false": "off", "no": "off",
	"masq": "nat", "masquerade": "nat", "masquerading": "nat",
	"direct": "dr", "droute": "dr", "gate": "dr", "gatewaying": "dr", "route": "dr",
	"tunnel": "tun", "tunneling": "tun", "tunnelling": "tun", "ipip": "tun",
	"skb": "generic", "drv": "native", "warning": "warn", "zero-copy": "zerocopy",
}

// choose words the remedy for a word that is none of the choices.
func choose(word string, choices []string) string {
	if len(choices) == 1 {
		return "use " + choices[0]
	}
	list := sorted(choices)
	for _, near := range []string{elsewhere[strings.ToLower(word)], nearest(word, choices)} {
		if !slices.Contains(choices, near) {
			continue
		}
		return "did you mean " + near + "? (possible: " + list + ")"
	}
	return "use one of " + list
}
