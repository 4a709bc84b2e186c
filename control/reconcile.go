package control

import (
	"errors"
	"slices"
	"time"

	"xlvs/control/config"
	"xlvs/control/flowlog"
	"xlvs/dataplane/table"
	"xlvs/maglev"
)

// retryAfter is when the loop tries again what the kernel refused.
const retryAfter = time.Second

// reconcile brings workers, steering and announcements in line with the present state.
func (c *Controller) reconcile() {
	now := time.Now()
	c.lookAtInterfaces()
	c.lookAtHops(c.services)
	c.tellChecks()
	c.standIn()
	err := c.install(c.conf, c.services)
	if err != nil {
		c.due.within(retryAfter)
	}
	c.warn("reconcile", "", err)
	c.report(now)
	c.writeLines()
}

// standIn publishes deaths ahead of the tables without the dead, if there is more than one such table to build, at
// some milliseconds each: until those are there, new flows of a dead backend's slots go to others (table.Snapshot.Pick).
func (c *Controller) standIn() {
	building := map[string]bool{}
	var key []byte
	var refs []table.Ref
	for _, s := range c.services {
		if !slices.ContainsFunc(s.backends, func(b *backend) bool { return b.shown.up && !b.up }) {
			continue
		}
		if key, refs = s.tableInputs(key[:0], refs[:0]); c.tables[string(key)] == nil {
			building[string(key)] = true
		}
		if len(building) > 1 {
			break
		}
	}
	if len(building) < 2 || slices.ContainsFunc(c.services, func(s *service) bool { return s.built == nil }) {
		return
	}
	d := &draft{services: c.services, tables: make([]*built, len(c.services)), members: make([][]table.Ref, len(c.services))}
	for i, s := range c.services {
		d.tables[i], d.members[i] = s.built, s.members
	}
	if err := c.snapshot(c.conf, d); err != nil {
		c.warn("reconcile", "", err) // and the tables follow all the same
		return
	}
	c.publish(d)
}

// report is what follows once workers have their snapshot: answering for VIPs, and the log.
func (c *Controller) report(now time.Time) {
	c.tellHops(now)
	c.tellTables(now)
	c.announce()
}

// announce answers for VIPs once their packets reach the workers: a neighbour that was told earlier would send them to a host
// which has no such address.
func (c *Controller) announce() {
	if !c.attached {
		return
	}
	err := c.announceAll()
	if err != nil {
		c.due.within(retryAfter)
	}
	c.warn("announce", "", err)
}

// install makes services what workers and steering program act on. The order is such that no frame is steered
// to workers which do not know its service: rules go before the snapshot that lacks it, and come after the one that has it.
func (c *Controller) install(conf *config.Config, services []*service) error {
	d, err := c.draft(conf, services)
	if err != nil {
		return err
	}
	rules := c.rules(services)
	if err := c.steering.shrink(c.opt.Datapath, rules); err != nil {
		return err
	}
	c.publish(d)
	return c.steering.apply(c.opt.Datapath, rules)
}

// publish gives a draft to the workers and notes what they have.
func (c *Controller) publish(d *draft) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !d.same {
		c.engine.Publish(d.snap)
		c.generation, c.last = d.snap.Generation, d.inputs
	}
	tables := make(map[string]*built, len(c.tables))
	for i, s := range d.services {
		s.built, s.members = d.tables[i], d.members[i]
		tables[s.built.key] = s.built
		for _, b := range s.backends {
			b.shown = b.state
		}
	}
	c.tables = tables
}

// tellTables logs the tables that are new since it last did. A service that begins is told of once its first results are in, and not
// for each of them.
func (c *Controller) tellTables(now time.Time) {
	moved := map[[2]*built]int{} // services that share both tables share the figure
	for _, s := range c.services {
		if s.logged == s.built {
			continue
		}
		if s.logged == nil && s.settling(now) {
			c.due.within(s.began.Add(s.settled()).Sub(now))
			continue
		}
		change := [2]*built{s.logged, s.built}
		n, ok := moved[change]
		if !ok {
			n = maglev.Moved(s.logged.maglev(), s.built.table)
			moved[change] = n
		}
		s.logged = s.built
		c.say(flowlog.TablePublished{Service: s.conf.Name, Generation: c.generation, Backends: len(s.members),
			Slots: len(s.built.table.Slots()), SlotsMoved: n, Build: s.built.took})
	}
}

func (b *built) maglev() *maglev.Table {
	if b == nil {
		return nil
	}
	return b.table
}

// Attached tells the controller that the steering programs are on the interfaces now: they learn their MAC
// addresses, and VIPs are answered for from here on. It comes between New and Run.
func (c *Controller) Attached() error {
	var errs []error
	for i, f := range c.facts {
		c.macs[i] = nil
		err := c.opt.Datapath.SetMAC(i, f.MAC)
		if err == nil {
			c.macs[i] = f.MAC
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	c.attached = true
	c.announce()
	c.writeLines()
	return nil
}
