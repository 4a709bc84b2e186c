package control

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"xlvs/dataplane/flow"
)

// Flow events come with the names that their backends have now, or had last.
func TestFlowEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := started(t, services(web))
		w.result(true, "10.1.0.2:80")
		w.settle()
		w.traffic(40000, 2)
		w.drainEvents(false)
		l := w.lines("flow.new")
		want := line{"level": "info", "event": "flow.new", "v": 1.0, "worker": 0.0, "service": "web", "backend": "b", "mode": "nat",
			"protocol": "tcp", "client": "198.51.100.7", "client_port": 40000.0, "vip": "203.0.113.10", "vip_port": 80.0,
			"server": "10.1.0.2", "server_port": 80.0, "time": w.engine.Started().UTC().Format("2006-01-02T15:04:05.000000Z")}
		if len(l) != 2 || fmt.Sprint(l[0]) != fmt.Sprint(want) {
			t.Fatalf("%v\nwant %v", l, want)
		}
		must(t, w.reload(parse(t, services(edit("name: b,", "name: z,", "name: web", "name: site")))))
		w.end()
		w.drainEvents(false)
		if got := said(w.lines("flow.end"), "service", "backend", "packets", "state"); !slices.Equal(got, []string{"flow.end site z 1 syn_recv", "flow.end site z 1 syn_recv"}) {
			t.Errorf("%q", got)
		}
		w.traffic(41000, 1) // b is z now
		must(t, w.reload(parse(t, services(edit("      - {name: b, address: 10.1.0.2}\n", "")))))
		w.end()
		w.drainEvents(false)
		if got := said(w.lines("flow.end")[2:], "backend"); !slices.Equal(got, []string{"flow.end z"}) {
			t.Errorf("of a backend that was removed: %q", got)
		}
	})
}

// end lets time pass until all flows have expired.
func (w *world) end() {
	time.Sleep(5 * time.Minute)
	for range 5000 {
		w.step()
	}
	if n := w.engine.FlowTable(0).Used; n != 0 {
		w.t.Fatalf("%d flows are left", n)
	}
}

// Names are kept for as long as a flow may have them, and not for ever.
func TestNamesAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := started(t, services(web))
		for i := range 3 {
			must(t, w.reload(parse(t, services(edit("10.1.0.2", fmt.Sprintf("10.1.0.%d", 100+i))))))
		}
		if n := len(w.names); n != 6 {
			t.Errorf("%d names", n)
		}
		time.Sleep(w.backendSlots.rest + time.Second)
		must(t, w.reload(parse(t, services(web))))
		// The one of just before goes with the next reload but one.
		if n := len(w.names); n != 4 {
			t.Errorf("%d names, want 4", n)
		}
	})
}

// A flood of events does not keep the loop; the end takes them all.
func TestDrainIsBounded(t *testing.T) {
	w := started(t, services(web))
	w.result(true, "10.1.0.2:80")
	w.settle()
	w.traffic(1024, 600)
	w.drain.atOnce = 256
	w.drainEvents(false)
	if n := len(w.lines("flow.new")); n != 256 {
		t.Errorf("%d events in one go", n)
	}
	w.drainEvents(true)
	if n := len(w.lines("flow.new")); n != 600 {
		t.Errorf("%d events at the end", n)
	}
}

func TestSummary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := started(t, services(web)) // nobody is up: SYNs are dropped
		w.drainEvents(false)
		w.traffic(40000, 3)
		w.drainEvents(false)
		if l := w.lines("drop.summary"); len(l) != 0 {
			t.Errorf("before its time: %v", l)
		}
		time.Sleep(summaryEvery)
		w.drainEvents(false)
		w.traffic(40100, 2)
		w.path.shed[1].Store(70)
		time.Sleep(summaryEvery)
		w.drainEvents(false)
		time.Sleep(summaryEvery)
		w.drainEvents(false)
		w.path.shed[0].Store(5)
		w.path.shed[1].Store(72)
		time.Sleep(summaryEvery)
		w.drainEvents(false)
		want := []string{"drop.summary 10000 3 map[no_backend:3]", "drop.summary 10000 72 map[no_backend:2 shed:70]", "drop.summary 10000 7 map[shed:7]"}
		if got := said(w.lines("drop.summary"), "interval_ms", "packets", "reasons"); !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
		w.result(true, "10.1.0.2:80")
		w.settle()
		w.traffic(1, 1500) // the ring holds 1024, and the table 1024 flows
		time.Sleep(summaryEvery)
		w.drainEvents(false)
		lost := w.engine.Worker(0).EventsLost
		if got := said(w.lines("events.lost"), "worker", "count"); lost == 0 || !slices.Equal(got, []string{fmt.Sprint("events.lost 0 ", lost)}) {
			t.Errorf("%q, the worker lost %d", got, lost)
		}
	})
}

func TestProtocolOf(t *testing.T) {
	if protocolOf(flow.StateUDP) != "udp" || protocolOf(flow.StateEstablished) != "tcp" {
		t.Error("an event without a name is of the wrong protocol")
	}
}
