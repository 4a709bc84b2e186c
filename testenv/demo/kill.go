package demo

import (
	"context"
	"fmt"
	"time"

	"xlvs/dataplane/table"
	"xlvs/testenv"
)

// A Kill is what happened when a server died under load and came back. Times are milliseconds after the server
// was killed, or after it was started again.
type Kill struct {
	Service string `json:"service"`
	Backend string `json:"backend"`
	Rate    int    `json:"rate"` // requests a second, each on a connection of its own

	DownMS     int64  `json:"down_ms"`      // until the log says that the backend is down
	Reason     string `json:"reason"`       // that it gives
	LastSentMS int64  `json:"last_sent_ms"` // until the last new connection was sent to it
	Slots      int    `json:"slots"`
	SlotsMoved int    `json:"slots_moved"`

	Requests       int `json:"requests"`
	FailedAtDead   int `json:"failed_at_dead"`   // while it was dead
	FailedAtOthers int `json:"failed_at_others"` // at any time
	ServedByDead   int `json:"served_by_dead"`   // before and after

	Kept  int `json:"kept"`       // connections to the other backends that stayed open
	Moved int `json:"kept_moved"` // of those: broken, or answered by another backend

	UpMS           int64 `json:"up_ms"`
	SlotsMovedBack int   `json:"slots_moved_back"`
	FirstAgainMS   int64 `json:"first_again_ms"` // until a new connection was sent to it again
}

const (
	killRate = 200 // requests a second
	keptOpen = 60
	// lull is how long the load goes on before the kill, and after the director has seen it.
	lull = 1500 * time.Millisecond
)

// A drill kills one server of a service and starts it again.
type drill struct {
	lab     *testenv.Lab
	dir     *Director
	service testenv.Service
	victim  *testenv.Server
	say     func(format string, args ...any)

	k            Kill
	began        time.Time
	kill, revive time.Time
}

func (d *drill) run(ctx context.Context) (Kill, error) {
	s := d.service
	d.k = Kill{Service: s.Name, Backend: d.victim.Name, Rate: killRate}
	d.began = time.Now()
	p := &ports{}
	open, err := keep(ctx, d.lab.Client, s.Key(), keptOpen, p)
	defer open.close()
	if err != nil {
		return d.k, err
	}
	l := startLoad(ctx, d.lab.Client, s.Key(), killRate, p)
	err = d.killAndRevive(ctx)
	requests, loadErr := l.stop()
	if err == nil {
		err = loadErr
	}
	if err != nil {
		return d.k, err
	}
	d.k.Kept, d.k.Moved = open.check(d.victim.Name)
	return d.k, d.judge(ctx, requests)
}

// serviceOf is the IPv4 web service of a mode.
func serviceOf(lab *testenv.Lab, m table.Mode) testenv.Service {
	for _, s := range lab.Services() {
		if s.Mode == m && s.Port == testenv.HTTPPort && s.Addr.Is4() {
			return s
		}
	}
	return testenv.Service{}
}

func (d *drill) killAndRevive(ctx context.Context) error {
	if err := sleep(ctx, lull); err != nil {
		return err
	}
	d.kill = time.Now()
	d.say("%s is killed", d.k.Backend)
	if err := d.victim.Stop(); err != nil {
		return err
	}
	down, table, err := d.seen(ctx, "backend.down", d.kill)
	if err != nil {
		return err
	}
	d.k.DownMS, d.k.Reason = down.Time.Sub(d.kill).Milliseconds(), down.Reason
	d.k.Slots, d.k.SlotsMoved = table.Slots, table.SlotsMoved
	d.say("  +%4d ms  the director sees that %s is down: %s", d.k.DownMS, d.k.Backend, d.k.Reason)
	d.say("  +%4d ms  new table: %d of %d slots moved", table.Time.Sub(d.kill).Milliseconds(), table.SlotsMoved, table.Slots)
	if err := sleep(ctx, lull); err != nil {
		return err
	}
	d.revive = time.Now()
	if err := d.victim.Start(); err != nil {
		return err
	}
	d.say("%s runs again", d.k.Backend)
	up, table, err := d.seen(ctx, "backend.up", d.revive)
	if err != nil {
		return err
	}
	d.k.UpMS, d.k.SlotsMovedBack = up.Time.Sub(d.revive).Milliseconds(), table.SlotsMoved
	d.say("  +%4d ms  the director sees that %s is up: %s; %d slots move back", d.k.UpMS, d.k.Backend, up.Reason, table.SlotsMoved)
	return sleep(ctx, lull)
}

// seen waits until the log has the event about the victim, and the table that follows from it.
func (d *drill) seen(ctx context.Context, event string, since time.Time) (seen, table Event, err error) {
	about := fmt.Sprintf("%s %s of %s", event, d.k.Backend, d.k.Service)
	seen, err = d.dir.AwaitEvent(ctx, about, func(e Event) bool {
		return e.Event == event && e.Service == d.k.Service && e.Backend == d.k.Backend && e.Time.After(since)
	})
	if err != nil {
		return seen, table, err
	}
	table, err = d.dir.AwaitEvent(ctx, "a table follows "+about, func(e Event) bool {
		return e.Event == "table.published" && e.Service == d.k.Service && !e.Time.Before(seen.Time)
	})
	return seen, table, err
}

// judge joins what the client saw of its requests with where the director's log says that it sent them.
func (d *drill) judge(ctx context.Context, requests []request) error {
	flows, err := d.dir.flows(ctx, d.k.Service, d.began, requests)
	if err != nil {
		return err
	}
	d.k.Requests = len(requests)
	for _, r := range requests {
		f := flows[r.Port]
		atDead := f.Backend == d.k.Backend
		switch {
		case r.Err == nil && r.Backend == d.k.Backend:
			d.k.ServedByDead++
		case r.Err != nil && atDead:
			d.k.FailedAtDead++
		case r.Err != nil:
			d.k.FailedAtOthers++
		}
		if after := f.Time.Sub(d.kill); atDead && f.Time.Before(d.revive) {
			d.k.LastSentMS = max(d.k.LastSentMS, after.Milliseconds())
		} else if again := f.Time.Sub(d.revive).Milliseconds(); atDead && (d.k.FirstAgainMS == 0 || again < d.k.FirstAgainMS) {
			d.k.FirstAgainMS = again
		}
	}
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
