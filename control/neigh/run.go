package neigh

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
)

// A flood of route changes must not become a flood of lookups: a refresh follows the first event by
// settle, and the next one by at least holdoff.
const (
	settle  = 5 * time.Millisecond
	holdoff = 100 * time.Millisecond
)

// A path is the route to a wanted address and the neighbour it leads to, or why there is none.
type path struct {
	route route
	key   neighKey // zero when err is set or the MAC is static
	err   error
}

// start subscribes before it reads, so that no change falls in between.
func (r *Resolver) start() error {
	events, stop, err := r.kernel.subscribe()
	if err != nil {
		return err
	}
	if err := r.resync(); err != nil {
		stop()
		return err
	}
	go r.run(events, stop)
	return nil
}

func (r *Resolver) run(events <-chan event, stop func()) {
	defer close(r.stopped)
	retry := time.NewTicker(r.opt.Retry)
	defer retry.Stop()
	resync := time.NewTicker(r.opt.Resync)
	defer resync.Stop()
	refresh := time.NewTimer(time.Hour)
	refresh.Stop()
	var pending bool
	var last time.Time
	for {
		select {
		case <-r.done:
			if stop != nil {
				stop()
			}
			r.cleanup()
			r.kernel.close()
			return
		case <-r.kick:
			r.lookupAll()
			r.publish()
		case <-r.doubt:
			r.verifyDoubted()
		case e, ok := <-events:
			if !ok {
				// Lost messages (ENOBUFS) or a broken socket: begin anew at the next retry.
				stop()
				events, stop = nil, nil
				r.warn(errors.New("netlink subscription broke, subscribing again"))
				continue
			}
			changed, refreshing := r.take(e)
			if refreshing && !pending {
				pending = true
				refresh.Reset(max(settle, holdoff-time.Since(last)))
			}
			if changed {
				r.publish()
			}
		case <-refresh.C:
			pending, last = false, time.Now()
			r.warn(r.readLinks())
			r.lookupAll()
			r.publish()
		case <-retry.C:
			if events == nil {
				events, stop = r.resubscribe()
			}
			r.probeAll()
		case <-resync.C:
			r.warn(r.resync())
		}
	}
}

// warnAgain is how long the same warning is held back: what fails is retried every Retry.
const warnAgain = 30 * time.Second

func (r *Resolver) warn(err error) {
	if err == nil {
		return
	}
	now := time.Now()
	maps.DeleteFunc(r.warned, func(_ string, at time.Time) bool { return now.Sub(at) >= warnAgain })
	if _, held := r.warned[err.Error()]; !held {
		r.warned[err.Error()] = now
		r.opt.Warn(err)
	}
}

func (r *Resolver) resubscribe() (<-chan event, func()) {
	events, stop, err := r.kernel.subscribe()
	if err != nil {
		r.warn(err)
		return nil, nil
	}
	r.warn(r.resync())
	return events, stop
}

// take applies the news that an event carries. It tells whether an answer may have changed, and whether all must be looked at anew.
func (r *Resolver) take(e event) (changed, refresh bool) {
	if e.ifindex != 0 {
		if e.running {
			r.cameUp(e.ifindex)
		}
		r.running[e.ifindex] = e.running
		if f, ok := r.seen[e.ifindex]; ok && f.Up && !e.running {
			f.Up = false
			r.seen[e.ifindex] = f
			r.cut(f)
			return true, e.refresh
		}
	}
	if e.neigh == nil {
		return false, e.refresh
	}
	n, old := *e.neigh, r.table[e.neigh.key]
	if e.gone {
		n = neighbour{key: n.key}
		delete(r.table, n.key)
		delete(r.probed, n.key)
	} else {
		r.table[n.key] = n
	}
	wanted := false
	for _, p := range r.paths {
		if p.key == n.key {
			wanted = true
			break
		}
	}
	if wanted && e.gone {
		// A carrier that is lost takes the entries with it before anybody is told of the loss.
		return false, true
	}
	if wanted && (n.state&netlink.NUD_STALE != 0 || n.state&netlink.NUD_FAILED != 0 && valid(old)) {
		r.probe(n.key, time.Now())
	}
	// Most notifications only tell of the entry's ageing.
	return wanted && (valid(n) != valid(old) || !slices.Equal(n.mac, old.mac)), e.refresh
}

// cameUp notes that a link is up. Whoever was asked before is asked again at once.
func (r *Resolver) cameUp(ifindex int) {
	if r.running[ifindex] {
		return
	}
	r.ups[ifindex]++
	maps.DeleteFunc(r.probed, func(k neighKey, _ time.Time) bool { return k.ifindex == ifindex })
}

// cut says why nothing is reached any more by a link that has gone down, ahead of what the kernel will say of routes.
func (r *Resolver) cut(link Facts) {
	for addr, p := range r.paths {
		if p.route.ifindex == link.Index && p.err == nil {
			r.paths[addr] = path{route: p.route, err: downError(addr, link)}
		}
	}
}

func valid(n neighbour) bool { return n.state&nudValid != 0 && len(n.mac) == 6 }

// resync reads everything anew.
func (r *Resolver) resync() error {
	if err := r.readLinks(); err != nil {
		return err
	}
	list, err := r.kernel.neighbours()
	if err != nil {
		return err
	}
	clear(r.table)
	for _, n := range list {
		r.table[n.key] = n
	}
	r.lookupAll()
	r.publish()
	return nil
}

func (r *Resolver) readLinks() error {
	list, err := r.kernel.interfaces()
	if err != nil {
		return err
	}
	clear(r.seen)
	for _, f := range list {
		if _, known := r.running[f.Index]; known && f.Up {
			r.cameUp(f.Index)
		}
		r.running[f.Index] = f.Up
		f.Ups = r.ups[f.Index]
		r.seen[f.Index] = f
	}
	for i := range r.running {
		if _, ok := r.seen[i]; !ok {
			delete(r.running, i)
			delete(r.ups, i)
		}
	}
	return nil
}

// lookupAll asks the route to every wanted address and makes the kernel resolve what is missing.
func (r *Resolver) lookupAll() {
	clear(r.paths)
	for addr, w := range r.wanted() {
		r.paths[addr] = r.lookup(w)
	}
	maps.DeleteFunc(r.last, func(a netip.Addr, _ int) bool { _, ok := r.paths[a]; return !ok })
	r.probeAll()
}

func (r *Resolver) wanted() map[netip.Addr]Want {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.wants // replaced by Set, never changed
}

func (r *Resolver) lookup(w Want) path {
	rt, err := r.kernel.route(w.Addr)
	p := path{route: rt, err: err}
	if err != nil {
		return p
	}
	link, known := r.seen[rt.ifindex]
	if rt.kind == unicast {
		r.last[w.Addr] = rt.ifindex
	}
	switch {
	case rt.kind == unreachable:
		p.err = r.noRoute(w.Addr)
	case rt.kind == local:
		p.err = fmt.Errorf("%v is this host's own address", w.Addr)
	case rt.kind == unusable:
		p.err = fmt.Errorf("%v is a broadcast, multicast or anycast address", w.Addr)
	case !known:
		p.err = fmt.Errorf("%v is on interface number %d, which is not known yet", w.Addr, rt.ifindex)
	case !link.Up:
		p.err = downError(w.Addr, link)
	case len(link.MAC) != 6:
		p.err = fmt.Errorf("%v is on %s, which is no Ethernet interface", w.Addr, link.Name)
	case w.MAC == nil:
		p.key = neighKey{rt.ifindex, w.Addr.WithZone("")}
		if rt.gateway.IsValid() {
			p.key.addr = rt.gateway
		}
	}
	return p
}

// publish works the answers out and signals when one changed.
func (r *Resolver) publish() {
	hops := make(map[netip.Addr]answer, len(r.paths))
	for addr, w := range r.wanted() {
		if p, ok := r.paths[addr]; ok {
			hops[addr] = r.answer(w, p)
		}
	}
	links, locals := r.facts()
	r.mu.Lock()
	same := maps.EqualFunc(hops, r.hops, answer.equal) && maps.EqualFunc(links, r.links, Facts.equal) &&
		slices.Equal(locals, r.locals)
	r.hops, r.links, r.locals = hops, links, locals
	r.mu.Unlock()
	if !same {
		signal(r.changed)
	}
}

func (r *Resolver) facts() (map[string]Facts, []netip.Addr) {
	links := make(map[string]Facts, len(r.seen))
	var locals []netip.Addr
	for _, f := range r.seen {
		links[f.Name] = f
		for _, p := range f.Addrs {
			locals = append(locals, p.Addr())
		}
	}
	slices.SortFunc(locals, netip.Addr.Compare)
	return links, slices.Compact(locals)
}
