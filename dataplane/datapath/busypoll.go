package datapath

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"xlvs/dataplane"
	"xlvs/dataplane/xsk"
)

const (
	// deferFor is how long an interface's interrupts stay deferred after a poll. A worker that is held up for longer loses
	// the device to the softirq for a moment, and with 200 µs that happened all the time on a machine that was not its own.
	deferFor = time.Millisecond
	// deferForLong is the time where nothing waits for it: where workers poll all of an interface's queues and never sleep. Each poll
	// sets a timer, which costs as much as a few frames do where the timer is the next to end, and next to nothing where the kernel's
	// tick comes first, which with most is every 4 ms.
	deferForLong = 5 * time.Millisecond
	// deferTimes is how many of these may pass without a frame before interrupts come back.
	deferTimes = 1
	// busySpin is how long a busy-polling worker finds nothing before it sleeps, at least: a small gap is not worth the
	// system calls that give the device back to its interrupts and take it again.
	busySpin = 2 * time.Millisecond
)

// PollBudget is xsk.BusyPoll's: a call brings up to two budgets, as many frames as a worker takes in one poll. In copy mode a call that
// sends brings as many, so that receive rings do not overflow; see xsk.BusyPoll.
const PollBudget = dataplane.BurstsPerPoll * dataplane.MaxBurst / 2

// deferral returns for how long the interrupts of an interface with so many queues are deferred, of which so many are polled and so
// many of these are known to be (xsk.Port.NAPI). Queues that are not polled are deferred as well, and so is what comes while
// workers sleep.
func deferral(queues, polled, known int, sleep bool) time.Duration {
	if sleep || polled < queues || known < polled {
		return deferFor
	}
	return deferForLong
}

// noteDeferred is what is said of it.
func noteDeferred(wait time.Duration) string {
	return fmt.Sprintf("busy polling: interrupts are deferred by %v", wait)
}

// deferInterrupts sets up the interfaces on which ports busy-poll: as long as their workers do, no softirq of the
// device runs, and what a flood brings beyond what a worker takes is dropped by the device at no cost. It returns whether
// there are any. Interfaces get back what was set before by Close.
func (d *Datapath) deferInterrupts() (some bool, err error) {
	for k := range d.infos {
		info := &d.infos[k]
		if polled, _ := d.busyPolls(info.Name); polled == 0 {
			continue
		}
		some = true
		restore, err := xsk.SetAttributes(info.Name, []xsk.Attribute{
			{File: "napi_defer_hard_irqs", Value: strconv.Itoa(deferTimes)},
			{File: "gro_flush_timeout", Value: nanoseconds(deferFor)},
		})
		if err != nil {
			return some, fmt.Errorf("busy polling: %w; `busy_poll: off` does without", err)
		}
		d.restore = append(d.restore, restore)
		info.Notes = append(info.Notes, noteDeferred(deferFor))
	}
	return some, nil
}

// deferLonger does so where it may, for an interface to which the steering program is attached: only then is it known how many
// queues it has.
func (d *Datapath) deferLonger(info *Info) error {
	polled, known := d.busyPolls(info.Name)
	if polled == 0 || deferral(info.have, polled, known, d.sleep) == deferFor {
		return nil
	}
	restore, err := xsk.SetAttributes(info.Name, []xsk.Attribute{{File: "gro_flush_timeout", Value: nanoseconds(deferForLong)}})
	if err != nil {
		return fmt.Errorf("busy polling: %w; `busy_poll: off` does without", err)
	}
	d.restore = append(d.restore, restore)
	if i := slices.Index(info.Notes, noteDeferred(deferFor)); i >= 0 {
		info.Notes[i] = noteDeferred(deferForLong)
	}
	return nil
}

func nanoseconds(d time.Duration) string { return strconv.FormatInt(d.Nanoseconds(), 10) }

// busyPolls counts the ports of an interface that busy-poll, and those of them that know what they poll.
func (d *Datapath) busyPolls(ifname string) (polled, known int) {
	for _, set := range d.sets {
		for _, p := range set.Ports {
			if p.Name() == ifname && p.BusyPolls() {
				polled++
				if p.NAPI() != 0 {
					known++
				}
			}
		}
	}
	return polled, known
}

// PollThrough makes the port of a queue of an interface busy-poll its device by receive calls on fd. See xsk.Port.
func (d *Datapath) PollThrough(ifname string, queue, fd int) {
	for _, set := range d.sets {
		for _, p := range set.Ports {
			if p.Name() == ifname && p.Queue() == queue {
				p.PollThrough(fd)
			}
		}
	}
}
