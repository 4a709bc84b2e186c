package dataplane

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"xlvs/dataplane/flow"
	"xlvs/dataplane/offheap"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// A worker owns one queue of every interface: its ports, its packet memory, its flow table
// and its counters. Its goroutine is locked to a thread, and that thread to a core.
type worker struct {
	pipeline
	id       int
	cpu      int // -1: any
	ports    []Port
	ifaces   []int  // interface of each port
	tx       []Port // by interface: where it is sent on
	relieved []Reliever
	shedding bool // for one of them at least
	yielding []Yielder
	snap     *atomic.Pointer[table.Snapshot]
	stop     atomic.Bool
	wakeFD   int
	polls    []unix.PollFd
	idle     IdlePolicy
	realtime int // SCHED_FIFO priority; 0: none
	start    time.Time
	frames   [MaxBurst]Frame
	region   [2]*offheap.Region
}

// newWorker allocates all that the worker will ever use.
func newWorker(id int, o WorkerOptions, eo *Options, h packet.Hasher, snap *atomic.Pointer[table.Snapshot], start time.Time) (_ *worker, err error) {
	w := &worker{id: id, cpu: o.CPU, ports: o.Ports, snap: snap, idle: eo.Idle, start: start, wakeFD: -1}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	w.mem, w.hasher = o.Memory, h
	if err := w.assign(o); err != nil {
		return nil, fmt.Errorf("worker %d: %w", id, err)
	}
	w.realtime = eo.Realtime
	w.sample = uint64(max(eo.FlowSample, 0))
	w.events = newRing[Event](max(eo.EventRing, 1))
	w.limit.tokens = limiterBurst
	if w.flows, err = flow.New(eo.Flows, h); err != nil {
		return nil, fmt.Errorf("worker %d: %w", id, err)
	}
	w.fragments = newFragments(o.Memory.Chunks(), w.flush)
	if w.backends, w.region[0], err = offheap.Slice[BackendCounters](table.MaxBackends, false); err != nil {
		return nil, fmt.Errorf("worker %d: counters: %w", id, err)
	}
	var c []Counters
	if c, w.region[1], err = offheap.Slice[Counters](1, true); err != nil {
		return nil, fmt.Errorf("worker %d: counters: %w", id, err)
	}
	w.count = &c[0]
	if w.wakeFD, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC); err != nil {
		return nil, fmt.Errorf("worker %d: eventfd: %w", id, err)
	}
	w.polls = append(w.polls, unix.PollFd{Fd: int32(w.wakeFD), Events: unix.POLLIN})
	for _, p := range o.Ports {
		if fd := p.FD(); fd >= 0 {
			w.polls = append(w.polls, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
		}
	}
	return w, nil
}

// assign finds the interface of each port and the port for each interface.
func (w *worker) assign(o WorkerOptions) error {
	for i, p := range o.Ports {
		if r, ok := p.(Reliever); ok {
			w.relieved = append(w.relieved, r)
		}
		if y, ok := p.(Yielder); ok {
			w.yielding = append(w.yielding, y)
		}
		k := i
		if o.Interfaces != nil {
			k = o.Interfaces[i]
		}
		w.ifaces = append(w.ifaces, k)
		for len(w.tx) <= k {
			w.tx = append(w.tx, nil)
		}
		if w.tx[k] == nil {
			w.tx[k] = p
		}
	}
	for k, p := range w.tx {
		if p == nil {
			return fmt.Errorf("no port on interface %d: what is to leave there could not be sent", k)
		}
	}
	return nil
}

// run polls until stop is set. It pins its thread first; ready receives the result of that.
func (w *worker) run(ready chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if w.cpu >= 0 {
		var old, set unix.CPUSet
		err := unix.SchedGetaffinity(0, &old)
		set.Set(w.cpu)
		if err == nil {
			err = unix.SchedSetaffinity(0, &set)
		}
		if err != nil {
			ready <- fmt.Errorf("pin worker %d to CPU %d: %w; `cpus` must name CPUs that the process may use", w.id, w.cpu, err)
			return
		}
		defer func() { _ = unix.SchedSetaffinity(0, &old) }()
	}
	if w.realtime > 0 {
		if err := setRealtime(w.realtime); err != nil {
			ready <- fmt.Errorf("worker %d: %w", w.id, err)
			return
		}
		defer func() { _ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr}, 0) }()
	}
	ready <- nil
	w.loop()
}

// loop is the worker's life. Time is read once a poll; the snapshot is loaded once a poll.
func (w *worker) loop() {
	busy := time.Since(w.start)
	for !w.stop.Load() {
		now := time.Since(w.start)
		if w.poll(uint32(now.Milliseconds())) > 0 {
			busy = now
			continue
		}
		offheap.Add64(&w.count.Idle, 1)
		if w.idle.Sleep && now-busy > w.idle.Spin {
			w.sleep()
		}
	}
}

// BurstsPerPoll is how many bursts a worker takes from a port, while they are full, before it wakes the kernel for what is to
// be sent: a system call for each burst would be a large part of what it costs.
const BurstsPerPoll = 2

// poll is one breath: receive a burst or two on each port, process them, send what they left, expire a few
// flows. It returns how many frames and how much news it received.
func (w *worker) poll(now uint32) int {
	if s := w.snap.Load(); s != w.pipeline.snap {
		w.pipeline.snap, w.last = s, table.Gate{}
		w.flows.Use(s)
	}
	w.now = now
	offheap.Add64(&w.count.Polls, 1)
	total := 0
	for i, port := range w.ports {
		for range BurstsPerPoll {
			n := port.Recv(w.frames[:])
			if n == 0 {
				break
			}
			total += n
			w.burst(w.ifaces[i], w.frames[:n])
			w.flush()
			w.settle() // after each burst: the flow table remembers no more ended flows than one can make
			if n < MaxBurst {
				break
			}
		}
	}
	for _, port := range w.ports {
		if port.Flush() != nil {
			offheap.Add64(&w.count.PortErrors, 1)
		}
	}
	w.shedding = false
	for _, r := range w.relieved {
		if r.Relieve(now) {
			w.shedding = true
		}
	}
	w.expireFragments()
	total += w.heed() // before the sweep, which would end what they kept alive
	w.flows.Sweep(now)
	w.settle()
	return total
}

// flush gives the outboxes to their ports.
func (w *worker) flush() {
	for i, port := range w.tx {
		o := &w.out[i]
		if o.n == 0 {
			continue
		}
		sent := port.Send(o.frames[:o.n])
		offheap.Add64(&w.count.Drops[DropTx], uint64(o.n-sent))
		o.n = 0
	}
}

// sleepFor bounds a sleep, so that flows expire and new snapshots are taken up also when nothing comes.
const sleepFor = 100 // milliseconds

// sleep blocks in poll(2) until a frame, a wake-up or sleepFor. What is dropped for the worker wakes nobody, so
// it looks itself whether that must go on.
func (w *worker) sleep() {
	offheap.Add64(&w.count.Sleeps, 1)
	most := sleepFor
	if w.shedding {
		most = 1
	}
	for _, y := range w.yielding {
		y.Yield()
	}
	_, err := unix.Poll(w.polls, most)
	if err == nil && w.polls[0].Revents != 0 {
		var b [8]byte
		_, _ = unix.Read(w.wakeFD, b[:])
	}
	for i := 1; i < len(w.polls); i++ {
		// A port that is out of order (its interface is down) polls ready all the time: do not spin on it.
		if w.polls[i].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0 {
			time.Sleep(time.Millisecond)
			return
		}
	}
}

// wake ends a sleep.
func (w *worker) wake() {
	_, _ = unix.Write(w.wakeFD, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

// close releases what newWorker allocated; the goroutine must have ended. Ports are their opener's to close.
func (w *worker) close() error {
	var err error
	w.dropHeld()
	if w.flows != nil {
		err = w.flows.Close()
	}
	for _, r := range w.region {
		if e := r.Free(); err == nil {
			err = e
		}
	}
	if w.wakeFD >= 0 {
		if e := unix.Close(w.wakeFD); err == nil {
			err = e
		}
	}
	return err
}
