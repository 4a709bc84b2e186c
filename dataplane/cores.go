package dataplane

import (
	"fmt"
	"os"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// AllowedCPUs returns the cores that the calling thread may run on.
func AllowedCPUs() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("ask for the CPUs that the process may use: %w", err)
	}
	var cpus []int
	for c := 0; c < len(set)*64; c++ {
		if set.IsSet(c) {
			cpus = append(cpus, c)
		}
	}
	return cpus, nil
}

// isolate moves all threads of the process off the workers' cores, so that the garbage collector
// and the control side do not take time from a worker; threads made later inherit that. It does nothing where
// no core would be left. The result puts them back.
func isolate(workers []*worker) (restore func(), err error) {
	nothing := func() {}
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nothing, fmt.Errorf("keep other threads off the workers' cores: %w", err)
	}
	rest := all
	for _, w := range workers {
		if w.cpu >= 0 {
			rest.Clear(w.cpu)
		}
	}
	if rest.Count() == 0 || rest == all {
		return nothing, nil
	}
	return func() { _ = moveThreads(&all) }, moveThreads(&rest)
}

// moveThreads gives every thread of the process the same set of cores, those included that start meanwhile.
func moveThreads(set *unix.CPUSet) error {
	done := map[int]bool{}
	for {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("list the process's threads: %w", err)
		}
		fresh := false
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || done[tid] {
				continue
			}
			done[tid], fresh = true, true
			if err := unix.SchedSetaffinity(tid, set); err != nil && err != unix.ESRCH {
				return fmt.Errorf("move thread %d to other cores: %w", tid, err)
			}
		}
		if !fresh {
			return nil
		}
	}
}

// setRealtime gives the calling thread the scheduling class SCHED_FIFO with the given priority, 1 to 99.
func setRealtime(priority int) error {
	attr := unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: uint32(priority)}
	if err := unix.SchedSetAttr(0, &attr, 0); err != nil {
		return fmt.Errorf("scheduling class SCHED_FIFO, priority %d: %w; it takes CAP_SYS_NICE", priority, err)
	}
	return nil
}

// Processors is what GOMAXPROCS must be for a process with so many workers: each of them holds a processor of the Go
// runtime for good, and the control side needs some of its own.
func Processors(workers int) int { return max(runtime.NumCPU(), 1) + workers }
