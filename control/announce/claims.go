package announce

import (
	"net/netip"
	"sync"
	"time"
)

// maxClaims bounds what a host that makes up MAC addresses can make us remember.
const maxClaims = 1024

// claims limits the rate of conflict events and of defence.
type claims struct {
	every time.Duration

	mu       *sync.Mutex
	by       map[claim]*claimCount
	defended map[netip.Addr]time.Time
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
	return claims{every: every, mu: new(sync.Mutex), by: map[claim]*claimCount{}, defended: map[netip.Addr]time.Time{}}
}

// add counts a claim. report is how many to report now (0: nothing); defend tells whether the VIP may be announced in
// defence, at most once per interval, as RFC 5227, 2.4 (c), asks.
func (c *claims) add(vip netip.Addr, mac [6]byte, now time.Time) (report uint64, defend bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last, ok := c.defended[vip]; !ok || now.Sub(last) >= c.every {
		c.defended[vip] = now
		defend = true
	}
	k := claim{vip, mac}
	n := c.by[k]
	if n == nil {
		if len(c.by) >= maxClaims && !c.forget(now) {
			return 0, defend
		}
		n = &claimCount{}
		c.by[k] = n
	}
	n.since++
	if !n.reported.IsZero() && now.Sub(n.reported) < c.every {
		return 0, defend
	}
	report, n.since, n.reported = n.since, 0, now
	return report, defend
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
