package wire

import (
	"context"
	"errors"
	"math"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// monotonic is the clock of programs in the kernel.
func monotonic() uint64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // fails for unknown clocks only
	return uint64(t.Nano())
}

// stream carries a trial out with the generator in the kernel. The sink's interface is polled by timer, on the
// station's core.
func (s *station) stream(ctx context.Context, g *generator, t trial) (o outcome, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with its affinity and namespace
		err = s.host.Do(func() error {
			var old unix.CPUSet
			if err := unix.SchedGetaffinity(0, &old); err != nil {
				return err
			}
			defer func() {
				_ = errors.Join(unix.SchedSetaffinity(0, &old), unix.Setpriority(unix.PRIO_PROCESS, 0, 0))
			}()
			if err := pin(0, s.cpu); err != nil {
				return err
			}
			o, err = s.streamHere(ctx, g, t)
			return err
		})
	}()
	<-done
	return o, err
}

func (s *station) streamHere(ctx context.Context, g *generator, t trial) (o outcome, err error) {
	if err := s.sink.inspect(false); err != nil {
		return o, err
	}
	s.poll.poll() // arms the timer on this core
	st := genState{Flows: uint64(t.stamp.flows), Step: uint64(t.stamp.step), Limit: math.MaxUint64, End: math.MaxUint64, Flags: uint64(t.stamp.template[offFlags])}
	if t.rate > 0 {
		st.Interval = uint64(65536e9 / t.rate)
	}
	if t.frames > 0 {
		st.Limit = uint64(t.frames)
	}
	before := s.sink.count()
	st.Epoch = monotonic()
	if t.length > 0 {
		st.End = st.Epoch + uint64(t.length)
	}
	if err := g.set(st); err != nil {
		return o, err
	}
	if err := g.runUntil(ctx, func() bool { return g.get().Seq >= st.Limit || monotonic() >= st.End }); err != nil {
		return o, err
	}
	end := g.get()
	o.elapsed = time.Duration(monotonic() - st.Epoch)
	if t.length > 0 {
		o.elapsed = t.length
	}
	o.sent = end.Seq
	o.held = time.Duration(end.Late)
	o.received = s.settle() - before
	o.window = o.received
	return o, nil
}

// settle waits until nothing arrives any more, and returns the sink's count.
func (s *station) settle() uint64 {
	quiet, last := time.Now(), s.sink.count()
	for time.Since(quiet) < settleFor {
		time.Sleep(time.Millisecond)
		if n := s.sink.count(); n != last {
			last, quiet = n, time.Now()
		}
	}
	return last
}

// runUntil runs the generator on the calling thread until done says so. Starting and ending a run takes the kernel
// milliseconds (it waits for RCU), so there is just one, which a signal ends.
func (g *generator) runUntil(ctx context.Context, done func() bool) error {
	tid := unix.Gettid()
	ended := make(chan struct{})
	watcher := make(chan struct{})
	go func() {
		defer close(watcher)
		for ; ; time.Sleep(time.Millisecond) {
			select {
			case <-ended:
				return
			default:
			}
			if done() || ctx.Err() != nil {
				_ = unix.Tgkill(unix.Getpid(), tid, unix.SIGURG) // the thread may have left the kernel by now
			}
		}
	}()
	var err error
	for err == nil && !done() && ctx.Err() == nil {
		err = g.run(math.MaxInt32)
	}
	close(ended)
	<-watcher
	return errors.Join(err, ctx.Err())
}
