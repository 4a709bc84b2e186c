package control

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"xlvs/control/config"
	"xlvs/control/flowlog"
	"xlvs/control/neigh"
	"xlvs/dataplane/steer"
)

type reload struct {
	conf  *config.Config
	reply chan error
}

// Reload puts another configuration into force, whole or not at all: an error says what stands
// against it (config.Changes: a restart), and everything goes on as before. Run must be running.
func (c *Controller) Reload(ctx context.Context, conf *config.Config) error {
	r := reload{conf, make(chan error, 1)}
	select {
	case c.reloads <- r:
		return <-r.reply
	case <-c.ended:
		return errors.New("the director is about to end")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reload checks that a new configuration can be had without a restart, and applies it.
func (c *Controller) reload(conf *config.Config) error {
	if err := config.Fixed(c.conf, conf); err != nil {
		return err
	}
	if err := c.apply(conf); err != nil {
		return fmt.Errorf("the new configuration could not be applied, the old one stays in force: %w", err)
	}
	return nil
}

// apply makes conf the configuration. Until adopt, nothing that is in force is given up, so that there is a way back.
func (c *Controller) apply(conf *config.Config) error {
	now := time.Now()
	next := model(conf, now)
	if err := c.tryOut(conf, next, now); err != nil {
		c.goBack(now)
		return err
	}
	c.adopt(conf, next, now)
	c.tellChecks()
	c.say(flowlog.ConfigApplied{Generation: c.generation, Services: len(next), Backends: backendsOf(next), File: c.opt.File})
	c.report(now)
	return nil
}

// tryOut brings workers and steering program to the next services.
func (c *Controller) tryOut(conf *config.Config, next []*service, now time.Time) error {
	skeys, bkeys := keys(next)
	if err := c.serviceSlots.admit(skeys, now); err != nil {
		return fmt.Errorf("services: %w", err)
	}
	if err := c.backendSlots.admit(bkeys, now); err != nil {
		return fmt.Errorf("backends: %w", err)
	}
	c.inherit(next)
	// Next hops are looked up before the checks start: connections of a check would create neighbour entries, which the
	// resolver takes for somebody else's and leaves behind at the end.
	c.neigh.Set(wants(slices.Concat(c.services, next)))
	c.awaitHops(next)
	c.lookAtInterfaces()
	c.lookAtHops(next)
	if _, err := steer.NewRuleSet(c.rules(next)); err != nil {
		return err
	}
	return c.install(conf, next)
}

// goBack undoes what tryOut may have done.
func (c *Controller) goBack(now time.Time) {
	skeys, bkeys := keys(c.services)
	c.serviceSlots.keep(skeys, now)
	c.backendSlots.keep(bkeys, now)
	c.neigh.Set(wants(c.services))
	if err := c.install(c.conf, c.services); err != nil {
		c.warn("reconcile", "", err)
	}
	c.due.within(gather) // news may have come that only the next services were told
}

// adopt makes the services that are installed the present ones, and gives up what only the former had.
func (c *Controller) adopt(conf *config.Config, next []*service, now time.Time) {
	skeys, bkeys := keys(next)
	// Never less than before: flows of a service that goes now keep the timeouts that it had.
	rest := max(c.serviceSlots.rest, longest(conf)+slotRest)
	c.serviceSlots.rest, c.backendSlots.rest = rest, rest
	c.serviceSlots.keep(skeys, now)
	c.backendSlots.keep(bkeys, now)
	old := c.backendsByKey()
	c.byCheck = map[string][]*backend{}
	c.checkIDs = map[string]string{}
	for _, s := range next {
		for _, b := range s.backends {
			if b.check != "" {
				c.byCheck[b.check] = append(c.byCheck[b.check], b)
				c.checkIDs[b.def] = b.check
			}
			if o := old[b.key]; o != nil && o.up != b.up {
				c.say(stateLine(b))
			}
		}
	}
	c.mu.Lock()
	c.conf, c.services = conf, next
	c.mu.Unlock()
	c.nameBackends(now)
	c.neigh.Set(wants(next))
	c.parts.health.Set(targets(next))
}

func keys(services []*service) (ofServices, ofBackends []string) {
	for _, s := range services {
		ofServices = append(ofServices, s.key)
		for _, b := range s.backends {
			ofBackends = append(ofBackends, b.key)
		}
	}
	return ofServices, ofBackends
}

func (c *Controller) backendsByKey() map[string]*backend {
	m := map[string]*backend{}
	for _, s := range c.services {
		for _, b := range s.backends {
			m[b.key] = b
		}
	}
	return m
}

// inherit gives the next services their slots, and carries over what is known of their predecessors.
func (c *Controller) inherit(next []*service) {
	oldServices, oldBackends := map[string]*service{}, c.backendsByKey()
	for _, s := range c.services {
		oldServices[s.key] = s
	}
	c.nameChecks(next, oldBackends)
	for _, s := range next {
		s.ref = c.serviceSlots.ref(s.key)
		s.static.Ref = s.ref
		if o := oldServices[s.key]; o != nil {
			s.built, s.members, s.logged, s.began = o.built, o.members, o.logged, o.began
		}
		for _, b := range s.backends {
			b.ref = c.backendSlots.ref(b.key)
			b.static.Ref, b.static.Service = b.ref, s.ref
			o := oldBackends[b.key]
			if o == nil {
				b.base = c.engine.Backend(b.ref.Slot())
			} else {
				b.base = o.base
			}
			c.inheritState(b, o)
		}
	}
}

// inheritState decides whether b is up until its check says more. o is its predecessor, or nil. One that counted as up
// without a check is not taken down for getting one, nor for getting another.
func (c *Controller) inheritState(b, o *backend) {
	if b.check == "" {
		if o != nil && o.up {
			b.since = o.since
		}
		return
	}
	if st, ok := c.parts.health.Status(b.check); ok && st.Known {
		b.up, b.known, b.why, b.since = st.Up, true, st.Reason, st.At
		return
	}
	if o != nil && o.up {
		b.up, b.since = true, o.since
	}
}

// nameChecks gives each check its ID. Backends with the same host, port and kind of check share one, in whatever
// services they are. A check that takes the place of a backend's former one gets its ID, and with it its
// state and damping: a changed interval is no reason for a backend to go down.
func (c *Controller) nameChecks(next []*service, old map[string]*backend) {
	ids, taken := map[string]string{}, map[string]bool{}
	each := func(do func(*backend)) {
		for _, s := range next {
			for _, b := range s.backends {
				if b.def != "" {
					do(b)
				}
			}
		}
	}
	each(func(b *backend) {
		if id, ok := c.checkIDs[b.def]; ok {
			ids[b.def], taken[id] = id, true
		}
	})
	each(func(b *backend) {
		o := old[b.key]
		if ids[b.def] == "" && o != nil && o.check != "" && !taken[o.check] {
			ids[b.def], taken[o.check] = o.check, true
		}
	})
	each(func(b *backend) {
		if ids[b.def] == "" {
			c.checkCount++
			ids[b.def] = strconv.Itoa(c.checkCount)
		}
		b.check = ids[b.def]
	})
}

// hopsWithin is how long a reload waits for the first look-up of new addresses.
const hopsWithin = 100 * time.Millisecond

func (c *Controller) awaitHops(next []*service) {
	late := time.After(hopsWithin)
	for c.pending(next) {
		select {
		case <-c.neigh.Changed():
		case <-late:
			return
		}
	}
}

func (c *Controller) pending(next []*service) bool {
	for _, s := range next {
		for _, b := range s.backends {
			if _, err := c.neigh.Lookup(b.conf.Address.Unmap()); errors.Is(err, neigh.ErrPending) {
				return true
			}
		}
	}
	return false
}
