package datapath

import (
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xlvs/dataplane/xsk"
)

// deferred reads an interface's settings, by writing what is there already.
func deferred(t *testing.T, name string, want ...string) {
	t.Helper()
	ifindex := 0
	for _, link := range must1(xsk.Attributes(name, "ifindex", "napi_defer_hard_irqs", "gro_flush_timeout"))(t) {
		if link.File == "ifindex" {
			ifindex++
			continue
		}
		if !slices.Contains(want, link.File+"="+link.Value) {
			t.Errorf("%s of %s is %s, want %v", link.File, name, link.Value, want)
		}
	}
	if ifindex != 1 {
		t.Errorf("%s has no index", name)
	}
}

func must1[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		must(t, err)
		return v
	}
}

func TestBusyPolling(t *testing.T) {
	l := newLab(t, map[string]int{"a": 1, "b": 1})
	before := []string{"napi_defer_hard_irqs=3", "gro_flush_timeout=70000"}
	a, b := l.name("a"), l.name("b")
	for _, name := range []string{a, b} {
		must1(xsk.SetAttributes(name, []xsk.Attribute{{File: "napi_defer_hard_irqs", Value: "3"}, {File: "gro_flush_timeout", Value: "70000"}}))(t)
	}
	for _, c := range []struct {
		name string
		poll xsk.BusyPoll
		want []string
	}{
		{"off", xsk.BusyPoll{}, before},
		{"where it is known, on veth, which does not tell", xsk.BusyPoll{Microseconds: 20, Budget: 32, IfKnown: true}, before},
		{"on", xsk.BusyPoll{Microseconds: 20, Budget: 32}, []string{"napi_defer_hard_irqs=1", "gro_flush_timeout=1000000"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l.enter(t)
			o := options(l, "a", "b")
			o.BusyPoll = c.poll
			d, err := Open(o)
			must(t, err)
			deferred(t, a, c.want...)
			deferred(t, b, c.want...)
			on := c.poll.Microseconds > 0 && !c.poll.IfKnown
			for _, p := range d.sets[0].Ports {
				if p.BusyPolls() != on {
					t.Errorf("%s: port busy-polls=%t", p.Name(), p.BusyPolls())
				}
				value, err := unix.GetsockoptInt(p.FD(), unix.SOL_SOCKET, unix.SO_PREFER_BUSY_POLL)
				if must(t, err); value == 1 != on {
					t.Errorf("%s: SO_PREFER_BUSY_POLL is %d", p.Name(), value)
				}
			}
			notes := strings.Join(d.Interfaces()[0].Notes, "\n")
			if strings.Contains(notes, "interrupts are deferred by 1ms") != on {
				t.Errorf("notes %q", notes)
			}
			must(t, d.Close())
			deferred(t, a, before...)
			deferred(t, b, before...)
		})
	}
}

// veth's queues are never known to be polled.
func TestDeferral(t *testing.T) {
	for _, c := range []struct {
		queues, polled, known int
		sleep                 bool
		want                  time.Duration
	}{
		{2, 2, 2, false, deferForLong},
		{2, 2, 2, true, deferFor},
		{2, 1, 1, false, deferFor},
		{2, 2, 1, false, deferFor},
	} {
		if got := deferral(c.queues, c.polled, c.known, c.sleep); got != c.want {
			t.Errorf("%d queues, %d polled, %d of them known, sleep=%t: deferred for %v, want %v", c.queues, c.polled, c.known, c.sleep, got, c.want)
		}
	}
}
