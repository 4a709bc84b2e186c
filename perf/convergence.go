package perf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"xlvs/control"
	"xlvs/control/config"
	"xlvs/dataplane"
	"xlvs/dataplane/flow"
)

var convergence = Scenario{
	Name:  "convergence",
	Short: "how long a backend's death takes to reach the workers; packets lost or misdirected by it, and by new tables, under load",
	Run:   runConvergence,
	Plots: []Plot{
		{Title: "From the news of a death to the workers", Note: "65537 slots, 100 backends a service. What \"own\" services share is the one backend that dies.",
			Metric: []string{"publish_ms", "tables_ms"}, X: "services", Series: []string{"names"}, LogX: true, LogY: true},
		{Title: "From the news of a death to the last packet for the dead", Note: "Through the control loop, while a worker forwards at full speed. The worst death of each run.",
			Metric: []string{"last_misdirected_ms"}, X: "case"},
	},
}

func runConvergence(ctx context.Context, r *Run) error {
	if err := runPublish(ctx, r); err != nil {
		return err
	}
	return runRebuild(ctx, r)
}

// Names of backends decide which services share a table: those whose backends have the same names and weights.
const (
	sameNames = "same" // all services have the same backends
	ownNames  = "own"  // each has its own but for one, which all have
)

// runPublish measures what the control loop does with the news of a death, through its own code: until workers know, and
// until they have the tables without the dead.
func runPublish(ctx context.Context, r *Run) error {
	own := 1000
	if r.Quick {
		own = 100 // a table for each, at some milliseconds
	}
	var cases []Case
	var open []*deaths
	defer func() {
		for _, d := range open {
			_ = d.close()
		}
	}()
	for _, c := range []struct {
		services int
		names    string
	}{{1, sameNames}, {100, sameNames}, {1000, sameNames}, {own, ownNames}} {
		params := map[string]any{"services": c.services, "backends": pipelineBackends, "slots": pipelineSlots, "names": c.names}
		if !r.Wanted(params) {
			continue
		}
		what := fmt.Sprintf("publish %d services with %s backends", c.services, c.names)
		r.Progress(0, 1, "setting up "+what)
		d, err := newDeaths(c.services, c.names == ownNames)
		if err != nil {
			return err
		}
		open = append(open, d)
		cases = append(cases, Case{What: what, Params: params, Measure: func(context.Context) ([]Figure, error) { return d.measure() }})
	}
	return onCore(func() error { return r.Interleave(ctx, cases) })
}

// deaths is a control loop whose shared backend dies.
type deaths struct {
	engine *dataplane.Engine
	loop   *control.Rehearsal
}

func newDeaths(services int, own bool) (_ *deaths, err error) {
	conf, err := manyServices(services, own)
	if err != nil {
		return nil, err
	}
	src, err := newSource(false, 1)
	if err != nil {
		return nil, err
	}
	d := &deaths{}
	d.engine, err = dataplane.New(dataplane.Options{Workers: []dataplane.WorkerOptions{{CPU: -1, Memory: src.mem, Ports: []dataplane.Port{src}}},
		Flows: flow.MinEntries, Seed: "perf", EventRing: 1})
	if err != nil {
		return nil, err
	}
	if d.loop, err = control.NewRehearsal(conf, d.engine); err != nil {
		return nil, errors.Join(err, d.engine.Close())
	}
	if _, _, err = d.news("", true); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

func (d *deaths) close() error { return errors.Join(d.loop.Close(), d.engine.Close()) }

// news has checks find a backend up or down.
func (d *deaths) news(backend string, up bool) (known, built time.Duration, err error) {
	if err := d.loop.Result(backend, up); err != nil {
		return 0, 0, err
	}
	return d.loop.Reconcile()
}

func (d *deaths) measure() ([]Figure, error) {
	cpu := threadTime()
	known, built, err := d.news(sharedBackend, false)
	cpu = threadTime() - cpu
	if err != nil {
		return nil, err
	}
	if _, _, err := d.news(sharedBackend, true); err != nil {
		return nil, err
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return []Figure{
		{Metric: "publish_ms", Unit: "ms", Value: ms(known)},
		{Metric: "tables_ms", Unit: "ms", Value: ms(built)},
		{Metric: "publish_cpu_ms", Unit: "ms", Value: ms(cpu)},
	}, nil
}

// sharedBackend is the one that all services have, and that dies.
const sharedBackend = "shared"

// manyServices is a configuration of n services with a hundred backends each.
func manyServices(n int, own bool) (*config.Config, error) {
	conf, err := config.Parse("perf", []byte(`
interfaces:
  - {name: eth0, mac: "02:00:00:00:00:01", addresses: [10.0.0.1/8]}
services:
  - name: s0
    address: 203.0.113.0
    port: 80
    protocol: tcp
    forward: dr
    health: {type: tcp}
    backends: [{name: shared, address: 10.0.1.0}]
`))
	if err != nil {
		return nil, err
	}
	first := conf.Services[0]
	conf.Services = nil
	for i := range n {
		s := first
		s.Name = fmt.Sprintf("s%d", i)
		s.Address.Addr = vip(false, i)
		s.Backends = slices.Clone(first.Backends)
		for k := 1; k < pipelineBackends; k++ {
			b := first.Backends[0]
			b.Name, b.Address = fmt.Sprintf("b%d", k), netip.AddrFrom4([4]byte{10, 1, 0, byte(k)})
			if own {
				b.Name, b.Address = fmt.Sprintf("s%d-b%d", i, k), netip.AddrFrom4([4]byte{10, byte(2 + i>>8), byte(i), byte(k)})
			}
			s.Backends = append(s.Backends, b)
		}
		conf.Services = append(conf.Services, s)
	}
	return conf, conf.Validate()
}
