package flowlog

import (
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestOptions(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name string
		o    Options
		want string // part of the error; empty: none
	}{
		{"defaults", Options{}, ""},
		{"stdout", Options{Output: "stdout", Level: "warn"}, ""},
		{"level", Options{Level: "loud"}, `"loud" is none of`},
		{"a level of zap's own", Options{Level: "fatal"}, `"fatal" is none of`},
		{"negative sample", Options{FlowSample: -1}, "flow_sample -1"},
		{"negative rate", Options{FlowRate: -1}, "flow_rate -1"},
		{"no such directory", Options{Output: dir + "/missing/xlvs.log"}, "missing/xlvs.log"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := New(c.o)
			if err == nil {
				defer l.Close()
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error is %v, want %q", err, c.want)
			}
		})
	}
}

func TestLevelFilters(t *testing.T) {
	l, path := openTest(t, Options{Level: "warn", FlowSample: 1}, &clock{epoch})
	l.Emit(LinkUp{"eth0"})
	l.Emit(LinkDown{Interface: "eth0"})
	l.FlowNew(testFlow())
	l.ReportSuppressed()
	got := lines(t, path)
	if len(got) != 1 || got[0]["event"] != "link.down" {
		t.Errorf("a log of level warn holds %v", got)
	}
}

// A log of errors only tells how a director failed, and not that one was stopped.
func TestStopByError(t *testing.T) {
	l, path := openTest(t, Options{Level: "error"}, &clock{epoch})
	l.Emit(DirectorStop{Reason: "SIGTERM"})
	l.Emit(DirectorStop{Reason: "no such interface", Failed: true})
	got := lines(t, path)
	if len(got) != 1 || got[0]["level"] != "error" || got[0]["reason"] != "no such interface" {
		t.Errorf("the log holds %v", got)
	}
}

func flowFrom(i int) FlowRecord {
	f := testFlow()
	f.Client = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i >> 8)}), uint16(1024+i))
	return f
}

func TestNoSampleMeansNoFlows(t *testing.T) {
	l, path := openTest(t, Options{}, &clock{epoch})
	l.FlowNew(testFlow())
	l.FlowEnd(FlowEndRecord{FlowRecord: testFlow()})
	l.ReportSuppressed()
	if got := lines(t, path); len(got) != 0 {
		t.Errorf("flow_sample 0 wrote %v", got)
	}
}

func TestRateLimit(t *testing.T) {
	c := &clock{epoch}
	l, path := openTest(t, Options{FlowSample: 1, FlowRate: 5}, c)
	for i := range 20 {
		l.FlowNew(flowFrom(i))
	}
	c.t = c.t.Add(time.Second)
	for i := range 20 {
		l.FlowNew(flowFrom(i))
	}
	c.t = c.t.Add(9 * time.Second)
	l.ReportSuppressed()
	l.ReportSuppressed()

	got := lines(t, path)
	if len(got) != 11 {
		t.Fatalf("want 2 × 5 flows and one report, have %d lines", len(got))
	}
	report := got[10]
	if report["event"] != "log.suppressed" || report["rate_limited"] != float64(30) ||
		report["flow_sample"] != float64(1) || report["interval_ms"] != float64(10000) {
		t.Errorf("report is %v", report)
	}
}

func TestFlowTimeIsTheWorkers(t *testing.T) {
	l, path := openTest(t, Options{FlowSample: 1}, &clock{epoch})
	f := testFlow()
	f.Time = epoch.Add(-time.Second)
	l.FlowNew(f)
	if got := lines(t, path)[0]["time"]; got != "2026-02-03T04:05:05.789012Z" {
		t.Errorf("flow.new is stamped %v", got)
	}
}

// TestReopen does what logrotate does, with writers at work: no line may be lost or torn.
func TestReopen(t *testing.T) {
	l, path := openTest(t, Options{}, &clock{epoch})
	const writers, each = 4, 200
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range each {
				l.Emit(LinkUp{"eth0"})
			}
		})
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	l.Emit(LinkDown{Interface: "eth0"})
	old, now := lines(t, path+".1"), lines(t, path)
	if len(old)+len(now) != writers*each+1 {
		t.Errorf("%d lines before and %d after the rotation, %d written", len(old), len(now), writers*each+1)
	}
	if now[len(now)-1]["event"] != "link.down" {
		t.Error("the event after the rotation is not in the new file")
	}
}

func TestReopenFailureKeepsTheFile(t *testing.T) {
	l, path := openTest(t, Options{}, &clock{epoch})
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := l.Reopen(); err == nil {
		t.Fatal("opening a directory for writing succeeded")
	}
	l.Emit(LinkUp{"eth0"})
	if got := lines(t, path+".1"); len(got) != 1 {
		t.Errorf("the old file holds %d lines, want 1", len(got))
	}
}

func TestCloseReports(t *testing.T) {
	l, path := openTest(t, Options{FlowSample: 1, FlowRate: 1}, &clock{epoch})
	l.FlowNew(testFlow())
	l.FlowNew(testFlow())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	got := lines(t, path)
	if len(got) != 2 || got[1]["event"] != "log.suppressed" {
		t.Errorf("after Close the log holds %v", got)
	}
}

func TestNilLogDiscards(t *testing.T) {
	var l *Log
	l.Emit(LinkUp{"eth0"})
	l.FlowNew(testFlow())
	l.FlowEnd(FlowEndRecord{})
	l.ReportSuppressed()
	if l.Reopen() != nil || l.Close() != nil {
		t.Error("a nil log reports an error")
	}
}
