package datapath

import (
	"fmt"
	"strconv"
	"time"

	"xlvs/dataplane/xsk"
)

const (
	// deferFor is how long an interface's interrupts stay deferred after a poll. A worker that is held up for longer loses
	// the device to the softirq for a moment, and with 200 µs that happened all the time on a machine that was not its own.
	deferFor = time.Millisecond
	// deferTimes is how many of these may pass without a frame before interrupts come back.
	deferTimes = 1
	// busySpin is how long a busy-polling worker finds nothing before it sleeps, at least: in every small gap
	// the next frames would be left lying until interrupts come back.
	busySpin = 2 * deferFor
)

// deferInterrupts sets up the interfaces on which ports busy-poll: as long as their workers do, no softirq of the
// device runs, and what a flood brings beyond what a worker takes is dropped by the device at no cost. It returns whether
// there are any. Interfaces get back what was set before by Close.
func (d *Datapath) deferInterrupts() (some bool, err error) {
	for k := range d.infos {
		info := &d.infos[k]
		if !d.busyPolls(info.Name) {
			continue
		}
		some = true
		restore, err := xsk.SetAttributes(info.Name, []xsk.Attribute{
			{File: "napi_defer_hard_irqs", Value: strconv.Itoa(deferTimes)},
			{File: "gro_flush_timeout", Value: strconv.FormatInt(deferFor.Nanoseconds(), 10)},
		})
		if err != nil {
			return some, fmt.Errorf("busy polling: %w; `busy_poll: off` does without", err)
		}
		d.restore = append(d.restore, restore)
		info.Notes = append(info.Notes, fmt.Sprintf("busy polling: interrupts are deferred by %v", deferFor))
	}
	return some, nil
}

// busyPolls reports whether a port of an interface does.
func (d *Datapath) busyPolls(ifname string) bool {
	for _, set := range d.sets {
		for _, p := range set.Ports {
			if p.Name() == ifname && p.BusyPolls() {
				return true
			}
		}
	}
	return false
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
