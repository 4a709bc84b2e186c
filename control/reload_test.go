package control

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"xlvs/dataplane/flow"
	"xlvs/dataplane/steer"
	"xlvs/dataplane/table"
)

const (
	health5 = "{type: tcp, interval: 5s}"
	web     = `
  - name: web
    address: 203.0.113.10
    port: 80
    protocol: tcp
    forward: nat
    table_size: 251
    health: {type: tcp}
    backends:
      - {name: a, address: 10.1.0.1}
      - {name: b, address: 10.1.0.2}
      - {name: c, address: 10.1.0.3}
`
	other = `
  - name: other
    address: 203.0.113.11
    port: 80
    protocol: tcp
    forward: nat
    table_size: 251
    health: {type: tcp}
    backends:
      - {name: x, address: 10.1.0.1}
      - {name: y, address: 10.1.0.9}
`
)

func services(list ...string) string { return head + "services:" + strings.Join(list, "") }

func edit(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(web) }

// TestReload goes from one configuration to another and looks at what workers have then. All backends are up before.
func TestReload(t *testing.T) {
	for _, c := range []struct {
		name     string
		from, to string
		kept     []string // service/backend, whose flows stay; the rest of what was there is gone
		takes    string   // backends of web for new flows, at once
		tables   int      // lines of table.published
		lines    []string // of backends
	}{
		{name: "nothing", from: web, to: web, kept: []string{"web/a", "web/b", "web/c"}, takes: "abc"},
		{name: "order", from: web + other, to: other + web, kept: []string{"web/a", "web/b", "web/c", "other/x", "other/y"}, takes: "abc"},
		{name: "backend added", from: web, to: web + "      - {name: d, address: 10.1.0.4}\n", kept: []string{"web/a", "web/b", "web/c"}, takes: "abc"},
		{name: "backend removed", from: web, to: edit("      - {name: b, address: 10.1.0.2}\n", ""), kept: []string{"web/a", "web/c"}, takes: "ac", tables: 1},
		{name: "backend renamed", from: web, to: edit("name: b,", "name: z,"), kept: []string{"web/a", "web/z", "web/c"}, takes: "acz", tables: 1},
		{name: "backend's address", from: web, to: edit("10.1.0.2", "10.1.0.7"), kept: []string{"web/a", "web/c"}, takes: "ac", tables: 1},
		{name: "backend's port", from: web, to: edit("10.1.0.2", "10.1.0.2, port: 81"), kept: []string{"web/a", "web/c"}, takes: "ac", tables: 1},
		{name: "weight", from: web, to: edit("10.1.0.2", "10.1.0.2, weight: 3"), kept: []string{"web/a", "web/b", "web/c"}, takes: "abc", tables: 1},
		{name: "weight 0", from: web, to: edit("10.1.0.2", "10.1.0.2, weight: 0"), kept: []string{"web/a", "web/b", "web/c"}, takes: "ac", tables: 1},
		{name: "all weights 0", from: web, to: edit("10.1.0.2", "10.1.0.2, weight: 0", "0.1}", "0.1, weight: 0}", "0.3}", "0.3, weight: 0}"),
			kept: []string{"web/a", "web/b", "web/c"}, takes: "", tables: 1},
		{name: "table size", from: web, to: edit("251", "257"), kept: []string{"web/a", "web/b", "web/c"}, takes: "abc", tables: 1},
		{name: "service renamed", from: web + other, to: web + strings.Replace(other, "name: other", "name: another", 1),
			kept: []string{"web/a", "web/b", "web/c", "another/x", "another/y"}, takes: "abc"},
		{name: "service added", from: web, to: web + other, kept: []string{"web/a", "web/b", "web/c"}, takes: "abc"},
		{name: "service removed", from: web + other, to: web, kept: []string{"web/a", "web/b", "web/c"}, takes: "abc"},
		{name: "service replaced", from: other, to: web, takes: "a"},                      // whose check is known
		{name: "service's port", from: web, to: edit("port: 80", "port: 443"), takes: ""}, // its checks go elsewhere
		{name: "service's address", from: web, to: edit("203.0.113.10", "203.0.113.12"), takes: "abc", tables: 1},
		{name: "mode", from: web, to: edit("nat", "dr"), takes: "abc", tables: 1},
		{name: "protocol", from: web, to: edit("protocol: tcp", "protocol: udp"), takes: "abc", tables: 1},
		{name: "sloppy_tcp", from: web, to: edit("    table_size", "    sloppy_tcp: true\n    table_size"), kept: []string{"web/a", "web/b", "web/c"}, takes: "abc"},
		{name: "interval of checks", from: web, to: edit("{type: tcp}", health5), kept: []string{"web/a", "web/b", "web/c"}, takes: "abc"},
		{name: "another check", from: web, to: edit("{type: tcp}", "{type: http, port: 8080}"), kept: []string{"web/a", "web/b", "web/c"}, takes: "abc"},
		{name: "no check any more", from: web, to: edit("    health: {type: tcp}\n", ""), kept: []string{"web/a", "web/b", "web/c"}, takes: "abc"},
		{name: "a check from now on", from: edit("    health: {type: tcp}\n", ""), to: web, kept: []string{"web/a", "web/b", "web/c"}, takes: "abc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := started(t, services(c.from))
			for id, target := range w.check.targets {
				w.result(true, target.Addr.String())
				_ = id
			}
			w.settle()
			before := w.refs()
			mark, lines := len(w.lines("table.published")), len(w.lines(""))
			generation := w.generation
			must(t, w.reload(parse(t, services(c.to))))
			w.writeLines()
			w.path.check()
			after := w.refs()
			var kept []string
			for name, r := range after {
				for _, old := range before {
					if r == old {
						kept = append(kept, name)
					}
				}
			}
			slices.Sort(kept)
			slices.Sort(c.kept)
			if !slices.Equal(kept, c.kept) {
				t.Errorf("kept %v, want %v", kept, c.kept)
			}
			if got := strings.Join(w.takes("web"), ""); got != c.takes {
				t.Errorf("new flows go to %q, want %q", got, c.takes)
			}
			if n := len(w.lines("table.published")) - mark; n != c.tables {
				t.Errorf("%d tables logged, want %d: %v", n, c.tables, w.lines("")[lines:])
			}
			if downs := len(w.lines("backend.down")); downs > 0 {
				t.Errorf("a reload took %d backends down", downs)
			}
			if same := c.name == "nothing" || c.name == "interval of checks" || c.name == "another check" || strings.Contains(c.name, "a check") ||
				c.name == "no check any more" || c.name == "order"; same != (w.generation == generation) {
				t.Errorf("generation %d, before %d", w.generation, generation)
			}
			applied := w.lines("config.applied")
			if n := applied[len(applied)-1]["generation"]; n != float64(w.generation) {
				t.Errorf("config.applied names generation %v, workers have %d", n, w.generation)
			}
			// The loop has nothing to add.
			generation = w.generation
			w.reconcile()
			if w.generation != generation {
				t.Error("a second look published another snapshot")
			}
		})
	}
}

// refs are the backends that workers know, as service/backend, with what flows call both.
func (w *world) refs() map[string][2]table.Ref {
	out := map[string][2]table.Ref{}
	s := w.engine.Snapshot()
	for _, b := range s.Backends {
		if b.Live {
			out[s.Service(b.Service).Name+"/"+b.Name] = [2]table.Ref{b.Service, b.Ref}
		}
	}
	return out
}

// What was removed is remembered for its flows, with its name in the log, until the slot is another's.
func TestFormer(t *testing.T) {
	w := started(t, services(web, other))
	v, b := w.entry("other", "y")
	must(t, w.reload(parse(t, services(web))))
	s := w.engine.Snapshot()
	fv, fb := s.Former(v.Ref, b.Ref)
	if fv == nil || fb == nil || fv.Live || fb.Live || fv.Addr != v.Addr || fb.Addr != b.Addr || s.Service(v.Ref) != nil || s.Backend(b.Ref) != nil {
		t.Errorf("former service %+v, backend %+v", fv, fb)
	}
	if n := w.names[b.Ref]; n.backend != "y" || n.gone.IsZero() {
		t.Errorf("name %+v", n)
	}
	must(t, w.reload(parse(t, services(web, other))))
	if again, _ := w.entry("other", "y"); again.Ref == v.Ref {
		t.Error("a service that was away has the slot of before: its former flows would be its own")
	}
}

// A changed check takes its state along, one that is shared is made once, and is not the former one's where that goes on.
func TestReloadChecks(t *testing.T) {
	w := started(t, services(web, other))
	if n := len(w.check.targets); n != 4 {
		t.Fatalf("%d checks for 4 hosts in 5 backends", n)
	}
	shared := w.check.ids("10.1.0.1:80")
	w.result(true, "10.1.0.1:80", "10.1.0.2:80", "10.1.0.3:80", "10.1.0.9:80")
	w.settle()
	ups := len(w.lines("backend.up"))
	if ups != 5 {
		t.Errorf("%d backends came up, want 5: both that share a check", ups)
	}
	must(t, w.reload(parse(t, services(edit("{type: tcp}", health5), other))))
	now := w.check.ids("10.1.0.1:80")
	if len(now) != 2 || !slices.Contains(now, shared[0]) {
		t.Errorf("checks of the shared host: %v, before %v", now, shared)
	}
	if id := w.check.targets[shared[0]]; id.Spec.Interval != 2*time.Second {
		t.Errorf("the check that goes on has interval %v", id.Spec.Interval)
	}
	if ids := w.check.ids("10.1.0.2:80"); len(ids) != 1 || w.check.targets[ids[0]].Spec.Interval != 5*time.Second || !w.check.status[ids[0]].Known {
		t.Errorf("the check of b: %v, state %+v", ids, w.check.status)
	}
	if got := strings.Join(w.takes("web"), ""); got != "abc" {
		t.Errorf("new flows go to %q", got)
	}
	// Of the host with two checks, each decides for its own service.
	for _, id := range now {
		if id != shared[0] {
			w.check.mu.Lock()
			delete(w.check.targets, shared[0])
			w.check.mu.Unlock()
		}
	}
	w.result(false, "10.1.0.1:80")
	w.settle()
	if got, rest := strings.Join(w.takes("web"), ""), strings.Join(w.takes("other"), ""); got != "bc" || rest != "xy" {
		t.Errorf("new flows go to %q and %q", got, rest)
	}
	if len(w.lines("backend.up")) != ups {
		t.Error("a reload logged backends as coming up that were up")
	}
}

// Dropping the check of a backend that is down brings it up, and says so.
func TestReloadWithoutCheck(t *testing.T) {
	w := started(t, services(web))
	w.result(false, "10.1.0.1:80", "10.1.0.2:80", "10.1.0.3:80")
	w.settle()
	must(t, w.reload(parse(t, services(edit("    health: {type: tcp}\n", "")))))
	w.writeLines()
	if got := strings.Join(w.takes("web"), ""); got != "abc" || len(w.lines("backend.up")) != 3 {
		t.Errorf("new flows go to %q, log %v", got, said(w.lines("backend.up"), "backend", "reason"))
	}
	// What the checks that are gone still had to say is nobody's business.
	stale := w.inbox.take()
	if len(stale) != 0 {
		t.Fatal("the test is wrong")
	}
	mark := w.generation
	w.inbox.put(healthUpdate("1", false))
	w.settle()
	if w.generation != mark {
		t.Error("a result of a check that is gone changed something")
	}
}

// TestReloadFails has the kernel refuse each of its steps: what ran goes on, flows and all.
func TestReloadFails(t *testing.T) {
	next := services(edit("nat", "dr", "10.1.0.2", "10.1.0.7"), strings.Replace(other, "203.0.113.11", "203.0.113.30", 1))
	for step := 1; ; step++ {
		w := started(t, services(web, other))
		w.result(true, "10.1.0.1:80", "10.1.0.2:80", "10.1.0.3:80", "10.1.0.9:80")
		w.settle()
		before, rules := w.refs(), w.path.rules
		n := 0
		w.path.fail = func(steer.Rules) error {
			if n++; n == step {
				return errRefused
			}
			return nil
		}
		w.order = nil
		err := w.reload(parse(t, next))
		if n < step {
			if step == 1 {
				t.Error("no rules were changed")
			}
			must(t, err)
			return
		}
		if !errors.Is(err, errRefused) || !strings.Contains(err.Error(), "the old one stays in force") {
			t.Fatalf("step %d: %v", step, err)
		}
		w.writeLines()
		w.path.check()
		if after := w.refs(); fmt.Sprint(after) != fmt.Sprint(before) {
			t.Errorf("step %d: backends %v, before %v", step, after, before)
		}
		if !sameRules(w.path.rules, rules) {
			t.Errorf("step %d: rules %v, before %v", step, w.path.rules, rules)
		}
		if a, b := strings.Join(w.takes("web"), ""), strings.Join(w.takes("other"), ""); a != "abc" || b != "xy" {
			t.Errorf("step %d: new flows go to %q and %q", step, a, b)
		}
		if slices.Contains(w.order, "health") {
			t.Errorf("step %d: checks were changed", step)
		}
		if len(w.neigh.wants) != 4 {
			t.Errorf("step %d: next hops wanted: %v", step, w.neigh.wants)
		}
		if len(w.lines("config.applied")) != 1 {
			t.Errorf("step %d: a configuration that was refused is logged as applied", step)
		}
		must(t, w.reload(parse(t, next))) // and later it can be had
	}
}

// If the way back fails as well, the loop goes on trying.
func TestReloadFailsTwice(t *testing.T) {
	w := started(t, services(web))
	w.path.fail = func(steer.Rules) error { return errRefused }
	if err := w.reload(parse(t, services(web, other))); !errors.Is(err, errRefused) {
		t.Fatal(err)
	}
	w.writeLines()
	if l := w.lines("control.warning"); len(l) != 1 {
		t.Errorf("warnings %v", l)
	}
	w.path.fail = nil
	w.reconcile()
	w.path.check()
	if len(w.refs()) != 3 || len(w.path.rules.Services) != 1 || len(w.warned) != 0 {
		t.Errorf("backends %v, rules %v, warned %v", w.refs(), w.path.rules, w.warned)
	}
}

func TestReloadRefuses(t *testing.T) {
	w := started(t, services(web))
	for want, text := range map[string]string{
		"director: flows has changed from 1048576 to 4096": "director: {flows: 4096}\n" + services(web),
		"interface eth2: it is new":                        strings.Replace(services(web), "{name: eth1}", "{name: eth2}", 1),
	} {
		if err := w.reload(parse(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want …%s…", err, want)
		}
	}
	must(t, w.reload(parse(t, "director: {timeouts: {established: 2h}}\n"+services(web))))
	if w.engine.Snapshot().Timeouts == timeouts(&parse(t, services(web)).Director.Timeouts) {
		t.Error("new timeouts are not in force")
	}
	if w.backendSlots.rest != 2*time.Hour+slotRest || w.serviceSlots.rest != w.backendSlots.rest {
		t.Errorf("slots rest for %v: shorter than flows live", w.backendSlots.rest)
	}
}

// A reload gives the flows of a service other timeouts, and those of a service that it removes keep theirs, which its slot waits for.
func TestReloadTimeouts(t *testing.T) {
	own := strings.Replace(web, "    forward:", "    timeouts: {established: 3h}\n    forward:", 1)
	if own == web {
		t.Fatal("the service has changed")
	}
	w := started(t, services(web, other))
	ref := w.services[0].ref
	established := func() time.Duration {
		return time.Duration(w.engine.Snapshot().TimeoutsOf(ref)[flow.StateEstablished]) * time.Millisecond
	}
	for _, step := range []struct {
		conf string
		want time.Duration
	}{
		{services(web, other), 15 * time.Minute},
		{services(own, other), 3 * time.Hour},
		{"director: {timeouts: {established: 1h, syn_recv: 5s}}\n" + services(own, other), 3 * time.Hour},
		{services(other), 3 * time.Hour},
	} {
		must(t, w.reload(parse(t, step.conf)))
		if got := established(); got != step.want {
			t.Errorf("established flows live for %v, want %v, with\n%s", got, step.want, step.conf)
		}
	}
	if w.serviceSlots.rest != 3*time.Hour+slotRest {
		t.Errorf("slots rest for %v, and flows of the service that was removed live for 3h", w.serviceSlots.rest)
	}
}

// Neighbours come before checks at the start, and after them at the end.
func TestOrder(t *testing.T) {
	w := started(t, services(web))
	if len(w.order) < 2 || w.order[0] != "neigh" || w.order[len(w.order)-1] != "health" {
		t.Errorf("order at the start: %v", w.order)
	}
	w.order = nil
	must(t, w.Close())
	if !slices.Equal(w.order, []string{"health closed", "announce closed", "neigh closed"}) {
		t.Errorf("order at the end: %v", w.order)
	}
}
