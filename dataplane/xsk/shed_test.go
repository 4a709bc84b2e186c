package xsk

import (
	"math/rand/v2"
	"testing"
	"unsafe"
)

func TestMeterIsACacheLine(t *testing.T) {
	mem := make([]byte, 3*64)
	MeterAt(mem, 2).shed = 1
	if n := unsafe.Sizeof(Meter{}); n != 64 || mem[128] != 1 && mem[131] != 1 {
		t.Errorf("%d bytes: % x", n, mem)
	}
}

// A mixture is frames of established flows and such that open flows.
type mixture struct{ established, syns float64 }

func (m mixture) sum() float64 { return m.established + m.syns }

func (m mixture) times(f float64) mixture { return mixture{m.established * f, m.syns * f} }

func (m *mixture) add(n mixture) { m.established, m.syns = m.established+n.established, m.syns+n.syns }

// take removes up to most frames.
func (m *mixture) take(most float64) mixture {
	part := m.times(min(1, most/max(most, m.sum())))
	m.add(part.times(-1))
	return part
}

// A flood is a model of what is in front of a port, which is looked at once a millisecond: a receive ring that the kernel fills,
// or a device that the port polls itself. Numbers are frames a millisecond.
type flood struct {
	port          *offline
	meter         Meter
	seen, opening float64 // the meter's numbers, with fractions
	now           uint32
	capacity      float64
	polls         bool
	room          float64
	queue         mixture // on the ring, or in the device
	left          float64 // frames that there is time for
	served        mixture
	offered       float64 // of established flows
	rng           *rand.Rand
}

func newFlood(t *testing.T, polls bool) *flood {
	const ring = 2048
	f := &flood{port: newOffline(t, ring, 2*ring), capacity: 900, polls: polls, room: ring, rng: rand.New(rand.NewPCG(1, 2))}
	if polls {
		f.port.busyPoll, f.port.pollMost, f.room = true, 64, 256
	}
	f.port.Share(&f.meter)
	f.port.Relieve(0)
	return f
}

const pieces = 50 // of a millisecond

// run has frames come in for so many milliseconds, unevenly: from none to twice as many each piece. It returns the mean level, the
// share of the established flows' frames that were served, and what was served of all, against the capacity.
func (f *flood) run(ms int, load mixture) (level, established, use float64) {
	f.served, f.offered = mixture{}, 0
	for range ms {
		for range pieces {
			now := load.times(2 * f.rng.Float64() / pieces)
			f.offered += now.established
			if f.polls {
				f.pollDevice(now)
			} else {
				f.fillRing(now)
			}
		}
		f.now++
		f.port.Relieve(f.now)
		level += float64(f.meter.shed) / float64(ms)
	}
	return level, f.served.established / max(1, f.offered), f.served.sum() / (f.capacity * float64(ms))
}

// steer is the steering program.
func (f *flood) steer(m mixture) mixture {
	f.seen, f.opening = f.seen+m.sum(), f.opening+m.syns
	f.meter.frames, f.meter.opening = uint32(f.seen), uint32(f.opening)
	m.syns *= 1 - float64(f.meter.shed)/256
	return m
}

// enqueue drops what has no room, of each kind alike.
func (f *flood) enqueue(m mixture) { f.queue.add(m.take(f.room - f.queue.sum())) }

func (f *flood) fillRing(come mixture) {
	f.enqueue(f.steer(come))
	f.served.add(f.queue.take(f.capacity / pieces))
	rx := &f.port.Port.rx
	rx.next = *rx.head - uint32(f.queue.sum())
}

// pollDevice polls as often as there is time for, or as the device has frames. One that is dropped by the steering program takes a
// tenth of the time.
func (f *flood) pollDevice(come mixture) {
	f.enqueue(come)
	for f.left = min(f.left, 0) + f.capacity/pieces; f.left > 0; {
		before := f.meter.frames
		m := f.queue.take(64)
		pass := f.steer(m)
		f.served.add(pass)
		f.port.shed.polled(before, 64)
		f.left -= pass.sum() + (m.sum()-pass.sum())/10
		if m.sum() < 64 {
			break
		}
	}
}

func eachFlood(t *testing.T, test func(t *testing.T, f *flood)) {
	t.Run("ring", func(t *testing.T) { test(t, newFlood(t, false)) })
	t.Run("polled device", func(t *testing.T) { test(t, newFlood(t, true)) })
}

func TestShedLevelSettles(t *testing.T) {
	eachFlood(t, func(t *testing.T, f *flood) {
		if level, served, _ := f.run(1000, mixture{300, 300}); level != 0 || served < 0.999 {
			t.Errorf("a load that fits: level %.0f, %.4f of the established flows' frames served", level, served)
		}
		f.run(20, mixture{300, 2000})
		for _, syns := range []float64{2000, 3000, 800} {
			level, served, use := f.run(1000, mixture{300, syns})
			t.Logf("%.0f SYNs: level %.0f, %.4f of the established flows' frames served, %.2f of the capacity used", syns, level, served, use)
			if served < 0.99 {
				t.Errorf("%.0f SYNs: %.4f of the established flows' frames served", syns, served)
			}
			// It must not refuse many clients that it could serve; on a core that polls itself, dropping takes of the capacity, too.
			if want := map[bool]float64{false: 0.9, true: 0.5}[f.polls]; use < want {
				t.Errorf("%.0f SYNs: %.2f of the capacity used", syns, use)
			}
		}
		f.run(shedAll, mixture{300, 100})
		if f.meter.shed != 0 {
			t.Errorf("%d ms after the flood the level is %d", shedAll, f.meter.shed)
		}
	})
}

// Without SYNs, or with a few, nothing is gained by dropping them, however much there is of the rest.
func TestNoSheddingWithoutAFlood(t *testing.T) {
	eachFlood(t, func(t *testing.T, f *flood) {
		if level, _, use := f.run(500, mixture{2000, 200}); level != 0 || use < 0.9 {
			t.Errorf("level %.0f, %.2f of the capacity used", level, use)
		}
		// One that is over while the worker still does not keep up ends all the same.
		f.run(100, mixture{2000, 2000})
		if f.meter.shed != shedAll {
			t.Errorf("with twice what it carries of either, the level is %d", f.meter.shed)
		}
		f.run(shedAll+1, mixture{2000, 200})
		if f.meter.shed != 0 {
			t.Errorf("after the flood the level is %d", f.meter.shed)
		}
	})
}

// A worker that slept, or was held up, lets the level fall by as much as one that looked all the time.
func TestShedLevelFallsWithTime(t *testing.T) {
	f := newFlood(t, false)
	f.run(20, mixture{300, 3000})
	f.run(3, mixture{}) // the ring runs empty
	was := f.meter.shed
	f.now += 30
	if !f.port.Relieve(f.now) || f.meter.shed > was-30 || f.meter.shed == 0 {
		t.Errorf("30 ms later the level is %d, and was %d", f.meter.shed, was)
	}
	f.now += 300
	if f.port.Relieve(f.now) || f.meter.shed != 0 {
		t.Errorf("300 ms later the level is %d", f.meter.shed)
	}
}

// A port without a meter, or with a new one, drops nothing for now.
func TestShareMeter(t *testing.T) {
	f := newFlood(t, false)
	f.run(20, mixture{300, 3000})
	if f.meter.shed == 0 {
		t.Fatal("the flood did nothing")
	}
	f.port.Share(nil)
	if f.port.Relieve(f.now) || f.port.Relieve(f.now+1) {
		t.Error("without a meter it sheds")
	}
	other := Meter{frames: 1 << 31, opening: 1 << 31}
	f.port.Share(&other)
	if f.port.Relieve(f.now+2) || f.port.Relieve(f.now+3) || other.shed != 0 {
		t.Errorf("what another meter had counted made it shed: %+v", other)
	}
}

func TestRelieveAllocatesNothing(t *testing.T) {
	f := newFlood(t, false)
	if n := testing.AllocsPerRun(100, func() { f.now++; f.port.Relieve(f.now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// A port that polls its device judges each poll by what the meter counted meanwhile.
func TestPollsAreJudged(t *testing.T) {
	f := newFlood(t, true)
	f.port.Recv(nil)
	if s := f.port.shed; s.polls != 1 || s.drained != 1 {
		t.Errorf("a poll that brought nothing: %d polls, %d left nothing behind", s.polls, s.drained)
	}
	before := f.port.shed.counted()
	f.meter.frames += 64
	f.port.shed.polled(before, f.port.pollMost)
	if s := f.port.shed; s.polls != 2 || s.drained != 1 {
		t.Errorf("one that brought 64 frames: %d polls, %d left nothing behind", s.polls, s.drained)
	}
	if b := (BusyPoll{Microseconds: 20}); b.most() != 16 {
		t.Errorf("two of the kernel's budgets are %d frames", b.most())
	}
}
