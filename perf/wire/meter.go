package wire

import "time"

// A meter looks at a trial that is under way, again and again. What the forwarder does is what changed between two looks:
// frames that wait in its queues when sending ends, thousands at an AF_XDP socket and hundreds elsewhere, are no part of its rate.
type meter struct {
	sink      *sink
	generator *generator
	trial     *trial

	first, last glance
	err         error
}

// A glance is the counters and clocks at one time.
type glance struct {
	at    uint64 // CLOCK_MONOTONIC, ns; 0: not taken
	sent  genState
	seen  sinkState
	spent time.Duration // CPU time of the forwarder's threads
}

const (
	// filling is the part of a trial in which queues fill up, so that more goes in than comes out.
	filling = 5 // a fifth
	// glanceGrain bounds how long a glance may take. One that another program interrupts has counters of different times.
	glanceGrain = 250 * time.Microsecond
)

// look is called now and then.
func (m *meter) look(now genState) {
	if m.trial.length == 0 || now.Begun == 0 || m.err != nil || monotonic() < now.Begun+uint64(m.trial.length/filling) {
		return
	}
	g := glance{at: monotonic(), sent: m.generator.get(), seen: m.sink.get()}
	g.spent, m.err = cpuTimes(m.trial.clocks)
	if end := monotonic(); end-g.at > uint64(glanceGrain) || m.trial.over(g.sent) {
		return
	}
	if m.first.at == 0 {
		m.first = g
	}
	m.last = g
}

// A window is what happened between two glances: frames a second.
type window struct {
	length                           time.Duration // 0: there were no two glances far enough apart
	offered, forwarded               float64
	made                             float64 // of what was offered, frames that there were; the rest met a full queue without being made
	strangersOffered, strangersTaken float64 // the part of new clients in both
	busy                             float64 // of the time, the forwarder's threads ran
}

func (m *meter) window() (w window) {
	length := time.Duration(m.last.at - m.first.at)
	if m.err != nil || length < m.trial.length/filling {
		return w
	}
	rate := func(from, to uint64) float64 { return float64(to-from) / length.Seconds() }
	return window{
		length:           length,
		made:             rate(m.first.sent.Seq, m.last.sent.Seq),
		offered:          rate(m.first.sent.offered(), m.last.sent.offered()),
		forwarded:        rate(m.first.seen.Count, m.last.seen.Count),
		strangersOffered: rate(m.first.sent.strangers(), m.last.sent.strangers()),
		strangersTaken:   rate(m.first.seen.SYNs, m.last.seen.SYNs),
		busy:             float64(m.last.spent-m.first.spent) / float64(length),
	}
}
