// Package control turns configuration, health and neighbours into snapshots for the workers: one goroutine,
// one reconcile loop. Whatever changes, the loop looks at the whole present state, builds
// what should be, compares it with what is published, and publishes it if it differs.
package control

import (
	"context"
	"errors"
	"net"
	"net/netip"
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

// A Datapath is what the controller feeds. Steered may be called at the same time as the others.
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
	MaxMTU   int // the largest that packet memory has room for; 0: any
	Log      *flowlog.Log
}

// A Controller runs the control loop. Make one with New, let Run go on until the end, then Close it.
type Controller struct {
	opt     Options
	log     *flowlog.Log
	engine  *dataplane.Engine
	parts   parts
	neigh   nextHops
	inbox   inbox
	reloads chan reload
	ended   chan struct{} // closed when Run returns
	started time.Time

	// The loop alone writes these, and what services and backends show, under mu, and so reads them without; the API reads
	// them under mu.
	mu         sync.RWMutex
	conf       *config.Config
	services   []*service
	facts      []neigh.Facts // by interface
	vlans      []vlan        // found so far, in the order of their ports behind those of interfaces
	generation uint64        // published last

	// These are the loop's alone.
	last                       inputs // of the snapshot that is published
	serviceSlots, backendSlots *slots
	tables                     map[string]*built // in use, by key
	byCheck                    map[string][]*backend
	checkIDs                   map[string]string // of the checks in use, by definition
	checkCount                 int
	names                      map[table.Ref]backendName // of every backend that a flow may still name
	steering                   steering
	attached                   bool               // the steering programs are on the interfaces
	macs                       []net.HardwareAddr // by interface: what the datapath was told
	hops                       map[routeKey]*hopState
	vips                       vips
	warned                     map[string]string   // by part and subject: the warning that holds
	keeping                    map[string]linkTime // by interface: when keeping its addresses was last tried
	cut                        map[string]bool     // IDs of checks whose targets this host cannot reach by its own fault
	fatal                      error               // why Run has to end
	lines                      []flowlog.Record    // written once all that is urgent is done
	due                        deadline
	drain                      drain
}

// parts are what the loop listens to and acts through, beside the datapath.
type parts struct {
	neigh    nextHops
	health   checks
	announce announcer
}

type nextHops interface {
	Set([]neigh.Want)
	Changed() <-chan struct{}
	Lookup(netip.Addr) (neigh.Hop, error)
	Locals() []netip.Addr
	Interface(string) (neigh.Facts, bool)
	VLANs() []neigh.Facts
	KeepAddresses(string) (*neigh.Setting, error)
	Doubt(netip.Addr)
	Close() error
}

type checks interface {
	Set([]health.Target)
	Status(id string) (health.Status, bool)
	Cut(id string, cut bool)
	Close()
}

type announcer interface {
	Set([]announce.Interface, []netip.Addr) error
	Status() []announce.Status
	Close() error
}

// slotRest is how long a slot stays empty beyond the longest flow timeout.
const slotRest = time.Minute

// New opens what the loop needs (netlink, health checks, announcements), looks at interfaces and next
// hops once, and publishes a first snapshot. Nothing is announced before Attached. Close undoes it.
func New(o Options) (*Controller, error) {
	c := newController(o)
	var err error
	c.parts.neigh, err = neigh.New(neigh.Options{Warn: func(err error) { c.log.Emit(flowlog.Warning{Part: "neigh", Err: err}) }})
	if err != nil {
		return nil, err
	}
	c.parts.announce = announce.New(announce.Options{OnConflict: func(x announce.Conflict) {
		c.log.Emit(flowlog.VIPConflict{Address: x.VIP, MAC: mac(x.MAC), Interface: x.Interface})
	}})
	c.parts.health = health.New(health.Options{Notify: c.inbox.put, Silence: c.parts.neigh.Doubt})
	if err := c.start(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func newController(o Options) *Controller {
	rest := longest(o.Config) + slotRest
	n := len(o.Config.Interfaces)
	return &Controller{
		opt: o, log: o.Log, engine: o.Engine, conf: o.Config, started: time.Now(),
		inbox: inbox{ready: make(chan struct{}, 1)}, reloads: make(chan reload), ended: make(chan struct{}),
		facts: make([]neigh.Facts, n), macs: make([]net.HardwareAddr, n),
		serviceSlots: newSlots(table.MaxServices, rest), backendSlots: newSlots(table.MaxBackends, rest),
		tables: map[string]*built{}, checkIDs: map[string]string{}, names: map[table.Ref]backendName{},
		steering: steering{sure: true}, // rules begin empty
		hops:     map[routeKey]*hopState{}, warned: map[string]string{}, due: newDeadline(),
		keeping: map[string]linkTime{}, cut: map[string]bool{},
		drain: drain{atOnce: drainAtOnce},
	}
}

// start puts the first configuration into force.
func (c *Controller) start() error {
	c.neigh = c.parts.neigh
	if err := c.checkInterfaces(); err != nil {
		return err
	}
	err := c.apply(c.conf)
	c.writeLines()
	return err
}

// Run is the reconcile loop. It returns when ctx ends, or with an error when the director cannot go on: it has lost an interface for good.
func (c *Controller) Run(ctx context.Context) error {
	defer close(c.ended)
	drain := time.NewTicker(drainEvery)
	defer drain.Stop()
	for {
		select {
		case <-ctx.Done():
			c.drainEvents(true)
			c.writeLines()
			return nil
		case <-c.inbox.ready:
			c.takeResults(c.inbox.take())
			c.due.within(gather)
		case <-c.neigh.Changed():
			c.due.within(gather)
		case <-c.due.C:
			c.due.reached()
			c.reconcile()
		case r := <-c.reloads:
			err := c.reload(r.conf)
			c.writeLines()
			r.reply <- err
		case <-drain.C:
			c.drainEvents(false)
		}
		if c.fatal != nil {
			c.drainEvents(true)
			c.writeLines()
			return c.fatal
		}
	}
}

// say keeps a line for the log. The log may be slow; what lines tell of must not wait for it.
func (c *Controller) say(r flowlog.Record) { c.lines = append(c.lines, r) }

func (c *Controller) writeLines() {
	for _, r := range c.lines {
		c.log.Emit(r)
	}
	c.lines = nil
}

// warn says what a part failed at, once for as long as the same holds; nil ends it. about tells apart what fails on its own.
func (c *Controller) warn(part, about string, err error) {
	key := part + " " + about
	if err == nil {
		delete(c.warned, key)
		return
	}
	if c.warned[key] != err.Error() {
		c.warned[key] = err.Error()
		c.say(flowlog.Warning{Part: part, Err: err})
	}
}

// Close ends checks, announcements and netlink; neighbour entries that were asked for are deleted. Run must have
// returned. Checks end first: their connections would create such entries anew.
func (c *Controller) Close() error {
	if c.parts.health != nil {
		c.parts.health.Close()
	}
	var errs []error
	if c.parts.announce != nil {
		errs = append(errs, c.parts.announce.Close())
	}
	if c.parts.neigh != nil {
		errs = append(errs, c.parts.neigh.Close())
	}
	return errors.Join(errs...)
}
