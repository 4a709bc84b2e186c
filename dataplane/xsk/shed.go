package xsk

import "sync/atomic"

// A Meter is what a port shares with the steering program that feeds it, in memory that both can reach: see
// steer.Attachment.Meters. The program's numbers turn over.
type Meter struct {
	shed    uint32 // of 256 packets that would open a flow, so many are to be dropped; the port's
	frames  uint32 // that the queue has brought, dropped ones included; the program's
	opening uint32 // of these, packets that would open a flow; the program's
	_       [13]uint32
}

// Established flows come first: what a worker cannot take is dropped somewhere, at the device or at the ring, and there
// without a look at it. So before it comes to that, the port has the steering program drop packets that would open
// flows, as many as it takes for the rest to fit: more of them at each look while there is pressure, a little fewer while there
// is none. It looks once a millisecond of the worker's clock.
const (
	shedAll = 256
	// shedStep is what is added first, then twice that, up to shedMaxStep. A flood is met within 10 ms; and when
	// the level is about right already, it does not jump far over it.
	shedStep    = 8
	shedMaxStep = 32
	// shedShare: packets that open flows are dropped only while at least one frame in so many is such. With fewer, dropping all of
	// them would not help, and downloads and the like, which always take what there is, would keep new clients
	// out for ever.
	shedShare = 8
	// The RX ring is half empty when pressure begins, so that established flows find room until the level is right,
	// and is waited for to become nearly empty before the level falls.
	shedAbove = 2 // pressure: a ring of n slots holds n/shedAbove frames or more
	shedBelow = 8 // none: n/shedBelow or fewer
	// Pressure also where no more than one poll in so many left nothing in the device.
	shedDrained = 4
)

// A pressure says whether a port's worker keeps up.
type pressure uint8

const (
	calm   pressure = iota // it does
	steady                 // nobody knows, or it is catching up
	rising                 // it does not
	full                   // so far that frames are lost
)

// A shedder decides how many packets that would open flows are dropped. It belongs to its port's worker.
type shedder struct {
	meter   *Meter // that the rest is about
	level   uint32 // what the meter says
	step    uint32 // of the last rise; 0: the level was not rising
	looked  uint32 // when it looked last, ms
	frames  uint32 // the meter's then
	opening uint32
	waiting uint32 // frames on the RX ring then
	// Polls of the device since then; those that left nothing behind.
	polls, drained uint32
}

// Relieve looks after the port's load. It reports whether packets are being dropped for it now; a worker without
// work must then look again soon. See dataplane.Reliever.
func (p *Port) Relieve(now uint32) bool {
	s := &p.shed
	m := p.meter.Load()
	if m != s.meter {
		*s = shedder{meter: m, looked: now}
		if m == nil {
			return false
		}
		s.frames, s.opening = atomic.LoadUint32(&m.frames), atomic.LoadUint32(&m.opening)
	}
	if m == nil || now == s.looked {
		return s.level > 0
	}
	level := s.level
	s.look(now, p.pressure(), atomic.LoadUint32(&m.frames), atomic.LoadUint32(&m.opening))
	if s.level != level {
		atomic.StoreUint32(&m.shed, s.level)
	}
	return s.level > 0
}

// pressure judges by the RX ring, and where the port polls the device itself, by how often the device had more than a poll
// takes: it is there, then, that frames wait and are dropped, and drivers like veth have room for a few polls' frames only.
func (p *Port) pressure() pressure {
	s := &p.shed
	waiting, before := p.rx.pending(), s.waiting
	s.waiting = waiting
	polls, drained := s.polls, s.drained
	s.polls, s.drained = 0, 0
	switch {
	case waiting >= p.ringSize-p.ringSize/shedBelow:
		return full
	case waiting >= p.ringSize/shedAbove && waiting >= before:
		return rising
	case polls > 0 && drained*shedDrained <= polls:
		return rising
	case waiting > p.ringSize/shedBelow || p.BusyPolls() && polls == 0:
		return steady
	}
	return calm
}

// look sets the level for the time until the next look.
func (s *shedder) look(now uint32, load pressure, frames, opening uint32) {
	passed, all, open := now-s.looked, frames-s.frames, opening-s.opening
	s.looked, s.frames, s.opening = now, frames, opening
	if open == 0 || uint64(open)*shedShare < uint64(all) {
		load = calm
	}
	switch load {
	case full:
		s.step = shedMaxStep
		s.level = min(s.level+s.step, shedAll)
	case rising:
		s.step = min(max(2*s.step, shedStep), shedMaxStep)
		s.level = min(s.level+s.step, shedAll)
	case steady:
		s.step = 0
	case calm:
		s.step = 0
		s.level -= min(s.level, passed)
	}
}

// polled takes note of a poll of the device that began when the meter had counted so many frames.
func (s *shedder) polled(before, most uint32) {
	if s.meter == nil {
		return
	}
	s.polls++
	if atomic.LoadUint32(&s.meter.frames)-before < most {
		s.drained++
	}
}

// counted returns the frames that the meter has counted.
func (s *shedder) counted() uint32 {
	if s.meter == nil {
		return 0
	}
	return atomic.LoadUint32(&s.meter.frames)
}

// Share gives the port the meter of its queue; nil takes it back. Any goroutine may call it. The meter must stay mapped until
// the worker has ended.
func (p *Port) Share(m *Meter) { p.meter.Store(m) }
