package datapath

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"xlvs/dataplane/xsk"
)

// A fakeTable leads to these queues; spread is what setting it gives.
type fakeTable struct {
	queues []int
	astray error // what reading it gives
	spread error
	got    []int // what it was set to
}

func (f *fakeTable) Astray(queues []int) (entries, astray int, err error) {
	for _, q := range f.queues {
		if !slices.Contains(queues, q) {
			astray++
		}
	}
	return len(f.queues), astray, f.astray
}

func (f *fakeTable) Spread(queues []int) error {
	if f.got = queues; f.spread != nil {
		f.got = nil
	}
	return f.spread
}

func TestSettle(t *testing.T) {
	const lost = "of 4 queues, 2 are served; virtual services' packets that arrive at the others are lost"
	inTurn := []int{0, 1, 2, 3, 0, 1, 2, 3}
	none := fmt.Errorf("eth0: %w", xsk.ErrNoRSS)
	for _, c := range []struct {
		name  string
		info  Info
		table fakeTable
		have  int // once attached
		set   bool
		rss   RSS
		note  string
	}{
		{"spread", Info{}, fakeTable{queues: inTurn}, 4, true, RSS{8, 4},
			"of 4 queues, 2 are served: while the director runs, all 8 entries of the RSS table lead to these (4 led to others)"},
		{"kept", Info{keepRSS: true}, fakeTable{queues: inTurn}, 4, false, RSS{}, lost + ". Keep them away: ethtool -X eth0 weight 0 1 0 1, or leave `rss: keep` out"},
		{"right already", Info{}, fakeTable{queues: []int{1, 1, 3, 1}}, 4, false, RSS{}, ""},
		{"right already, and kept", Info{keepRSS: true}, fakeTable{queues: []int{1, 1, 3, 1}}, 4, false, RSS{}, ""},
		{"cannot be set", Info{}, fakeTable{queues: inTurn, spread: errors.New("no way; go round")}, 4, false, RSS{}, lost + ": no way; go round"},
		{"cannot be read", Info{noTable: errors.New("cannot be read")}, fakeTable{}, 4, false, RSS{}, lost + ": cannot be read"},
		{"cannot be read again", Info{}, fakeTable{astray: errors.New("cannot be read")}, 4, false, RSS{}, lost + ": cannot be read"},
		{"none", Info{noTable: none}, fakeTable{}, 4, false, RSS{},
			lost + ": its driver has no RSS table; serve all queues, or give it fewer with `channels`"},
		{"all served", Info{Queues: []int{0, 1, 2, 3}}, fakeTable{queues: inTurn}, 4, false, RSS{}, ""},
		{"all served, no table", Info{Queues: []int{0, 1, 2, 3}, noTable: none}, fakeTable{}, 4, false, RSS{}, ""},
		{"all served, but attaching made more", Info{Queues: []int{0, 1, 2, 3}}, fakeTable{queues: []int{0, 1, 2, 3, 4, 5}}, 6, true, RSS{6, 2},
			"of 6 queues, 4 are served: while the director runs, all 6 entries of the RSS table lead to these (2 led to others)"},
		{"the same, no table", Info{Queues: []int{0, 1, 2, 3}, noTable: none}, fakeTable{}, 6, false, RSS{},
			"of 6 queues, 4 are served; virtual services' packets that arrive at the others are lost: eth0: its driver has no RSS table. " +
				"The others came with the steering program: `attach: generic` does without"},
	} {
		info := c.info
		info.Name, info.have, info.table = "eth0", 4, &c.table
		if info.Queues == nil {
			info.Queues = []int{3, 1}
		}
		info.settle(c.have)
		var notes []string
		if c.note != "" {
			notes = []string{c.note}
		}
		if !slices.Equal(info.Notes, notes) || info.RSS != c.rss || (c.table.got != nil) != c.set || c.set && !slices.Equal(c.table.got, info.Queues) {
			t.Errorf("%s: %q, %+v, set to %v; want %q, %+v", c.name, info.Notes, info.RSS, c.table.got, notes, c.rss)
		}
	}
}
