package control

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"xlvs/control/announce"
	"xlvs/control/config"
	"xlvs/control/flowlog"
	"xlvs/control/health"
	"xlvs/dataplane"
	"xlvs/dataplane/steer"
)

// A Rehearsal is a controller for an engine in memory: the whole control loop, but that next hops come from the
// configuration, its user says what health checks find, and nothing is steered, announced or kept of the log.
type Rehearsal struct {
	*Controller
	log *flowlog.Log
}

// NewRehearsal publishes a first snapshot, in which every backend that has a health check is down. Close undoes it.
func NewRehearsal(conf *config.Config, e *dataplane.Engine) (*Rehearsal, error) {
	log, err := flowlog.New(flowlog.Options{Output: os.DevNull})
	if err != nil {
		return nil, err
	}
	r := &Rehearsal{newController(Options{Config: conf, Engine: e, Datapath: nowhere{}, Log: log}), log}
	r.parts = parts{neigh: newFileHops(conf), health: nowhere{}, announce: silence{}}
	if err := r.start(); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

// Result says what the checks of a backend find, in every service that has one of that name; "" stands for all backends.
func (r *Rehearsal) Result(name string, up bool) error {
	found := false
	for id, all := range r.byCheck {
		if name == "" || slices.ContainsFunc(all, func(b *backend) bool { return b.conf.Name == name }) {
			r.inbox.put(health.Update{ID: id, Up: up, At: time.Now(), Reason: "rehearsed"})
			found = true
		}
	}
	if !found {
		return fmt.Errorf("no backend called %q is checked", name)
	}
	return nil
}

// Reconcile acts on results as the loop does. It returns after how long workers knew, and after how long they had
// the new tables; these are the same where there was nothing to publish ahead. Run must not be running.
func (r *Rehearsal) Reconcile() (known, built time.Duration, err error) {
	start, before := time.Now(), r.engine.Snapshot()
	r.takeResults(r.inbox.take())
	r.lookAtInterfaces()
	r.lookAtHops(r.services)
	r.standIn()
	if r.engine.Snapshot() != before {
		known = time.Since(start)
	}
	err = r.install(r.conf, r.services)
	if built = time.Since(start); known == 0 {
		known = built
	}
	r.report(time.Now())
	r.writeLines()
	return known, built, err
}

// Close ends the rehearsal; the engine stays its owner's.
func (r *Rehearsal) Close() error { return errors.Join(r.Controller.Close(), r.log.Close()) }

// nowhere is a steering program and health checks that do nothing, silence an announcer that says nothing.
type nowhere struct{}

func (nowhere) Apply(steer.Rules) error                  { return nil }
func (nowhere) SetMAC(int, net.HardwareAddr) error       { return nil }
func (nowhere) Steered(int) (steer.Counters, error)      { return steer.Counters{}, nil }
func (nowhere) Set([]health.Target)                      {}
func (nowhere) Status(string) (s health.Status, ok bool) { return s, false }
func (nowhere) Cut(string, bool)                         {}
func (nowhere) Close()                                   {}

type silence struct{}

func (silence) Set([]announce.Interface, []netip.Addr) error { return nil }
func (silence) Status() []announce.Status                    { return nil }
func (silence) Close() error                                 { return nil }
