// Package dataplane moves packets: workers that poll their ports, the pipeline that each
// packet goes through, and the engine that starts, feeds and stops them. What a worker reads (the
// snapshot) is immutable; what it writes (flow table, counters, events) is its own.
package dataplane

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"xlvs/dataplane/flow"
	"xlvs/dataplane/offheap"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// IdlePolicy says what a worker does when nothing comes: it polls for Spin, and then sleeps
// until a frame arrives, unless Sleep is false.
type IdlePolicy struct {
	Sleep bool
	Spin  time.Duration
}

// WorkerOptions describe one worker. All ports share Memory. Interfaces[i] says which element of Snapshot.Ports
// port i is a queue of; nil means that port i is interface i. A worker needs a port on every interface, because
// what comes in on one may leave on any other; it sends on the first that it has there.
type WorkerOptions struct {
	CPU        int // core to pin to; -1: none
	Memory     *Memory
	Ports      []Port
	Interfaces []int
}

// Options describe an engine.
type Options struct {
	Workers    []WorkerOptions
	Flows      int    // entries of each worker's flow table
	Seed       string // of the flow hash: the same on every director of a fleet
	Idle       IdlePolicy
	FlowSample int  // emit events for one flow in so many; 0: none
	EventRing  int  // events a worker can hold until they are read
	Isolate    bool // keep the process's other threads off the workers' cores
	Realtime   int  // run workers as SCHED_FIFO with this priority, 1 to 99; 0: as ordinary threads
}

// An Engine owns the workers.
type Engine struct {
	workers []*worker
	hasher  packet.Hasher
	snap    atomic.Pointer[table.Snapshot]
	start   time.Time
	wg      sync.WaitGroup
	running bool
	isolate bool
	restore func() // undoes isolate
}

// New allocates the workers and their flow tables. Start starts them; Close gives all back.
func New(o Options) (*Engine, error) {
	if len(o.Workers) == 0 {
		return nil, errors.New("engine: no workers: there must be at least one interface queue")
	}
	e := &Engine{hasher: packet.NewHasher(o.Seed), start: time.Now(), isolate: o.Isolate, restore: func() {}}
	empty, err := table.New(&table.Snapshot{Timeouts: flow.DefaultTimeouts()})
	if err != nil {
		return nil, err
	}
	e.snap.Store(empty)
	for i, wo := range o.Workers {
		w, err := newWorker(i, wo, &o, e.hasher, &e.snap, e.start)
		if err != nil {
			return nil, errors.Join(err, e.Close())
		}
		e.workers = append(e.workers, w)
	}
	introduce(e.workers)
	for _, w := range e.workers {
		w.pipeline.snap = empty
		w.flows.Use(empty)
	}
	return e, nil
}

// Publish makes s the snapshot that every worker reads from its next poll on. Workers that sleep are not woken:
// they read it when there is a packet to use it for. It refuses a snapshot that has interfaces
// on which some worker has no port, because frames for those could not leave.
func (e *Engine) Publish(s *table.Snapshot) error {
	for _, w := range e.workers {
		if s.Interfaces > len(w.tx) {
			return fmt.Errorf("publish generation %d: the snapshot has %d interfaces, worker %d has ports on %d", s.Generation, s.Interfaces, w.id, len(w.tx))
		}
	}
	e.snap.Store(s)
	return nil
}

// Snapshot returns what was published last.
func (e *Engine) Snapshot() *table.Snapshot { return e.snap.Load() }

// Start starts the workers and returns once each is pinned. If one cannot be, none is left running.
func (e *Engine) Start() error {
	if e.isolate {
		var err error
		if e.restore, err = isolate(e.workers); err != nil {
			e.restore()
			return err
		}
	}
	ready := make(chan error, len(e.workers))
	for _, w := range e.workers {
		w.stop.Store(false)
		e.wg.Go(func() { w.run(ready) })
	}
	e.running = true
	var errs []error
	for range e.workers {
		errs = append(errs, <-ready)
	}
	if err := errors.Join(errs...); err != nil {
		e.Stop()
		return err
	}
	return nil
}

// Stop ends the workers and waits for them. Their counters and flows can still be read until Close.
func (e *Engine) Stop() {
	if !e.running {
		return
	}
	for _, w := range e.workers {
		w.stop.Store(true)
		w.wake()
	}
	e.wg.Wait()
	e.restore()
	e.running = false
}

// Close stops the workers and releases their memory.
func (e *Engine) Close() error {
	e.Stop()
	var errs []error
	for _, w := range e.workers {
		errs = append(errs, w.close())
	}
	e.workers = nil
	return errors.Join(errs...)
}

// Step makes worker i poll once at the given time (milliseconds): the same pipeline without a goroutine, for
// offline runs, tests and benchmarks. The engine must not have been started.
func (e *Engine) Step(i int, now uint32) int { return e.workers[i].poll(now) }

// Workers returns the number of workers.
func (e *Engine) Workers() int { return len(e.workers) }

// Now is the engine's clock in milliseconds, as events carry it; Started when it stood at zero.
func (e *Engine) Now() uint32 { return uint32(time.Since(e.start).Milliseconds()) }

// Started returns the time at which the engine's clock stood at zero.
func (e *Engine) Started() time.Time { return e.start }

// Worker returns a copy of worker i's counters. The worker goes on counting meanwhile: each
// number is right, sums over several may be a burst apart.
func (e *Engine) Worker(i int) Counters { return offheap.Load(e.workers[i].count) }

// Counters returns the sum over all workers.
func (e *Engine) Counters() (sum Counters) {
	for i := range e.workers {
		c := e.Worker(i)
		sum.Add(&c)
	}
	return sum
}

// Backend returns what all workers counted for a backend's slot.
func (e *Engine) Backend(slot int) (sum BackendCounters) {
	for _, w := range e.workers {
		c := offheap.Load(&w.backends[slot])
		sum.Add(&c)
	}
	return sum
}

// CPU returns the core that worker i is pinned to, or -1.
func (e *Engine) CPU(i int) int { return e.workers[i].cpu }

// Ports returns how many ports worker i has, PortInterface which interface its port p is a queue of.
func (e *Engine) Ports(i int) int { return len(e.workers[i].ports) }

// PortInterface returns the index into Snapshot.Ports of worker i's port p.
func (e *Engine) PortInterface(i, p int) int { return e.workers[i].ifaces[p] }

// Port returns the counters of worker i's port p.
func (e *Engine) Port(i, p int) PortStats { return e.workers[i].ports[p].Stats() }

// ReadEvents moves events of worker i into out and returns how many. One goroutine at a time may call it.
func (e *Engine) ReadEvents(i int, out []Event) int { return e.workers[i].events.read(out) }

// FlowTable describes worker i's flow table.
type FlowTable struct {
	Used, Capacity int
	HugePages      bool
}

// FlowTable returns the size and use of worker i's flow table.
func (e *Engine) FlowTable(i int) FlowTable {
	w := e.workers[i]
	return FlowTable{Used: int(atomic.LoadUint64(&w.count.Flows)), Capacity: w.flows.Cap(), HugePages: w.flows.Huge()}
}

// Explain tells which backend a new flow would get now, without opening it.
func (e *Engine) Explain(src, dst packet.Addr, ports packet.Ports, proto uint8) (*table.Service, *table.Backend, error) {
	s := e.snap.Load()
	slot := s.Lookup(dst, ports.Dst(), proto)
	if slot < 0 {
		return nil, nil, fmt.Errorf("no service has %s port %d", dst.Netip(), ports.Dst())
	}
	svc := &s.Services[slot]
	return svc, s.Pick(svc, spread(&e.hasher, svc, src, dst, ports, proto)), nil
}
