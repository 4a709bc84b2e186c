package wire

import (
	"context"
	"errors"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// monotonic is the clock of programs in the kernel.
func monotonic() uint64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // fails for unknown clocks only
	return uint64(t.Nano())
}

// runUntil runs the generator on the calling thread until done says so of its state. Starting and ending a run takes the kernel
// milliseconds (it waits for RCU), so there is just one, which a signal ends. look is called meanwhile, each millisecond
// or so, by another goroutine, for the last time before runUntil returns.
func (g *generator) runUntil(ctx context.Context, batch uint32, done func(genState) bool, look func(genState)) error {
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
			now := g.get()
			look(now)
			if done(now) || ctx.Err() != nil {
				_ = unix.Tgkill(unix.Getpid(), tid, unix.SIGURG) // the thread may have left the kernel by now
			}
		}
	}()
	var err error
	for err == nil && !done(g.get()) && ctx.Err() == nil {
		err = g.run(math.MaxInt32, batch)
	}
	close(ended)
	<-watcher
	return errors.Join(err, ctx.Err())
}
