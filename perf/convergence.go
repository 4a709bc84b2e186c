package perf

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"xlvs/control"
	"xlvs/control/config"
	"xlvs/dataplane"
)

var convergence = Scenario{
	Name:  "convergence",
	Short: "how long a backend's death takes to reach the workers; packets lost or misdirected by new tables under load",
	Run:   runConvergence,
	Plots: []Plot{
		{Title: "From a backend's death to the published table", Note: "65537 slots, 100 backends a service, one of them in all services. Everything is built, from nothing.",
			Metric: []string{"publish_ms"}, X: "services", Series: []string{"names"}, LogX: true, LogY: true},
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

// runPublish measures what the control loop does between the news of a death and the atomic store that workers see,
// through the code that makes snapshots for it, and without what it could keep from the time before: every table is built.
func runPublish(ctx context.Context, r *Run) error {
	counts := []int{1, 100, 1000}
	if r.Quick {
		counts = counts[:2]
	}
	src, err := newSource(false, 1)
	if err != nil {
		return err
	}
	e, err := dataplane.New(dataplane.Options{Workers: []dataplane.WorkerOptions{{CPU: -1, Memory: src.mem, Ports: []dataplane.Port{src}}},
		Flows: smallestTable, Seed: "perf", EventRing: 1})
	if err != nil {
		return err
	}
	defer e.Close()
	var cases []Case
	for _, n := range counts {
		for _, names := range []string{sameNames, ownNames} {
			params := map[string]any{"services": n, "backends": pipelineBackends, "slots": pipelineSlots, "names": names}
			if n == 1 && names == ownNames || !r.Wanted(params) {
				continue
			}
			conf, err := manyServices(n, names == ownNames)
			if err != nil {
				return err
			}
			cases = append(cases, Case{What: fmt.Sprintf("publish %d services with %s backends", n, names), Params: params,
				Measure: func(context.Context) ([]Figure, error) { return measurePublish(conf, e) }})
		}
	}
	return onCore(func() error { return r.Interleave(ctx, cases) })
}

func measurePublish(conf *config.Config, e *dataplane.Engine) ([]Figure, error) {
	start, cpu := time.Now(), threadTime()
	o, err := control.NewOffline(conf, []string{sharedBackend})
	if err != nil {
		return nil, err
	}
	e.Publish(o.Snapshot)
	cpu, took := threadTime()-cpu, time.Since(start)
	return []Figure{
		{Metric: "publish_ms", Unit: "ms", Value: float64(took.Microseconds()) / 1000},
		{Metric: "publish_cpu_ms", Unit: "ms", Value: float64(cpu.Microseconds()) / 1000},
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
    backends: [{name: shared, address: 10.0.0.2}]
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
