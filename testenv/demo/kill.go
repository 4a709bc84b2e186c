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
	Misrouted      int `json:"misrouted"`        // answered by another backend than the log names

	Kept  int `json:"kept"`       // connections to the other backends that stayed open
	Moved int `json:"kept_moved"` // of those: broken, or answered by another backend

	UpMS           int64 `json:"up_ms"`
	SlotsMovedBack int   `json:"slots_moved_back"`
	FirstAgainMS   int64 `json:"first_again_ms"` // until a new connection was sent to it again
}

const (
	killRate = 200 // requests a second
	keptOpen = 60
)

// A Drill kills one server of a service under load and starts it again. The director must log every flow.
type Drill struct {
	Lab          *testenv.Lab
	Director     *Director
	Service      testenv.Service
	Victim       string // a server of the service
	Kill, Revive func() error
	Lull         time.Duration // how long the load goes on before the kill, after the director has seen it, and at the end
	Say          func(format string, args ...any)

	k                   Kill
	began, died, reborn time.Time
}

// Run runs the drill once. What Kill.Faults finds is no error.
func (d *Drill) Run(ctx context.Context) (Kill, error) {
	d.k = Kill{Service: d.Service.Name, Backend: d.Victim, Rate: killRate}
	d.began = time.Now()
	open, err := keep(ctx, d.Lab.Client, d.Service.Key(), keptOpen, &d.Director.ports)
	defer open.close()
	if err != nil {
		return d.k, err
	}
	l := startLoad(ctx, d.Lab.Client, d.Service.Key(), killRate, &d.Director.ports)
	err = d.killAndRevive(ctx)
	requests, loadErr := l.stop()
	if err == nil {
		err = loadErr
	}
	if err != nil {
		return d.k, err
	}
	d.k.Kept, d.k.Moved = open.check(d.Victim)
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

func (d *Drill) killAndRevive(ctx context.Context) error {
	if err := sleep(ctx, d.Lull); err != nil {
		return err
	}
	d.died = time.Now()
	d.Say("%s is killed", d.k.Backend)
	if err := d.Kill(); err != nil {
		return err
	}
	down, table, err := d.seen(ctx, "backend.down", d.died)
	if err != nil {
		return err
	}
	d.k.DownMS, d.k.Reason = down.Time.Sub(d.died).Milliseconds(), down.Reason
	d.k.Slots, d.k.SlotsMoved = table.Slots, table.SlotsMoved
	d.Say("  +%4d ms  the director sees that %s is down: %s", d.k.DownMS, d.k.Backend, d.k.Reason)
	d.Say("  +%4d ms  new table: %d of %d slots moved", table.Time.Sub(d.died).Milliseconds(), table.SlotsMoved, table.Slots)
	if err := sleep(ctx, d.Lull); err != nil {
		return err
	}
	d.reborn = time.Now()
	if err := d.Revive(); err != nil {
		return err
	}
	d.Say("%s runs again", d.k.Backend)
	up, table, err := d.seen(ctx, "backend.up", d.reborn)
	if err != nil {
		return err
	}
	d.k.UpMS, d.k.SlotsMovedBack = up.Time.Sub(d.reborn).Milliseconds(), table.SlotsMoved
	d.Say("  +%4d ms  the director sees that %s is up: %s; %d slots move back", d.k.UpMS, d.k.Backend, up.Reason, table.SlotsMoved)
	return sleep(ctx, d.Lull)
}

// seen waits until the log has the event about the victim, and the table that follows from it.
func (d *Drill) seen(ctx context.Context, event string, since time.Time) (seen, table Event, err error) {
	about := fmt.Sprintf("%s %s of %s", event, d.k.Backend, d.k.Service)
	seen, err = d.Director.AwaitEvent(ctx, about, func(e Event) bool {
		return e.Event == event && e.Service == d.k.Service && e.Backend == d.k.Backend && e.Time.After(since)
	})
	if err != nil {
		return seen, table, err
	}
	table, err = d.Director.AwaitEvent(ctx, "a table follows "+about, func(e Event) bool {
		return e.Event == "table.published" && e.Service == d.k.Service && !e.Time.Before(seen.Time)
	})
	return seen, table, err
}

// judge joins what the client saw of its requests with where the director's log says that it sent them.
func (d *Drill) judge(ctx context.Context, requests []request) error {
	flows, err := d.Director.flows(ctx, d.k.Service, d.began, requests)
	if err != nil {
		return err
	}
	d.k.Requests = len(requests)
	for _, r := range requests {
		f := flows[r.Port]
		atDead := f.Backend == d.k.Backend
		switch {
		case r.Err == nil && r.Backend != f.Backend:
			d.k.Misrouted++
		case r.Err == nil && atDead:
			d.k.ServedByDead++
		case r.Err != nil && atDead:
			d.k.FailedAtDead++
		case r.Err != nil:
			d.k.FailedAtOthers++
		}
		if after := f.Time.Sub(d.died); atDead && f.Time.Before(d.reborn) {
			d.k.LastSentMS = max(d.k.LastSentMS, after.Milliseconds())
		} else if again := f.Time.Sub(d.reborn).Milliseconds(); atDead && (d.k.FirstAgainMS == 0 || again < d.k.FirstAgainMS) {
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
