package wire

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"xlvs/dataplane"
)

// cores are the two that an experiment uses.
type cores struct {
	forwarder, station int
	rest               unix.CPUSet // all but the forwarder's
}

// highest is the priority of everything that takes part in an experiment, so that what else runs on the machine disturbs
// it little, and all forwarders alike.
const highest = -20

// spinners are the threads that keep a processor of the Go runtime as long as an experiment lasts: the forwarder's, and the generator's,
// which is in one system call for all of a trial. With too few processors, a worker that the runtime preempts, as it does each 10 ms,
// waits until the runtime takes the generator's from it: up to 20 ms.
const spinners = 2

// claimCores moves this process to every allowed core but the last, which becomes the forwarder's own as it is a worker's by
// default, raises its priority, and gives its runtime processors enough. restore puts affinity and priority of every thread, and the
// number of processors, back to what they were.
func claimCores() (c cores, restore func() error, err error) {
	allowed, err := dataplane.AllowedCPUs()
	if err != nil {
		return c, nil, err
	}
	if len(allowed) < 2 {
		return c, nil, errors.New("needs two cores: one for the forwarder, one for the generator and the sink")
	}
	c = cores{forwarder: allowed[len(allowed)-1], station: allowed[0]}
	for _, cpu := range allowed[:len(allowed)-1] {
		c.rest.Set(cpu)
	}
	nice, err := niceness()
	if err != nil {
		return c, nil, err
	}
	all := c.rest
	all.Set(c.forwarder)
	if err := moveThreads(&c.rest, highest); err != nil {
		return c, nil, errors.Join(err, moveThreads(&all, nice))
	}
	lower := favourSession()
	processors := runtime.GOMAXPROCS(dataplane.Processors(spinners))
	return c, func() error {
		runtime.GOMAXPROCS(processors)
		return errors.Join(moveThreads(&all, nice), lower())
	}, nil
}

// lend has f run on the forwarder's core, and with it the programs that f starts, which stay there.
func (c *cores) lend(f func() error) error {
	var own unix.CPUSet
	own.Set(c.forwarder)
	if err := moveThreads(&own, highest); err != nil {
		return errors.Join(err, moveThreads(&c.rest, highest))
	}
	return errors.Join(f(), moveThreads(&c.rest, highest))
}

// niceness returns the calling thread's nice value. (The system call returns 20 less it, so that it is never negative.)
func niceness() (int, error) {
	p, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	return 20 - p, err
}

// threads returns the threads of this process.
func threads() (tids []int, err error) {
	tasks, err := filepath.Glob("/proc/self/task/*")
	for _, t := range tasks {
		tid, err := strconv.Atoi(filepath.Base(t))
		if err != nil {
			return nil, err
		}
		tids = append(tids, tid)
	}
	return tids, err
}

// pinned returns the threads of this process that are bound to one core alone.
func pinned(cpu int) (tids []int, err error) {
	all, err := threads()
	for _, tid := range all {
		var set unix.CPUSet
		// A thread may have ended in the meantime.
		if unix.SchedGetaffinity(tid, &set) == nil && set.Count() == 1 && set.IsSet(cpu) {
			tids = append(tids, tid)
		}
	}
	return tids, err
}

// moveThreads sets the affinity and priority of all threads of this process; later ones inherit them. All have one priority,
// since the Go runtime has each wait for any other: a garbage collector that the generator starves would stop a worker.
func moveThreads(set *unix.CPUSet, nice int) error {
	tids, err := threads()
	if err != nil {
		return err
	}
	for _, tid := range tids {
		err := errors.Join(unix.SchedSetaffinity(tid, set), unix.Setpriority(unix.PRIO_PROCESS, tid, nice))
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("move thread %d to its cores: %w", tid, err)
		}
	}
	return nil
}

// autogroup matches the nice value in /proc/PID/autogroup.
var autogroup = regexp.MustCompile(`nice (-?\d+)`)

// favourSession raises the priority of this process's session where the kernel shares the CPU out by session
// (sched_autogroup), and nice values count within one only. It returns what undoes that. A session that others share is left
// alone: it would keep the priority if this process were killed. `xlvs perf run` gives itself one of its own (OwnSession).
func favourSession() (restore func() error) {
	nothing := func() error { return nil }
	if !leadsSession() {
		return nothing
	}
	text, err := os.ReadFile(autogroupFile)
	m := autogroup.FindSubmatch(text)
	if err != nil || m == nil {
		return nothing // a kernel without sessions: nice values count
	}
	if os.WriteFile(autogroupFile, []byte(strconv.Itoa(highest)), 0) != nil {
		return nothing // a session that may not: it measures with more disturbance
	}
	return func() error { return os.WriteFile(autogroupFile, m[1], 0) }
}

// generatorNice is the generator's priority. It keeps its core busy without a pause; whatever else there is to do there, such
// as the Go runtime stopping all workers for a moment, must not wait for it.
const generatorNice = 0

// pin binds a thread (0: the calling one) to a core.
func pin(tid, cpu, nice int) error {
	var set unix.CPUSet
	set.Set(cpu)
	return errors.Join(unix.SchedSetaffinity(tid, &set), unix.Setpriority(unix.PRIO_PROCESS, tid, nice))
}

// A cpuClock is a clock of the CPU time of one thread (clock_getcpuclockid(3), kernel/time/posix-cpu-timers.c).
type cpuClock int32

const (
	cpuClockSched     = 2
	cpuClockPerThread = 4
)

// clockOf returns the clock of a thread of this process, or of a thread of the kernel, which is a process of its own.
func clockOf(tid int, own bool) cpuClock {
	c := cpuClock(^tid<<3 | cpuClockSched)
	if own {
		c |= cpuClockPerThread
	}
	return c
}

// cpuTimes adds up the CPU times of threads.
func cpuTimes(clocks []cpuClock) (sum time.Duration, err error) {
	for _, c := range clocks {
		var t unix.Timespec
		if err := unix.ClockGettime(int32(c), &t); err != nil {
			return 0, fmt.Errorf("read the CPU time of a thread: %w", err)
		}
		sum += time.Duration(t.Nano())
	}
	return sum, nil
}
