package wire

import (
	"errors"
	"time"

	"xlvs/dataplane"
	"xlvs/dataplane/xsk"
)

// A receive says who runs the receive side of a forwarder's interface, and so on which core that is.
type receive string

const (
	busyPoll receive = "busy-poll" // the forwarder's own system calls, on its core
	thread   receive = "thread"    // a kernel thread (threaded NAPI), on its core
	sender   receive = "sender"    // the sender's softirq, on the sender's core: what veth does by itself
)

// core says whose core that is, in the rows.
func (r receive) core() string {
	if r == sender {
		return "elsewhere"
	}
	return "same"
}

// polling is how a forwarder on AF_XDP gets at its frames.
type polling struct {
	receive receive
	flush   time.Duration // interrupts stay deferred for so long after a poll
	budget  int           // half of the frames that a call takes in
	ring    int           // slots
	always  bool          // no need_wakeup
}

// Defaults. Scenario polling compares them with others.
const (
	deferTimes   = 1
	deferFlush   = 5 * time.Millisecond // as `xlvs run` with `idle.mode: busy`
	socketRing   = 2048
	socketFrames = 8192
)

func (p *polling) defaults() {
	if p.flush == 0 {
		p.flush = deferFlush
	}
	if p.budget == 0 {
		p.budget = pollBudget
	}
	if p.ring == 0 {
		p.ring = socketRing
	}
}

// idle is what a forwarder does with nothing to do: it goes on looking where it drives the device itself (`idle.mode: busy`), and
// sleeps after a while where the kernel does, on the same core maybe, as `xlvs run` by default.
func (p *polling) idle() dataplane.IdlePolicy {
	return dataplane.IdlePolicy{Sleep: p.receive != busyPoll, Spin: 50 * time.Microsecond}
}

func (p *polling) xsk() (b xsk.BusyPoll) {
	if p.receive == busyPoll {
		b = xsk.BusyPoll{Microseconds: 20, Budget: p.budget, IfKnown: true}
	}
	return b
}

// place has eth0 of the forwarder, whose XDP program is attached by now, polled where it should be. through gives
// the forwarder a socket to poll with.
func (p *polling) place(r *rig, through func(fd int), u *undo) error {
	switch p.receive {
	case thread:
		back, err := r.threadNAPI("eth0")
		u.add(back)
		return err
	case busyPoll:
		poll, err := newPoller(r.forwarder, "eth0", r.station.host, "eth0", p.budget)
		if err != nil {
			return err
		}
		u.add(poll.Close)
		through(poll.fd)
		back, err := deferNAPI(r.forwarder, "eth0", deferTimes, p.flush)
		u.add(back)
		return err
	}
	return nil
}

// An undo is what has been done so far, to be undone last first.
type undo []func() error

// add takes nil for nothing to undo.
func (u *undo) add(f func() error) {
	if f != nil {
		*u = append(*u, f)
	}
}

func (u *undo) all() error {
	var errs []error
	for i := len(*u) - 1; i >= 0; i-- {
		errs = append(errs, (*u)[i]())
	}
	*u = nil
	return errors.Join(errs...)
}
