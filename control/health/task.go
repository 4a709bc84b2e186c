package health

import (
	"context"
	"math/rand/v2"
	"time"
)

// startWindow bounds how long after Set a first check may begin, however long the interval is.
const startWindow = 500 * time.Millisecond

// A task is the checking of one target, from the Set that defined it to the Set that changed or removed it.
// Its fields below the line are guarded by Monitor.mu.
type task struct {
	target Target
	check  checker
	stop   context.CancelFunc
	begin  time.Time
	phase  time.Duration // of its ticks: begin + phase + k·interval

	damper    damper
	status    Status
	cut       bool               // see Monitor.Cut
	interrupt context.CancelFunc // ends the check that is under way without a result; nil: there is none
	again     chan struct{}      // capacity 1: check now
}

// start begins to check t; old is the task of the same ID whose state it takes over, if any. The caller holds m.mu.
func (m *Monitor) start(t Target, old *task) {
	ctx, cancel := context.WithCancel(m.ctx)
	n := &task{target: t, stop: cancel, begin: time.Now(), check: newChecker(t, m.dial), again: make(chan struct{}, 1)}
	n.damper = damper{rise: t.Spec.Rise, fall: t.Spec.Fall}
	if old != nil {
		old.stop()
		n.status = old.status
		n.damper.up = old.damper.up
		n.damper.known = old.damper.known && old.target.Addr == t.Addr
		n.damper.reported, n.damper.excused = old.damper.reported, old.damper.excused
		n.cut = old.cut
	}
	// A random phase, not one derived from the ID: the directors of a fleet must not all
	// check a backend at the same instant either.
	n.phase = rand.N(t.Spec.Interval)
	m.tasks[t.ID] = n
	m.wg.Go(func() {
		defer cancel()
		defer n.check.close()
		m.run(ctx, n)
	})
}

// run checks at each of the task's ticks. Since one goroutine does it, checks of a target never overlap:
// one that outlasts the interval skips the ticks it covered.
func (m *Monitor) run(ctx context.Context, t *task) {
	timer := time.NewTimer(t.firstDelay())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-t.again:
		}
		select {
		case <-ctx.Done():
			return
		case m.slots <- struct{}{}:
		}
		res, whole := m.attempt(ctx, t)
		<-m.slots
		if ctx.Err() != nil {
			return // the result may be that of the cancelled context
		}
		if whole {
			m.record(t, res)
			if res.silent {
				m.silence(t.target.Addr.Addr())
			}
		}
		timer.Reset(t.untilNext(time.Now()))
	}
}

// firstDelay is the phase squeezed into startWindow: the first checks of many targets are spread out, and still
// no target with a long interval waits for long.
func (t *task) firstDelay() time.Duration {
	interval := t.target.Spec.Interval
	if interval <= startWindow {
		return t.phase
	}
	return time.Duration(float64(t.phase) * float64(startWindow) / float64(interval))
}

// untilNext is the time from now to the task's next tick.
func (t *task) untilNext(now time.Time) time.Duration {
	interval := t.target.Spec.Interval
	since := now.Sub(t.begin) - t.phase
	if since < 0 {
		return -since
	}
	return interval - since%interval
}

// attempt makes a check. whole is false if it was interrupted, and has no result.
func (m *Monitor) attempt(ctx context.Context, t *task) (r Result, whole bool) {
	ctx, interrupt := context.WithCancel(ctx)
	defer interrupt()
	m.mu.Lock()
	t.interrupt = interrupt
	m.mu.Unlock()
	r = runCheck(ctx, t.check, t.target)
	m.mu.Lock()
	t.interrupt = nil
	m.mu.Unlock()
	return r, ctx.Err() == nil
}

func runCheck(ctx context.Context, c checker, t Target) Result {
	ctx, cancel := context.WithTimeout(ctx, t.Spec.Timeout)
	defer cancel()
	start := time.Now()
	r := c.check(ctx)
	r.Latency = time.Since(start)
	return r
}

func (m *Monitor) record(t *task, r Result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || m.tasks[t.target.ID] != t {
		return
	}
	s := &t.status
	s.Checks++
	s.Last, s.LastAt = r, time.Now()
	if r.Verdict == None {
		s.Skipped++
		return
	}
	if r.Verdict == Bad {
		s.Failed++
	}
	if !t.damper.observe(r.Verdict == Good) {
		return
	}
	if !t.damper.up && t.cut {
		t.damper.excused = true
	}
	s.Update = Update{ID: t.target.ID, Up: t.damper.up, Reason: r.Reason, At: s.LastAt, Latency: r.Latency}
	m.queue = append(m.queue, s.Update)
	select {
	case m.wake <- struct{}{}:
	default:
	}
}
