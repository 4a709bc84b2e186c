package demo

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// good is a result as it has to be.
func good() *Result {
	r := &Result{Kill: Kill{
		Service: "web-dr-v4", Backend: "dr1", DownMS: 300, LastSentMS: 290, Slots: 65537, SlotsMoved: 21857,
		Requests: 1000, FailedAtDead: 20, ServedByDead: 200, Kept: 40, UpMS: 300, SlotsMovedBack: 21857, FirstAgainMS: 310,
	}}
	for _, mode := range []string{"dr", "tun", "nat"} {
		for _, family := range []string{"IPv4", "IPv6"} {
			row := Row{Mode: mode, Family: family, Requests: 2000, Backends: map[string]int{mode + "1": 700, mode + "2": 650, mode + "3": 650},
				ToDirector: Traffic{16_000, 1_200_000}, ToClient: Traffic{26_000, 22_000_000}}
			if mode == "nat" {
				row.Crossed = row.ToClient
			}
			r.Rows = append(r.Rows, row)
		}
	}
	return r
}

func TestFaults(t *testing.T) {
	if f := good().Faults(); len(f) > 0 {
		t.Errorf("a good result has faults: %v", f)
	}
	for _, c := range []struct {
		spoil func(*Result)
		want  string
	}{
		{func(r *Result) { r.Rows[1].Failures, r.Rows[1].Error = 3, "timeout" }, "dr IPv6: 3 of 2000 requests failed: timeout"},
		{func(r *Result) { r.Rows[2].Crossed.Packets = 7 }, "tun IPv4: 7 replies crossed the director"},
		{func(r *Result) { r.Rows[5].Crossed = Traffic{} }, "nat IPv6: no reply crossed the director"},
		{func(r *Result) { r.Kill.LastSentMS = 1001 }, "dr1 was sent a new connection 1001 ms after it had died"},
		{func(r *Result) { r.Kill.FailedAtOthers = 1 }, "1 requests failed that were not sent to dr1"},
		{func(r *Result) { r.Kill.Misrouted = 2 }, "2 requests were answered by another backend than the log names"},
		{func(r *Result) { r.Kill.Moved = 1 }, "of 40 connections kept open to the other backends 1 broke or moved"},
		{func(r *Result) { r.Kill.Kept = 0 }, "no connection was kept open to the other backends"},
		{func(r *Result) { r.Kill.FirstAgainMS = 0 }, "dr1 was sent nothing after it had come back"},
	} {
		r := good()
		c.spoil(r)
		if got := r.Faults(); !slices.Equal(got, []string{c.want}) {
			t.Errorf("faults %q, want %q alone", got, c.want)
		}
	}
}

func TestReportIsAligned(t *testing.T) {
	var b strings.Builder
	r := good()
	r.printRows(&b)
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 9 {
		t.Fatalf("%d lines:\n%s", len(lines), &b)
	}
	for _, l := range lines[1:8] {
		if n := utf8.RuneCountInString(l); n != 119 {
			t.Errorf("%d columns, want 119: %q", n, l)
		}
	}
	b.Reset()
	r.Kill.print(&b)
	const column = 49 // where values begin
	for line := range strings.Lines(b.String()) {
		if len(line) < column || line[column-1] != ' ' || line[column] == ' ' {
			t.Errorf("the value does not begin in column %d: %q", column, line)
		}
	}
}

func TestEvents(t *testing.T) {
	d := &Director{Log: filepath.Join(t.TempDir(), "log.json")}
	if _, err := d.Events(); err == nil {
		t.Error("a missing log is no error")
	}
	write := func(text string) {
		if err := os.WriteFile(d.Log, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`{"time":"2026-02-03T04:05:06.789012Z","event":"flow.new","backend":"dr1","client_port":40000}` + "\n" + `{"time":"2026-`)
	events, err := d.Events()
	if err != nil || len(events) != 1 || events[0].ClientPort != 40000 || events[0].Backend != "dr1" || events[0].Time.Nanosecond() != 789012000 {
		t.Errorf("%+v, %v", events, err)
	}
	write("no JSON\n")
	if _, err := d.Events(); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("a broken log: %v", err)
	}
}

func TestPortsRunOut(t *testing.T) {
	p := &ports{}
	for want := firstPort; want <= lastPort; want++ {
		if got, err := p.take(); err != nil || int(got) != want {
			t.Fatalf("port %d, %v; want %d", got, err, want)
		}
	}
	if _, err := p.take(); err == nil {
		t.Error("a port was handed out twice")
	}
}
