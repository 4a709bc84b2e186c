package announce

import (
	"maps"
	"net/netip"
	"sync"
	"time"
)

// maxClaims bounds what a host that makes up MAC addresses can make us remember.
const maxClaims = 1024

// claims limits the rate of conflict events.
type claims struct {
	every time.Duration

	mu *sync.Mutex
	by map[claim]*claimCount
}

type claim struct {
	vip netip.Addr
	mac [6]byte
}

type claimCount struct {
	reported time.Time
	since    uint64
}

func newClaims(every time.Duration) claims {
	return claims{every: every, mu: new(sync.Mutex), by: map[claim]*claimCount{}}
}

// add counts a claim, and returns how many to report now (0: nothing).
func (c *claims) add(vip netip.Addr, mac [6]byte, now time.Time) (report uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := claim{vip, mac}
	n := c.by[k]
	if n == nil {
		if len(c.by) >= maxClaims && !c.forget(now) {
			return 0
		}
		n = &claimCount{}
		c.by[k] = n
	}
	n.since++
	if !n.reported.IsZero() && now.Sub(n.reported) < c.every {
		return 0
	}
	report, n.since, n.reported = n.since, 0, now
	return report
}

// forget makes room by dropping claims that were reported long ago, and tells whether it found any.
func (c *claims) forget(now time.Time) bool {
	found := false
	for k, n := range c.by {
		if now.Sub(n.reported) >= c.every {
			delete(c.by, k)
			found = true
		}
	}
	return found
}

// defences says when VIPs are defended: once every interval at most, as RFC 5227, 2.4 (c), asks. A claim that comes sooner is not
// answered by silence but by a defence put off, so that the last word is ours once the other station has fallen silent.
type defences struct {
	every time.Duration
	last  map[netip.Addr]time.Time // when each VIP was defended
	next  map[netip.Addr]time.Time // when it will be
}

func newDefences(every time.Duration) defences {
	return defences{every: every, last: map[netip.Addr]time.Time{}, next: map[netip.Addr]time.Time{}}
}

// claimed plans the defence against a claim, at once or for later.
func (d *defences) claimed(vip netip.Addr, now time.Time) {
	if _, planned := d.next[vip]; planned {
		return
	}
	at := now
	if last, ok := d.last[vip]; ok && last.Add(d.every).After(now) {
		at = last.Add(d.every)
	}
	d.next[vip] = at
}

// take returns the VIPs to defend now, and for how long, at most an hour, there is nothing else to do.
func (d *defences) take(now time.Time) (vips []netip.Addr, wait time.Duration) {
	wait = time.Hour
	for vip, at := range d.next {
		if left := at.Sub(now); left > 0 {
			wait = min(wait, left)
			continue
		}
		delete(d.next, vip)
		d.last[vip] = now
		vips = append(vips, vip)
	}
	return vips, wait
}

// keep forgets all VIPs but these.
func (d *defences) keep(vips map[netip.Addr]bool) {
	for _, m := range []map[netip.Addr]time.Time{d.last, d.next} {
		maps.DeleteFunc(m, func(vip netip.Addr, _ time.Time) bool { return !vips[vip] })
	}
}
