package wire

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
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
	err := rebuilds(ctx, r)
	if ctx.Err() != nil {
		return err
	}
	return errors.Join(err, drills(ctx, r))
}

// A rebuilding is a stream through a director whose tables are, or are not, exchanged all the time.
type rebuilding struct {
	every time.Duration // 0: never
	got   history
}

func (c *rebuilding) params() map[string]any {
	name := "same table"
	if c.every > 0 {
		name = fmt.Sprintf("new table every %v", c.every)
	}
	return map[string]any{"case": name, "flows": manyFlows, "rate": rebuildRate}
}

func (c *rebuilding) report(r *perf.Run) {
	c.got.record(r, c.params(), metric{"dropped_by_director", "packets"}, metric{"lost_on_the_way", "packets"},
		metric{"sent", "packets"}, metric{"tables", "tables"})
}

const (
	rebuildRate  = 200_000 // far from what the director can carry: what is lost is lost by exchanging tables
	rebuildEvery = 20 * time.Millisecond
)

// rebuilds measures with and without new tables, in turn, so that what other programs on the machine cause is seen in both.
func rebuilds(ctx context.Context, r *perf.Run) error {
	all := slices.DeleteFunc([]*rebuilding{{every: rebuildEvery}, {}}, func(c *rebuilding) bool { return !r.Wanted(c.params()) })
	length := 3 * time.Second
	if r.Quick {
		length = 500 * time.Millisecond
	}
	var names []string
	for _, one := range all {
		names = append(names, fmt.Sprint(one.params()["case"]))
	}
	err := inTurns(ctx, r, names, howHard(r).rounds, func(c cores, round, i int) error { return all[i].measure(ctx, c, length, all[i].got.round(round)) })
	for _, one := range all {
		one.report(r)
	}
	return err
}

// measure streams frames of established flows through a director.
func (c *rebuilding) measure(ctx context.Context, on cores, length time.Duration, f figures) (err error) {
	d := &director{polling: polling{receive: busyPoll}, backends: rebuildBackends, mode: table.DR}
	b, err := newBench(ctx, on, d, load{flows: manyFlows, size: smallest})
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
	f["dropped_by_director"], f["lost_on_the_way"] = float64(d.drops()-drops), float64(o.sent-o.received)
	f["sent"], f["tables"] = float64(o.sent), float64(tables)
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
		s, err := snapshot(table.DR, f.backends, n%2, table.MAC(r.nextHop), table.MAC(r.own))
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
func drills(ctx context.Context, r *perf.Run) error {
	params := map[string]any{"case": "a server of three dies", "check_interval_ms": 200, "fall": 2, "rate": 200}
	if !r.Wanted(params) {
		return nil
	}
	exe, err := executable()
	if err != nil {
		return err
	}
	runs, lull := r.Runs, time.Second
	if r.Quick {
		runs, lull = 1, 200*time.Millisecond
	}
	var got history
	err = turns(ctx, r, []string{"a server dies"}, runs, func(round, _ int) error {
		k, err := drill(ctx, exe, lull)
		if err != nil {
			return err
		}
		f := got.round(round)
		f["declared_down"], f["last_new_connection"], f["back_in_service"] = float64(k.DownMS), float64(k.LastSentMS), float64(k.FirstAgainMS)
		f["broken_connections"], f["failed_elsewhere"] = float64(k.Moved), float64(k.FailedAtOthers)
		return nil
	})
	got.record(r, params, metric{"declared_down", "ms"}, metric{"last_new_connection", "ms"}, metric{"back_in_service", "ms"},
		metric{"broken_connections", "connections"}, metric{"failed_elsewhere", "requests"})
	return err
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
