// Package control turns configuration, health and neighbours into snapshots for the workers: one goroutine,
// one reconcile loop. Whatever changes, the loop looks at the whole present state, builds
// what should be, compares it with what is published, and publishes it if it differs.
package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"time"

	"xlvs/control/announce"
	"xlvs/control/config"
	"xlvs/control/flowlog"
	"xlvs/control/health"
	"xlvs/control/neigh"
	"xlvs/dataplane"
	"xlvs/dataplane/steer"
	"xlvs/dataplane/table"
)

// A Datapath is what the controller feeds.
type Datapath interface {
	// Apply makes the steering program's rules those given.
	Apply(steer.Rules) error
	// SetMAC tells the steering program of interface i its MAC address.
	SetMAC(i int, mac net.HardwareAddr) error
	// Steered returns the steering program's counters of interface i.
	Steered(i int) (steer.Counters, error)
}

// Options of a Controller. Engine, Datapath and Log stay the caller's to close.
type Options struct {
	Config   *config.Config
	File     string
	Version  string
	Engine   *dataplane.Engine
	Datapath Datapath
	Log      *flowlog.Log
}

// A Controller runs the control loop. Make one with New, let Run go on until the end, then Close it.
type Controller struct {
	opt     Options
	log     *flowlog.Log
	engine  *dataplane.Engine
	health  *health.Monitor
	neigh   *neigh.Resolver
	ann     *announce.Announcer
	kick    chan struct{} // capacity 1: health results wait
	reloads chan reload
	started time.Time
	run     sync.WaitGroup

	// The fields below belong to the loop, or are read by the API under mu.
	mu           sync.Mutex
	conf         *config.Config
	services     []*service
	serviceSlots *slots
	backendSlots *slots
	names        map[table.Ref]backendName // of every backend that a flow may still name
	facts        []neigh.Facts             // by interface
	hops         map[netip.Addr]hopState   // what the log last said of next hops
	generation   uint64
	rulesNow     steer.Rules
	vips         []netip.Addr

	results chan health.Update
	drain   drain
}

type reload struct {
	conf  *config.Config
	reply chan error
}

// slotRest is how long a slot stays empty beyond the longest flow timeout.
const slotRest = time.Minute

// New opens what the loop needs (netlink, health checks, announcements), looks at interfaces and next
// hops once, and publishes a first snapshot. Close undoes it.
func New(o Options) (_ *Controller, err error) {
	c := &Controller{
		opt: o, log: o.Log, engine: o.Engine, conf: o.Config, started: time.Now(),
		kick: make(chan struct{}, 1), reloads: make(chan reload), results: make(chan health.Update, 1024),
		names: map[table.Ref]backendName{}, hops: map[netip.Addr]hopState{}, facts: make([]neigh.Facts, len(o.Config.Interfaces)),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	rest := longest(&o.Config.Director.Timeouts) + slotRest
	c.serviceSlots, c.backendSlots = newSlots(table.MaxServices, rest), newSlots(table.MaxBackends, rest)
	if c.neigh, err = neigh.New(neigh.Options{Warn: func(err error) { c.log.Emit(flowlog.Warning{Part: "neigh", Err: err}) }}); err != nil {
		return nil, err
	}
	c.ann = announce.New(announce.Options{OnConflict: func(x announce.Conflict) {
		c.log.Emit(flowlog.VIPConflict{Address: x.VIP, MAC: mac(x.MAC), Interface: x.Interface})
	}})
	c.health = health.New(health.Options{Notify: func(u health.Update) { c.results <- u }})
	return c, c.apply(o.Config)
}

func longest(t *config.Timeouts) time.Duration {
	return max(t.Established, t.SynRecv, t.FinWait, t.TimeWait, t.Close, t.CloseWait, t.LastAck, t.UDP, 2*time.Minute)
}

// Run is the reconcile loop. It returns when ctx ends.
func (c *Controller) Run(ctx context.Context) {
	drain := time.NewTicker(drainEvery)
	defer drain.Stop()
	for {
		select {
		case <-ctx.Done():
			c.drainEvents(true)
			return
		case u := <-c.results:
			c.mu.Lock()
			c.result(u)
			c.moreResults()
			c.reconcileLogged()
			c.mu.Unlock()
		case <-c.neigh.Changed():
			c.mu.Lock()
			c.reconcileLogged()
			c.mu.Unlock()
		case r := <-c.reloads:
			r.reply <- c.take(r.conf)
		case <-drain.C:
			c.drainEvents(false)
		}
	}
}

// moreResults takes the results that wait already, so that many changes give one snapshot.
func (c *Controller) moreResults() {
	for {
		select {
		case u := <-c.results:
			c.result(u)
		default:
			return
		}
	}
}

// result notes what a health check found.
func (c *Controller) result(u health.Update) {
	for _, s := range c.services {
		for _, b := range s.backends {
			if b.check != u.ID || b.up == u.Up && !b.since.IsZero() {
				continue
			}
			b.up, b.why, b.since = u.Up, u.Reason, u.At
			if u.Up {
				c.log.Emit(flowlog.BackendUp{Service: s.conf.Name, Backend: b.conf.Name, Address: b.conf.Address, Reason: u.Reason})
			} else {
				c.log.Emit(flowlog.BackendDown{Service: s.conf.Name, Backend: b.conf.Name, Address: b.conf.Address, Reason: u.Reason})
			}
		}
	}
}

// Reload puts another configuration into force, whole or not at all: an error says what stands
// against it, and everything goes on as before. Run must be running.
func (c *Controller) Reload(ctx context.Context, conf *config.Config) error {
	r := reload{conf, make(chan error, 1)}
	select {
	case c.reloads <- r:
		return <-r.reply
	case <-ctx.Done():
		return ctx.Err()
	}
}

// take checks that a new configuration can be had without a restart, and applies it.
func (c *Controller) take(conf *config.Config) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := *c.conf
	a, b := old.Director, conf.Director
	a.Timeouts, b.Timeouts = config.Timeouts{}, config.Timeouts{}
	if !reflect.DeepEqual(a, b) {
		return errors.New("the section `director` has changed (beyond `timeouts`): that takes a restart; nothing of the new file was applied")
	}
	if !reflect.DeepEqual(old.Interfaces, conf.Interfaces) {
		return errors.New("the section `interfaces` has changed: that takes a restart; nothing of the new file was applied")
	}
	if err := c.apply(conf); err != nil {
		return errors.Join(fmt.Errorf("the new configuration could not be applied, the old one stays in force: %w", err), c.apply(&old))
	}
	return nil
}

// apply makes conf the configuration. Backends that stay keep their slots, their health and their flows.
func (c *Controller) apply(conf *config.Config) error {
	services := model(conf)
	var skeys, bkeys []string
	for _, s := range services {
		skeys = append(skeys, s.key)
		for _, b := range s.backends {
			bkeys = append(bkeys, b.key)
		}
	}
	now := time.Now()
	if err := c.serviceSlots.assign(skeys, now); err != nil {
		return fmt.Errorf("services: %w", err)
	}
	if err := c.backendSlots.assign(bkeys, now); err != nil {
		return fmt.Errorf("backends: %w", err)
	}
	c.inherit(services)
	c.conf, c.services = conf, services
	c.nameBackends()
	c.health.Set(targets(services))
	c.neigh.Set(wants(services))
	if err := c.reconcile(); err != nil {
		return err
	}
	c.log.Emit(flowlog.ConfigApplied{Generation: c.generation, Services: len(services), Backends: len(bkeys), File: c.opt.File})
	return nil
}

// inherit carries what is known of services and backends over to their successors.
func (c *Controller) inherit(next []*service) {
	oldServices, oldBackends := map[string]*service{}, map[string]*backend{}
	for _, s := range c.services {
		oldServices[s.key] = s
		for _, b := range s.backends {
			oldBackends[b.key] = b
		}
	}
	for _, s := range next {
		if o := oldServices[s.key]; o != nil {
			s.table, s.tableOf, s.members = o.table, o.tableOf, o.members
		}
		for _, b := range s.backends {
			if o := oldBackends[b.key]; o != nil {
				b.hop, b.out, b.lost, b.since = o.hop, o.out, o.lost, o.since
				if b.check != "" && o.check != "" {
					b.up, b.why = o.up, o.why
				}
			}
			if b.check == "" {
				continue
			}
			if st, ok := c.health.Status(b.check); ok && st.Known {
				b.up, b.why, b.since = st.Up, st.Reason, st.At
			}
		}
	}
}

// targets are the health checks that the services ask for, each once.
func targets(services []*service) []health.Target {
	var out []health.Target
	seen := map[string]bool{}
	for _, s := range services {
		h := s.conf.Health
		if h == nil {
			continue
		}
		for _, b := range s.backends {
			if seen[b.check] {
				continue
			}
			seen[b.check] = true
			out = append(out, health.Target{ID: b.check, Addr: checkAddr(h, b.conf), Spec: health.Spec{
				Type: h.Type, Path: h.Path, Host: h.Host, Status: h.Status,
				Interval: h.Interval, Timeout: h.Timeout, Rise: h.Rise, Fall: h.Fall}})
		}
	}
	return out
}

// wants are the backends whose next hops are needed.
func wants(services []*service) []neigh.Want {
	byAddr := map[netip.Addr]neigh.Want{}
	for _, s := range services {
		for _, b := range s.backends {
			w := neigh.Want{Addr: b.conf.Address.Unmap()}
			if !b.conf.MAC.IsZero() {
				w.MAC = net.HardwareAddr(b.conf.MAC[:])
			}
			if old, ok := byAddr[w.Addr]; !ok || old.MAC == nil {
				byAddr[w.Addr] = w
			}
		}
	}
	out := make([]neigh.Want, 0, len(byAddr))
	for _, w := range byAddr {
		out = append(out, w)
	}
	return out
}

func (c *Controller) reconcileLogged() {
	if err := c.reconcile(); err != nil {
		c.log.Emit(flowlog.Warning{Part: "reconcile", Err: err})
	}
}

// reconcile brings workers, steering and announcements in line with the present state.
func (c *Controller) reconcile() error {
	c.lookAtInterfaces()
	c.lookAtNextHops()
	snap, published, err := c.build()
	if err != nil {
		return err
	}
	if now := c.engine.Snapshot(); !sameSnapshot(now, snap) {
		c.engine.Publish(snap)
		c.generation = snap.Generation
		for _, p := range published {
			c.log.Emit(p)
		}
	}
	if err := c.announceAll(); err != nil {
		c.log.Emit(flowlog.Warning{Part: "announce", Err: err})
	}
	return c.steerAll()
}

// sameSnapshot reports whether workers would act alike on both.
func sameSnapshot(a, b *table.Snapshot) bool {
	return a.Timeouts == b.Timeouts && slices.Equal(a.Ports, b.Ports) && slices.Equal(a.Backends, b.Backends) &&
		slices.EqualFunc(a.Services, b.Services, func(x, y table.Service) bool {
			sx, sy, mx, my := x.Slots, y.Slots, x.Members, y.Members
			x.Slots, y.Slots, x.Members, y.Members = nil, nil, nil, nil
			return reflect.DeepEqual(x, y) && slices.Equal(mx, my) && len(sx) == len(sy) &&
				(len(sx) == 0 || &sx[0] == &sy[0])
		})
}

func (c *Controller) steerAll() error {
	r := c.rules()
	if reflect.DeepEqual(r, c.rulesNow) {
		return nil
	}
	if err := c.opt.Datapath.Apply(r); err != nil {
		return err
	}
	c.rulesNow = r
	return nil
}

// Close ends checks, announcements and netlink; neighbour entries that were asked for are deleted. Run must have returned.
func (c *Controller) Close() error {
	var errs []error
	if c.health != nil {
		done := make(chan struct{})
		go func() { // results that nobody waits for must not hold the monitor up
			defer close(done)
			c.health.Close()
		}()
		for open := true; open; {
			select {
			case <-c.results:
			case <-done:
				open = false
			}
		}
	}
	if c.ann != nil {
		errs = append(errs, c.ann.Close())
	}
	if c.neigh != nil {
		errs = append(errs, c.neigh.Close())
	}
	return errors.Join(errs...)
}
