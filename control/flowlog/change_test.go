package flowlog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestChange changes an open log, and does not.
func TestChange(t *testing.T) {
	c := &clock{epoch}
	l, path := openTest(t, Options{FlowSample: 1, FlowRate: 1}, c)
	have := Options{Output: path, FlowSample: 1, FlowRate: 1}
	other := filepath.Join(filepath.Dir(path), "other")
	for want, o := range map[string]Options{
		`"loud" is none of`:  {Output: other, FlowSample: 1, Level: "loud"},
		"flow_rate -1":       {Output: other, FlowSample: 1, FlowRate: -1},
		"flow_sample cannot": {Output: other},
		"none/log":           {Output: other + "/none/log", FlowSample: 1},
	} {
		if _, err := l.Prepare(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want …%s…", o, err, want)
		}
	}
	if _, err := os.Lstat(other); err == nil {
		t.Error("a change that was refused has made a file")
	}
	change := func(o Options, end func(*Change) error) {
		t.Helper()
		ch, err := l.Prepare(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := end(ch); err != nil {
			t.Error(err)
		}
	}
	change(Options{Output: other, Level: "error", FlowSample: 1}, (*Change).Discard)
	l.Emit(LinkUp{"before"})
	change(have, (*Change).Apply) // nothing changes
	l.Emit(LinkUp{"before"})
	change(Options{Output: other, Level: "warn", FlowSample: 1, FlowRate: 3}, (*Change).Apply)
	l.Emit(LinkUp{"not wanted"})
	l.Emit(LinkDown{Interface: "after"})
	change(Options{Output: other, FlowSample: 1, FlowRate: 3}, (*Change).Apply)
	c.t = c.t.Add(time.Second)
	for range 5 {
		l.FlowNew(testFlow())
	}
	if got := lines(t, path); len(got) != 2 || got[0]["interface"] != "before" {
		t.Errorf("before: %v", got)
	}
	if got := lines(t, other); len(got) != 4 || got[0]["interface"] != "after" || got[3]["event"] != "flow.new" {
		t.Errorf("after: %v", got)
	}
	// Back to the first, which is gone on with, and rotated from then on.
	change(have, (*Change).Apply)
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	l.Emit(LinkUp{"again"})
	if got := lines(t, path); len(got) != 1 || len(lines(t, other)) != 4 {
		t.Errorf("again: %v", got)
	}
	change(Options{Output: "stderr", Level: "error", FlowSample: 1}, (*Change).Apply)
	l.Emit(LinkUp{"not wanted"})
	change(have, (*Change).Apply) // standard error stays open
	if _, err := os.Stderr.Stat(); err != nil {
		t.Error(err)
	}
}
