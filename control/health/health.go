// Package health checks backends and says when one comes up or goes down.
//
// A Monitor is given the targets it should watch (desired state, never deltas) and runs one goroutine
// a target. Each check gives a Result; a damper with rise and fall thresholds turns the stream of
// results into state changes; every change is one Update.
//
// A target starts down, and unknown. Its very first result decides at once: a success brings it up without
// waiting for Rise, a failure is reported as down without waiting for Fall. So a director that starts
// has its tables right after one round of checks, and only then does damping begin.
package health

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// The kinds of check that Spec.Type names.
const (
	TCP  = "tcp"  // the handshake completes
	HTTP = "http" // a GET is answered with an accepted status
)

// A Spec is how a target is checked. Zero fields take the defaults named here.
type Spec struct {
	Type     string        // TCP or HTTP
	Path     string        // HTTP: path and query, default "/"
	Host     string        // HTTP: Host header, default the target's address
	Status   []int         // HTTP: accepted codes, default 200–299
	Interval time.Duration // from the start of a check to the start of the next, default 2 s
	Timeout  time.Duration // for a whole check, default 1 s
	Rise     int           // successes in a row that bring it up, default 2
	Fall     int           // failures in a row that take it down, default 3
}

func (s Spec) withDefaults() Spec {
	if s.Path == "" {
		s.Path = "/"
	}
	if s.Interval <= 0 {
		s.Interval = 2 * time.Second
	}
	if s.Timeout <= 0 {
		s.Timeout = time.Second
	}
	s.Rise = cmpOr(s.Rise, 2)
	s.Fall = cmpOr(s.Fall, 3)
	s.Status = slices.Clone(s.Status)
	return s
}

func cmpOr(n, def int) int {
	if n < 1 {
		return def
	}
	return n
}

func (s Spec) equal(o Spec) bool {
	return s.Type == o.Type && s.Path == o.Path && s.Host == o.Host && slices.Equal(s.Status, o.Status) &&
		s.Interval == o.Interval && s.Timeout == o.Timeout && s.Rise == o.Rise && s.Fall == o.Fall
}

// A Target is one thing to check. ID names it in updates and across calls of Set.
type Target struct {
	ID   string
	Addr netip.AddrPort
	Spec Spec
}

// An Update says that a target changed state, or which state its first result gave it.
type Update struct {
	ID      string
	Up      bool
	Reason  string        // why: "connection refused by 10.0.0.11:80"; for Up, what was answered
	At      time.Time     // when the deciding check ended
	Latency time.Duration // how long the deciding check took
}

// A Status is what a target looks like now.
type Status struct {
	Update            // the last change; zero At while Known is false
	Known   bool      // a first result has come in
	Last    Result    // of the latest check
	LastAt  time.Time // when the latest check ended
	Streak  int       // results in a row like Last
	Checks  uint64    // checks made
	Failed  uint64    // of them, failed
	Skipped uint64    // of them, without a verdict: something was short on this host
}

// Options of a Monitor. The zero value works.
type Options struct {
	// Notify is called for every Update, one at a time and in order, from the monitor's own goroutine.
	// It may call the Monitor's methods except Close. It may still be called for a target that
	// Set is just removing, never after Close has returned.
	Notify func(Update)

	// Silence is told the address of a target from which nothing came back in time, after each such check, from that check's
	// goroutine: whoever knows its next hop may have a look.
	Silence func(netip.Addr)

	// Dial replaces the dialer (tests, network namespaces).
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// Concurrency is how many checks may be under way at once, default 4096. It bounds open
	// descriptors; a check waits for its turn when so many targets are slow at the same time.
	Concurrency int
}

// A Monitor checks targets until Close.
type Monitor struct {
	notify  func(Update)
	silence func(netip.Addr)
	dial    dialFunc
	slots   chan struct{}

	mu     sync.Mutex
	tasks  map[string]*task
	queue  []Update
	wake   chan struct{} // capacity 1: queue is not empty
	closed bool

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// New starts a monitor without targets.
func New(o Options) *Monitor {
	if o.Concurrency <= 0 {
		o.Concurrency = 4096
	}
	if o.Dial == nil {
		// Keep-alive probes make no sense on a connection that lives for one check.
		o.Dial = (&net.Dialer{KeepAlive: -1}).DialContext
	}
	if o.Notify == nil {
		o.Notify = func(Update) {}
	}
	if o.Silence == nil {
		o.Silence = func(netip.Addr) {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	m := &Monitor{
		notify:  o.Notify,
		silence: o.Silence,
		dial:    o.Dial,
		slots:   make(chan struct{}, o.Concurrency),
		tasks:   map[string]*task{},
		wake:    make(chan struct{}, 1),
		ctx:     ctx,
		cancel:  cancel,
	}
	m.wg.Go(m.deliver)
	return m
}

// Set makes targets the ones that are watched. A target whose definition did not change keeps its state and
// its schedule. One with another Spec keeps its state and starts its checks and its damping anew. One with
// another Addr also keeps the state it last reported, until its next result, which decides at once. All
// others stop. Of targets with the same ID the last counts.
func (m *Monitor) Set(targets []Target) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return
	}
	want := make(map[string]Target, len(targets))
	for _, t := range targets {
		t.Spec = t.Spec.withDefaults()
		want[t.ID] = t
	}
	for id, old := range m.tasks {
		if _, ok := want[id]; !ok {
			old.stop()
			delete(m.tasks, id)
		}
	}
	for id, t := range want {
		old := m.tasks[id]
		if old != nil && old.target.Addr == t.Addr && old.target.Spec.equal(t.Spec) {
			continue
		}
		m.start(t, old)
	}
}

// Status returns what is known of a target; ok is false when it is not watched.
func (m *Monitor) Status(id string) (s Status, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tasks[id]
	if t == nil {
		return Status{}, false
	}
	s = t.status
	s.ID, s.Up, s.Known, s.Streak = id, t.damper.up, t.damper.known, t.damper.streak
	return s, true
}

// Cut says that this host's own link or route to a target is missing, or no longer so. Checks go on and count as ever: what
// cannot be reached can take no traffic. But a target that falls while it is cut off comes up with its first success, whatever Rise
// is, for the fault was not its own; and when the cut is over it is checked at once, in place of a check that is under way.
func (m *Monitor) Cut(id string, cut bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.tasks[id]
	if t == nil || t.cut == cut {
		return
	}
	if t.cut = cut; cut {
		return
	}
	if t.interrupt != nil {
		t.interrupt()
	}
	select {
	case t.again <- struct{}{}:
	default:
	}
}

// Close stops all checks and waits for them. Further calls do nothing.
func (m *Monitor) Close() {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.cancel()
	m.wg.Wait()
}

// deliver hands updates to the callback outside the lock, so that the callback may use the monitor
// and a slow one delays no check.
func (m *Monitor) deliver() {
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.wake:
		}
		for {
			m.mu.Lock()
			batch := m.queue
			m.queue = nil
			m.mu.Unlock()
			if len(batch) == 0 {
				break
			}
			for _, u := range batch {
				if m.ctx.Err() != nil {
					return
				}
				m.notify(u)
			}
		}
	}
}
