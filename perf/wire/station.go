package wire

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sys/unix"

	"xlvs/testenv"
)

// A station is where frames come from and where they end, on one core. A timer polls the sink's interface there, so that
// frames which arrive cost the forwarder's core nothing: its interrupts stay deferred for good.
type station struct {
	host *testenv.Host
	cpu  int
	sink *sink
	poll *poller
	undo func() error // of the interface's settings

	flush func(every time.Duration) error // how often the sink's interface is polled from now on
}

// How often the sink's interface is polled: often enough that no frame is lost there, since a veth queue holds 256, and up to 2 million
// come in a second, also while a batch of the generator's keeps softirqs from running. A latency is known to that. But a
// timer's interrupt costs a virtual machine microseconds, which the generator lacks in a flood, where a little loss does not matter.
const (
	sinkFlush  = 20 * time.Microsecond
	floodFlush = 40 * time.Microsecond
)

// newStation has frames end at interface sinkIf of h, whose other end is peerIf of peer.
func newStation(h *testenv.Host, cpu int, sinkIf string, peer *testenv.Host, peerIf string) (s *station, err error) {
	s = &station{host: h, cpu: cpu}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("generator and sink: %w", err), s.Close())
		}
	}()
	index, err := ifindex(h, sinkIf)
	if err != nil {
		return s, err
	}
	if err := h.Do(func() (err error) { s.sink, err = newSink(index); return err }); err != nil {
		return s, err
	}
	if s.poll, err = newPoller(h, sinkIf, peer, peerIf, pollBudget); err != nil {
		return s, err
	}
	s.flush = func(every time.Duration) error {
		_, err := deferNAPI(h, sinkIf, math.MaxInt32, every)
		return err
	}
	s.undo, err = deferNAPI(h, sinkIf, math.MaxInt32, sinkFlush)
	return s, err
}

// Close gives program and socket back.
func (s *station) Close() error {
	var errs []error
	if s.undo != nil {
		errs = append(errs, s.undo())
	}
	if s.poll != nil {
		errs = append(errs, s.poll.Close())
	}
	if s.sink != nil {
		errs = append(errs, s.sink.Close())
	}
	return errors.Join(errs...)
}

// A trial is a stream of frames.
type trial struct {
	rate   float64 // frames a second; 0: as many as the generator can make
	length time.Duration
	frames int // send so many instead of for so long
	stamp  *stamper
	mix    mix
	watch  watch
	clocks []cpuClock // of the forwarder's threads
	strict bool       // keep to the schedule even after having been held up: no coordinated omission
	flood  bool       // the rate is more than the forwarder takes: what meets a full queue need not be made
}

// A mix puts frames of new clients between those of the flows: syns of each cycle frames.
type mix struct{ syns, cycle uint32 }

// established is the part of the frames that are of flows which are known.
func (m mix) established() float64 { return 1 - float64(m.syns)/float64(m.cycle) }

// An outcome is what became of a trial.
type outcome struct {
	sent, received uint64
	elapsed        time.Duration // of sending; 0 if the trial had no length
	late           time.Duration // by which the schedule was put off
	window         window        // of the time of sending; nothing if the trial had no length
	latency        *hdrhistogram.Histogram
}

// offered is in frames a second.
func (o outcome) offered() float64 { return float64(o.sent) / o.elapsed.Seconds() }

// lost returns the fraction of frames that did not arrive.
func (o outcome) lost() float64 {
	if o.sent == 0 {
		return 0
	}
	return 1 - float64(o.received)/float64(o.sent)
}

const (
	settleFor = 20 * time.Millisecond // without a frame: nothing more is on its way
	// maxBehind is how many frames the generator sends without a pause after it was held up (by a few
	// thousandths of a second of another process, say). A veth queue holds 256: with more, the
	// generator's own trouble would look like the forwarder's loss.
	maxBehind = 64

	// A batch is how many times the generator's program runs without a softirq in between, and how many pages its page pool keeps: a
	// forwarder that hands back more has to free them. So it is as large as the sink can wait for.
	leastBatch, mostBatch = 64, 256
	batchLength           = 60 * time.Microsecond

	// How long a run waits for a frame to be due. Frames leave in bursts of 16, or at the end of a batch: where latencies
	// are taken, that must not be long.
	mostWait   = time.Microsecond
	strictWait = 100 * time.Nanosecond

	// fullFor is how long a queue that was full counts as full. A forwarder takes 10 to 20 frames of 256 from it in that time, and one that
	// takes up to 128 in a poll does not find it empty.
	fullFor = 10 * time.Microsecond
	// floodSlack is how late a flood's frames may be: it makes up for what the sink took of the core's time.
	floodSlack = time.Millisecond
)

// stream carries a trial out.
func (s *station) stream(ctx context.Context, g *generator, t trial) (o outcome, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = s.host.Do(func() (err error) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var old unix.CPUSet
			if err := unix.SchedGetaffinity(0, &old); err != nil {
				return err
			}
			if err := pin(0, s.cpu, generatorNice); err != nil {
				return err
			}
			o, err = s.streamHere(ctx, g, t)
			return errors.Join(err, unix.SchedSetaffinity(0, &old), unix.Setpriority(unix.PRIO_PROCESS, 0, highest))
		})
	}()
	<-done
	return o, err
}

// streamHere carries a trial out on the calling thread, which is in the station's namespace and on its core.
func (s *station) streamHere(ctx context.Context, g *generator, t trial) (o outcome, err error) {
	if err := s.sink.start(t.watch); err != nil {
		return o, err
	}
	if t.flood {
		if err := s.flush(floodFlush); err != nil {
			return o, err
		}
		defer func() { err = errors.Join(err, s.flush(sinkFlush)) }()
	}
	s.poll.poll() // arms the timer on this core
	state := t.state()
	state.Trial, state.CPU = uint64(s.sink.trial), uint64(s.cpu)
	if err := g.set(state); err != nil {
		return o, err
	}
	m := meter{sink: s.sink, generator: g, trial: &t}
	if err := g.runUntil(ctx, t.batch(), t.over, m.look); err != nil || m.err != nil {
		return o, errors.Join(err, m.err)
	}
	o.window = m.window()
	end := g.get()
	o.sent, o.late, o.elapsed = end.offered(), time.Duration(end.Late), t.length
	o.received = s.settle(o.sent)
	if t.watch == timeAll {
		o.latency, err = s.sink.latency()
	}
	return o, err
}

// state is the generator's at the begin of the trial.
func (t *trial) state() genState {
	st := genState{Flows: uint64(t.stamp.flows), Step: uint64(t.stamp.step), Flags: uint64(t.stamp.template[offFlags]),
		SYNs: uint64(t.mix.syns), Cycle: uint64(t.mix.cycle),
		Limit: math.MaxUint64, Length: math.MaxInt64, Slack: math.MaxInt64}
	if t.rate > 0 {
		st.Interval = uint64(65536e9 / t.rate)
		if !t.strict {
			st.Slack = uint64(maxBehind * 1e9 / t.rate)
		}
		if st.Wait = uint64(mostWait); t.strict {
			st.Wait = uint64(strictWait)
		}
		if t.flood {
			st.Pause = uint64(fullFor)
			st.Slack = uint64(floodSlack)
		}
	}
	if t.frames > 0 {
		st.Limit = uint64(t.frames)
	} else {
		st.Length = uint64(t.length)
	}
	return st
}

// batch is how many times the generator's program runs in a row.
func (t *trial) batch() uint32 {
	switch {
	case t.rate == 0 || t.flood:
		return mostBatch
	case t.strict:
		return leastBatch
	}
	return uint32(min(max(t.rate*batchLength.Seconds(), leastBatch), mostBatch))
}

// over reports whether the trial is at its end.
func (t *trial) over(now genState) bool {
	if t.frames > 0 {
		return now.Seq >= uint64(t.frames)
	}
	return now.Begun != 0 && monotonic() >= now.Begun+uint64(t.length)
}

// settle waits until all has arrived or nothing arrives any more, and returns the sink's count.
func (s *station) settle(sent uint64) uint64 {
	quiet, last := time.Now(), s.sink.count()
	for last < sent && time.Since(quiet) < settleFor {
		time.Sleep(200 * time.Microsecond)
		if n := s.sink.count(); n != last {
			last, quiet = n, time.Now()
		}
	}
	return last
}
