package perf

import (
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"xlvs/dataplane"
)

// onCore runs f on a thread of its own, pinned to the last CPU that the process may use: the first ones have
// more of the interrupts.
func onCore(f func() error) error {
	cpus, err := dataplane.AllowedCPUs()
	if err != nil {
		return err
	}
	return pinned(cpus[len(cpus)-1], f)
}

// onOwnThread runs f with its goroutine locked to a thread.
func onOwnThread(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return f()
}

func pinned(cpu int, f func() error) error {
	return onOwnThread(func() error { return pinnedHere(cpu, f) })
}

func pinnedHere(cpu int, f func() error) error {
	var old, set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &old); err != nil {
		return fmt.Errorf("read the thread's CPUs: %w", err)
	}
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("pin to CPU %d: %w", cpu, err)
	}
	defer func() { _ = unix.SchedSetaffinity(0, &old) }()
	return f()
}

// threadTime is the CPU time that the calling thread has used: what other programs do meanwhile costs cache and
// frequency, but no time of this clock.
func threadTime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		panic("perf: the kernel has no clock for a thread's CPU time")
	}
	return time.Duration(ts.Nano())
}
