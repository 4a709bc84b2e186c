package wire

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"xlvs/dataplane/table"
	"xlvs/perf"
	"xlvs/testenv"
	"xlvs/testenv/demo"
)

var failover = perf.Scenario{
	Name: "failover", Root: true,
	Short: "on the wire: a backend's death to its last new connection, packets lost while tables are rebuilt",
	Run:   runFailover,
	Plots: []perf.Plot{
		{Title: "From a backend's death", Note: "Two failed checks, 200 ms apart, take a backend down.",
			Metric: []string{"declared_down", "last_new_connection"}, X: "case"},
	},
}

func runFailover(ctx context.Context, r *perf.Run) error {
	rebuilt, err := rebuilds(ctx, r)
	if err != nil {
		return err
	}
	for _, c := range rebuilt {
		c.report(r)
	}
	return drills(ctx, r)
}

// A rebuilding is a stream through a director whose tables are, or are not, exchanged all the time.
type rebuilding struct {
	every time.Duration // 0: never
	got   figures
}

func (c *rebuilding) params() map[string]any {
	name := "same table"
	if c.every > 0 {
		name = fmt.Sprintf("new table every %v", c.every)
	}
	return map[string]any{"case": name, "flows": manyFlows, "rate": rebuildRate}
}

func (c *rebuilding) report(r *perf.Run) {
	for _, m := range []struct{ name, unit string }{
		{"dropped_by_director", "packets"}, {"lost_on_the_way", "packets"}, {"sent", "packets"}, {"tables", "tables"},
	} {
		r.Record(c.params(), m.name, m.unit, c.got[m.name])
	}
}

const (
	rebuildRate  = 200_000 // far from what the director can carry: what is lost is lost by exchanging tables
	rebuildEvery = 20 * time.Millisecond
)

// rebuilds measures with and without new tables, in turn, so that what other programs on the machine cause is seen in both.
func rebuilds(ctx context.Context, r *perf.Run) (all []*rebuilding, err error) {
	c, restore, err := claimCores()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, restore()) }()
	all = []*rebuilding{{every: rebuildEvery, got: figures{}}, {got: figures{}}}
	length := 3 * time.Second
	if r.Quick {
		length = 500 * time.Millisecond
	}
	for round := range min(r.Runs, howHard(r.Quick).rounds) {
		for i, one := range all {
			r.Progress(2*round+i, 3*r.Runs, fmt.Sprint(one.params()["case"]))
			if err := one.measure(ctx, c, length); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

// measure streams frames of established flows through a director.
func (c *rebuilding) measure(ctx context.Context, on cores, length time.Duration) (err error) {
	d := &director{polling: polling{receive: busyPoll}, backends: rebuildBackends}
	b, err := newBench(ctx, on, d, load{flows: manyFlows, size: minFrame})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	drops := d.drops()
	ctx, cancel := context.WithCancel(ctx)
	var tables int
	var publishing error
	var wg sync.WaitGroup
	if c.every > 0 {
		wg.Go(func() { tables, publishing = d.exchange(ctx, b.rig, c.every) })
	}
	o, err := b.stream(ctx, trial{rate: rebuildRate, length: length})
	cancel()
	wg.Wait()
	if err := errors.Join(err, publishing); err != nil {
		return err
	}
	c.got.add("dropped_by_director", float64(d.drops()-drops))
	c.got.add("lost_on_the_way", float64(o.sent-o.received))
	c.got.add("sent", float64(o.sent))
	c.got.add("tables", float64(tables))
	return nil
}

const rebuildBackends = 8

// exchange publishes a new table every so often until ctx ends: in turn, the last backend takes no new flows, or does again.
func (f *director) exchange(ctx context.Context, r *rig, every time.Duration) (n int, err error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return n, nil
		case <-tick.C:
		}
		s, err := snapshot(f.backends, n%2, table.MAC(r.nextHop), table.MAC(r.own))
		if err != nil {
			return n, err
		}
		f.path.Engine.Publish(s)
		n++
	}
}

// drops returns how many packets the director has dropped so far, for whatever reason.
func (f *director) drops() (sum uint64) {
	c := f.path.Engine.Counters()
	for _, n := range c.Drops {
		sum += n
	}
	return sum
}

// drills kills a server under a real director, with real connections.
func drills(ctx context.Context, r *perf.Run) (err error) {
	exe, err := executable()
	if err != nil {
		return err
	}
	runs, lull := r.Runs, time.Second
	if r.Quick {
		runs, lull = 1, 200*time.Millisecond
	}
	got := figures{}
	for i := range runs {
		r.Progress(2*r.Runs+i, 3*r.Runs, "a server dies")
		k, err := drill(ctx, exe, lull)
		if err != nil {
			return err
		}
		got.add("declared_down", float64(k.DownMS))
		got.add("last_new_connection", float64(k.LastSentMS))
		got.add("broken_connections", float64(k.Moved))
		got.add("failed_elsewhere", float64(k.FailedAtOthers))
		got.add("back_in_service", float64(k.FirstAgainMS))
	}
	params := map[string]any{"case": "a server of three dies", "check_interval_ms": 200, "fall": 2, "rate": 200}
	for _, m := range []struct{ name, unit string }{
		{"declared_down", "ms"}, {"last_new_connection", "ms"}, {"back_in_service", "ms"},
		{"broken_connections", "connections"}, {"failed_elsewhere", "requests"},
	} {
		r.Record(params, m.name, m.unit, got[m.name])
	}
	return nil
}

// drill has one server of three die and come back while requests are made.
func drill(ctx context.Context, exe string, lull time.Duration) (k demo.Kill, err error) {
	dir, err := os.MkdirTemp("", "xlvs-failover-")
	if err != nil {
		return k, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	lab, err := testenv.New(ctx, testenv.Options{Modes: []table.Mode{table.DR}, NoTaps: true})
	if err != nil {
		return k, err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	web := func(s testenv.Service) bool { return s.Port == testenv.HTTPPort && s.Addr.Is4() }
	d, err := demo.NewDirector(lab, dir, testenv.ConfigOptions{LogFlows: true, Only: web})
	if err != nil {
		return k, err
	}
	if err := d.Start(ctx, lab, exe); err != nil {
		return k, err
	}
	defer func() { err = errors.Join(err, d.Stop()) }()
	victim := lab.Group(table.DR)[0]
	var service testenv.Service
	for _, s := range lab.Services() {
		if web(s) {
			service = s
		}
	}
	one := &demo.Drill{Lab: lab, Director: d, Service: service, Victim: victim.Name, Kill: victim.Stop, Revive: victim.Start, Lull: lull,
		Say: func(string, ...any) {}}
	return one.Run(ctx)
}
