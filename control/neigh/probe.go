package neigh

import (
	"fmt"
	"maps"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
)

// probeAll probes each neighbour that is wanted, as far as it is due, and forgets those that are not.
func (r *Resolver) probeAll() {
	now := time.Now()
	keys := map[neighKey]bool{}
	for _, p := range r.paths {
		if p.key != (neighKey{}) && !keys[p.key] {
			keys[p.key] = true
			r.probe(p.key, now)
		}
	}
	maps.DeleteFunc(r.probed, func(k neighKey, _ time.Time) bool { return !keys[k] })
}

// probe makes the kernel ask for a neighbour unless it was asked lately, or is asking already. Permanent
// and NOARP entries are somebody's decision and left alone.
func (r *Resolver) probe(k neighKey, now time.Time) {
	if !r.seen[k.ifindex].Up {
		return
	}
	n, ok := r.table[k]
	since := now.Sub(r.probed[k])
	switch {
	case n.state&netlink.NUD_STALE != 0:
		if since < r.opt.Reprobe {
			return
		}
		r.probed[k] = now
		r.warnProbe(k, r.kernel.verify(n))
	case !ok || n.state == netlink.NUD_NONE || n.state&netlink.NUD_FAILED != 0:
		// The ticker that leads here must not miss its turn by a jiffy, so half its period is enough.
		if since < r.opt.Retry/2 {
			return
		}
		r.probed[k] = now
		if !ok {
			r.created[k] = true
		}
		r.warnProbe(k, r.kernel.use(k))
	}
}

// verifyDoubted asks the next hops of the addresses that Doubt was told of.
func (r *Resolver) verifyDoubted() {
	r.mu.Lock()
	doubts := r.doubts
	r.doubts = map[netip.Addr]bool{}
	r.mu.Unlock()
	now := time.Now()
	for addr := range doubts {
		k := r.paths[addr].key
		n := r.table[k]
		const believed = netlink.NUD_REACHABLE | netlink.NUD_STALE | netlink.NUD_DELAY
		if n.state&believed == 0 || now.Sub(r.probed[k]) < r.opt.Reprobe {
			continue
		}
		r.probed[k] = now
		r.warnProbe(k, r.kernel.verify(n))
	}
}

func (r *Resolver) warnProbe(k neighKey, err error) {
	if err != nil {
		r.warn(fmt.Errorf("make the kernel resolve %v on %s: %w", k.addr, r.seen[k.ifindex].Name, err))
	}
}

// cleanup deletes the entries that our asking created. Somebody else may use one by now; the kernel then resolves it
// again with the next packet.
func (r *Resolver) cleanup() {
	var errs []error
	for k := range r.created {
		if n, ok := r.table[k]; ok && n.state&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0 {
			continue // made permanent by somebody since
		}
		if err := r.kernel.remove(k); err != nil {
			errs = append(errs, fmt.Errorf("delete the neighbour entry of %v: %w", k.addr, err))
		}
	}
	r.err = joinErrors(append(errs, r.undoKeeping()))
}
