package control

import (
	"errors"
	"sync"
	"time"

	"xlvs/control/flowlog"
	"xlvs/control/health"
	"xlvs/control/neigh"
)

// gather is how long the loop waits for more news after the first, so that many changes give one snapshot. It
// also is the longest that a dead backend's traffic waits for it.
const gather = 5 * time.Millisecond

// An inbox keeps health results until the loop has time: a loop that is busy holds up no check.
type inbox struct {
	ready chan struct{} // capacity 1

	mu      sync.Mutex
	updates []health.Update
}

func (x *inbox) put(u health.Update) {
	x.mu.Lock()
	x.updates = append(x.updates, u)
	x.mu.Unlock()
	select {
	case x.ready <- struct{}{}:
	default:
	}
}

func (x *inbox) take() []health.Update {
	x.mu.Lock()
	defer x.mu.Unlock()
	u := x.updates
	x.updates = nil
	return u
}

// takeResults notes what health checks found. Results of checks that the configuration has no longer are ignored.
func (c *Controller) takeResults(updates []health.Update) {
	for _, u := range updates {
		for _, b := range c.byCheck[u.ID] {
			if b.known && u.At.Before(b.since) {
				continue // overtaken by what a reload asked for itself
			}
			news := !b.known || b.up != u.Up
			b.up, b.known, b.why = u.Up, true, u.Reason
			if !u.Up && b.route != nil && errors.Is(b.route.err, neigh.ErrCut) {
				b.why = b.route.err.Error() // which is why the check failed
			}
			if news {
				b.since = u.At
				c.say(stateLine(b))
			}
		}
	}
}

func stateLine(b *backend) flowlog.Record {
	if b.up {
		return flowlog.BackendUp{Service: b.svc.conf.Name, Backend: b.conf.Name, Address: b.conf.Address, Reason: b.why}
	}
	return flowlog.BackendDown{Service: b.svc.conf.Name, Backend: b.conf.Name, Address: b.conf.Address, Reason: b.why}
}

// A deadline is when the loop is to reconcile next: at the earliest of the times it was given.
type deadline struct {
	*time.Timer
	at time.Time // zero: never
}

func newDeadline() deadline {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return deadline{Timer: t}
}

// within asks for a reconciliation in at most d.
func (x *deadline) within(d time.Duration) {
	if at := time.Now().Add(d); x.at.IsZero() || at.Before(x.at) {
		x.at = at
		x.Reset(d)
	}
}

func (x *deadline) reached() { x.at = time.Time{} }
