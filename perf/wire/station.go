package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"xlvs/dataplane"
	"xlvs/dataplane/xsk"
	"xlvs/testenv"
)

const (
	stationRing   = 2048
	stationFrames = 2 * stationRing // a port
	txOffset      = 256
	settleFor     = 30 * time.Millisecond // without a frame: nothing more is on its way
	// maxBehind is how many frames the generator sends without a pause after it was held up (by a few
	// thousandths of a second of another process, say). A veth queue holds 256: with more, the
	// generator's own trouble would look like the forwarder's loss.
	maxBehind = 64
)

// A station is generator and sink on one thread, pinned to one core, which alternates between sending what is due and
// polling the sink's interface. Nobody else polls that: its interrupts stay deferred, so that frames which arrive
// cost the forwarder's core nothing.
type station struct {
	host  *testenv.Host
	cpu   int
	set   *xsk.Set
	tx    *xsk.Port
	rx    *xsk.Port
	sink  *sink
	poll  *poller
	start time.Time
	burst [dataplane.MaxBurst]dataplane.Frame
}

// stationFlush is how often a timer polls the sink's interface while the station's thread does not: often enough that
// 3 million frames a second do not overflow a veth queue of 256 in between.
const stationFlush = 30 * time.Microsecond

func newStation(h *testenv.Host, cpu int, peer *testenv.Host, peerIf string) (s *station, err error) {
	s = &station{host: h, cpu: cpu, start: time.Now()}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("generator and sink: %w", err), s.Close())
		}
	}()
	err = h.Do(func() (err error) {
		s.set, err = xsk.Open(xsk.Config{
			Ports:         []xsk.Options{{Name: "eth0", Bind: xsk.BindCopy}, {Name: "eth1", Bind: xsk.BindCopy}},
			FramesPerPort: stationFrames, FrameSize: 2048, Ring: stationRing,
		})
		if err != nil {
			return err
		}
		s.tx, s.rx = s.set.Ports[0], s.set.Ports[1]
		index, err := ifindex(h, "eth1")
		if err != nil {
			return err
		}
		s.sink, err = newSink(index, s.rx.FD())
		return err
	})
	if err != nil {
		return s, err
	}
	if s.poll, err = newPoller(h, "eth1", peer, peerIf, pollBudget); err != nil {
		return s, err
	}
	return s, deferNAPI(h, "eth1", math.MaxInt32, stationFlush)
}

// Close gives sockets and program back.
func (s *station) Close() error {
	var errs []error
	if s.poll != nil {
		errs = append(errs, s.poll.Close())
	}
	if s.sink != nil {
		errs = append(errs, s.sink.Close())
	}
	if s.set != nil {
		errs = append(errs, s.set.Close())
	}
	return errors.Join(errs...)
}

// A trial is a stream of frames.
type trial struct {
	rate    float64 // frames a second; 0: as many as the generator can
	length  time.Duration
	frames  int // send so many instead of for so long
	stamp   *stamper
	inspect bool // look at each frame that arrives, and measure its latency
	strict  bool // keep to the schedule even after having been held up: no coordinated omission
}

// An outcome is what became of a trial.
type outcome struct {
	sent, received uint64
	elapsed        time.Duration // of sending
	window         uint64        // received while sending
	held           time.Duration // longest time between two looks at the clock
	skipped        uint64        // frames left out after being held up
	latency        *hdrhistogram.Histogram
	misordered     uint64 // frames that arrived after a later one
}

func (o outcome) offered() float64 { return float64(o.sent) / o.elapsed.Seconds() }

func (o outcome) forwarded() float64 { return float64(o.window) / o.elapsed.Seconds() }

// lost returns the fraction of frames that did not arrive.
func (o outcome) lost() float64 {
	if o.sent == 0 {
		return 0
	}
	return 1 - float64(o.received)/float64(o.sent)
}

// run carries a trial out on a thread of its own.
func (s *station) run(ctx context.Context, t trial) (o outcome, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with its affinity
		if err = pin(0, s.cpu); err != nil {
			return
		}
		if err = s.sink.inspect(t.inspect); err != nil {
			return
		}
		before := s.sink.count()
		o = s.send(ctx, &t)
		o.window = s.sink.count() - before
		s.drain(&t, &o)
		o.received = s.sink.count() - before
		if err = ctx.Err(); err == nil {
			err = errors.Join(s.tx.FirstError(), s.rx.FirstError())
		}
	}()
	<-done
	return o, err
}

// send is the generator. Frame n is due at n/rate; its time stamp says so even if it leaves late.
func (s *station) send(ctx context.Context, t *trial) (o outcome) {
	if t.inspect {
		o.latency = hdrhistogram.New(100, int64(4*time.Second), 3)
	}
	interval := 0.0
	if t.rate > 0 {
		interval = 1e9 / t.rate
	}
	begin := time.Since(s.start)
	last, epoch := begin, float64(begin)
	base := uint64(0) // frames before epoch
	for ctx.Err() == nil {
		now := time.Since(s.start)
		if d := now - last; d > o.held {
			o.held = d
		}
		last = now
		if t.frames > 0 && o.sent >= uint64(t.frames) || t.frames == 0 && now-begin >= t.length {
			break
		}
		n := dataplane.MaxBurst
		if interval > 0 {
			due := uint64((float64(now)-epoch)/interval) + base
			late := int(due - o.sent)
			if late > maxBehind && !t.strict {
				o.skipped += uint64(late - maxBehind)
				epoch += float64(late-maxBehind) * interval
				late = maxBehind
			}
			n = min(late, dataplane.MaxBurst)
		}
		if t.frames > 0 {
			n = min(n, t.frames-int(o.sent))
		}
		s.emit(t, &o, n, now, epoch, interval)
		s.collect(t, &o)
	}
	o.elapsed = time.Since(s.start) - begin
	return o
}

// emit sends up to n frames.
func (s *station) emit(t *trial, o *outcome, n int, now time.Duration, epoch, interval float64) {
	// Both ports' fill rings are always full; what else is not free is on its way out.
	room := s.set.Memory.Available() - (s.set.Memory.Chunks() - 3*stationRing)
	n = min(n, room)
	if n <= 0 {
		_ = s.tx.Flush()
		return
	}
	for i := range n {
		chunk, ok := s.set.Memory.Alloc()
		if !ok {
			n = i
			break
		}
		due := uint32(now)
		if interval > 0 {
			due = uint32(uint64(epoch + float64(o.sent+uint64(i))*interval))
		}
		size := len(t.stamp.template)
		t.stamp.write(s.set.Memory.Chunk(chunk)[txOffset:txOffset+size], uint32(o.sent)+uint32(i), due)
		s.burst[i] = dataplane.Frame{Chunk: chunk, Off: txOffset, Len: uint16(size)}
	}
	o.sent += uint64(s.tx.Send(s.burst[:n]))
	_ = s.tx.Flush() // what lasts is FirstError
}

// collect polls the sink's interface and takes what the sink gives to the socket.
func (s *station) collect(t *trial, o *outcome) int {
	s.poll.poll()
	n := s.rx.Recv(s.burst[:])
	if n == 0 {
		return 0
	}
	now := uint32(time.Since(s.start))
	for _, f := range s.burst[:n] {
		if o.latency != nil {
			b := s.set.Memory.Bytes(f)
			// A frame that is early by the resolution of the schedule counts as one that took no time.
			_ = o.latency.RecordValue(max(int64(int32(now-binary.BigEndian.Uint32(b[offTime:]))), 0))
		}
		s.set.Memory.Free(f.Chunk)
	}
	return n
}

// drain waits until nothing comes any more.
func (s *station) drain(t *trial, o *outcome) {
	quiet := time.Now()
	last := s.sink.count()
	for time.Since(quiet) < settleFor {
		_ = s.tx.Flush()
		s.collect(t, o)
		if n := s.sink.count(); n != last {
			last, quiet = n, time.Now()
		}
	}
}
