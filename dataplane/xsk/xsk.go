package xsk

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"xlvs/dataplane"
)

// A BindMode says whether frames are copied between the driver and the packet memory.
type BindMode uint8

// Bind modes. All ports of a Set share one mode, as they share one memory: BindAuto tries
// zero-copy for all of them and falls back to copy for all of them.
const (
	BindAuto BindMode = iota
	BindZeroCopy
	BindCopy
)

// Options names one port: a queue of an interface in the calling thread's network namespace.
type Options struct {
	Name    string // the interface; may be empty if Ifindex is set
	Ifindex int    // checked against Name if both are set
	Queue   int
	Bind    BindMode
}

// BusyPoll turns on busy polling: the worker's own system calls drive the device's NAPI
// instead of interrupts (SO_PREFER_BUSY_POLL, SO_BUSY_POLL, SO_BUSY_POLL_BUDGET; Linux 5.11). It
// takes effect once the device's napi_defer_hard_irqs and gro_flush_timeout are set.
// The zero value is off.
type BusyPoll struct {
	Microseconds int // SO_BUSY_POLL; 20 is usual
	// Budget is SO_BUSY_POLL_BUDGET, half of what a call brings; 64 is usual, 0: the kernel's default, 8. Calls that send
	// bring frames in copy mode, too: where they send no more than a few, before Linux 6.17, the budget is no more than that.
	Budget int
	// IfKnown leaves it off on queues whose NAPI the socket does not know when it is bound. See Port.NAPI.
	IfKnown bool
}

func (b BusyPoll) on() bool { return b.Microseconds > 0 }

// within bounds what a call brings: by the receive ring, and in copy mode by what a call sends, because it brings as much, and the
// ring of a port that both receives and sends would overflow.
func (b BusyPoll) within(frames int) BusyPoll {
	b.Budget = min(b.Budget, frames/2)
	return b
}

// most is how many frames a poll takes from the device at most: two budgets (napi_busy_loop, busy_poll_stop), of
// BUSY_POLL_BUDGET frames unless told otherwise.
func (b BusyPoll) most() uint32 {
	if b.Budget == 0 {
		return 2 * 8
	}
	return 2 * uint32(b.Budget)
}

// Config is what one worker's Set is made of.
type Config struct {
	Ports         []Options
	FramesPerPort int // chunks of packet memory a port; default 4096
	FrameSize     int // bytes a chunk, 2048 or 4096; default: by the largest MTU
	Ring          int // slots of each ring, a power of two; default 2048
	BusyPoll      BusyPoll
	// AlwaysWake binds without XDP_USE_NEED_WAKEUP, for drivers whose flag cannot be
	// trusted: every Flush with something to send makes a system call.
	AlwaysWake bool
}

// A Set is the ports of one worker and the packet memory they share. Memory and Ports
// belong to that worker.
type Set struct {
	Memory *dataplane.Memory
	Ports  []*Port
	// Fallback tells in one line why the ports are in copy mode although BindAuto tried zero-copy; empty otherwise.
	Fallback string

	first *umemSocket // owns the UMEM; closed last
	open  int         // ports not closed yet
}

// releaseWait is how long Open waits for a queue to become free: the kernel lets go of it
// some time after the last close (xp_put_pool leaves that to a work queue).
const releaseWait = time.Second

// Open opens a socket for each port, maps its rings, binds it and fills its fill ring, so that each
// Port may be put into an XSKMAP at once. On an error everything is closed again; an *OpenError says which
// port it was. The calling goroutine must be locked to its thread if that
// thread's network namespace is not the process's. A zero-copy socket receives from
// a native XDP program only, so a program in generic mode needs BindCopy.
func Open(cfg Config) (*Set, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	devices := make([]*device, len(cfg.Ports))
	for i, o := range cfg.Ports {
		d, err := lookup(o)
		if err != nil {
			return nil, err
		}
		devices[i] = d
	}
	size, err := frameSize(cfg.FrameSize, devices)
	if err != nil {
		return nil, err
	}
	cfg.FrameSize = size
	if total := int64(size) * int64(cfg.FramesPerPort) * int64(len(devices)); total > 1<<31 {
		return nil, fmt.Errorf("%d ports with %d frames of %d bytes need %d MiB; a worker's packet memory is at most 2048 MiB", len(devices), cfg.FramesPerPort, size, total>>20)
	}
	mode, err := bindMode(cfg.Ports)
	if err != nil {
		return nil, err
	}
	return openMode(cfg, devices, mode)
}

func (c *Config) setDefaults() error {
	if len(c.Ports) == 0 {
		return errors.New("no port was asked for")
	}
	if c.Ring == 0 {
		c.Ring = 2048
	}
	if c.Ring < dataplane.MaxBurst || c.Ring > 1<<16 || c.Ring&(c.Ring-1) != 0 {
		return fmt.Errorf("ring of %d slots: it must be a power of two from %d to %d", c.Ring, dataplane.MaxBurst, 1<<16)
	}
	if c.FramesPerPort == 0 {
		c.FramesPerPort = max(2*c.Ring, 4096)
	}
	// With no more chunks than the fill ring takes, nothing would be left to receive into
	// while the first frames are on their way out.
	if c.FramesPerPort < c.Ring+dataplane.MaxBurst {
		return fmt.Errorf("%d frames a port: rings of %d slots need at least %d", c.FramesPerPort, c.Ring, c.Ring+dataplane.MaxBurst)
	}
	return nil
}

// bindMode reduces the ports' modes to the one that they must share.
func bindMode(ports []Options) (BindMode, error) {
	mode := BindAuto
	for _, p := range ports {
		if p.Bind == BindAuto {
			continue
		}
		if mode != BindAuto && mode != p.Bind {
			return 0, errors.New("`bind: zerocopy` and `bind: copy` cannot be mixed: all interfaces of a worker share one packet memory, and so one mode")
		}
		mode = p.Bind
	}
	return mode, nil
}

func openMode(cfg Config, devices []*device, mode BindMode) (*Set, error) {
	wake := bindFlags(unix.XDP_USE_NEED_WAKEUP)
	if cfg.AlwaysWake {
		wake = 0
	}
	switch mode {
	case BindZeroCopy:
		return openAll(cfg, devices, wake|unix.XDP_ZEROCOPY)
	case BindCopy:
		return openAll(cfg, devices, wake|unix.XDP_COPY)
	}
	s, err := openAll(cfg, devices, wake|unix.XDP_ZEROCOPY)
	if err == nil || !mayFallBack(err) {
		return s, err
	}
	why := err
	s, err = openAll(cfg, devices, wake|unix.XDP_COPY)
	if err != nil {
		return nil, err
	}
	s.Fallback = fallbackText(why)
	return s, nil
}

func fallbackText(err error) string {
	var e *OpenError
	if errors.As(err, &e) {
		return fmt.Sprintf("copy mode: queue %d of %s refused zero-copy (%v)", e.Queue, e.Name, e.Err)
	}
	return fmt.Sprintf("copy mode: zero-copy failed (%v)", err)
}

// mayFallBack reports whether copy mode could succeed where zero-copy has failed.
func mayFallBack(err error) bool {
	for _, e := range []unix.Errno{unix.EBUSY, unix.EPERM, unix.EACCES, unix.ENODEV, unix.EAFNOSUPPORT} {
		if errors.Is(err, e) {
			return false
		}
	}
	return true
}

func openAll(cfg Config, devices []*device, flags bindFlags) (s *Set, err error) {
	s = &Set{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
			s = nil
		}
	}()
	for i, d := range devices {
		var fd int
		var r *rings
		err := whileBusy(func() (err error) {
			if i == 0 {
				s.first, err = openFirst(d, flags, cfg.FramesPerPort*len(devices), cfg.FrameSize, cfg.Ring)
				return err
			}
			fd, r, err = openShared(d, s.first.fd(), cfg.Ring)
			return err
		})
		if err != nil {
			return s, openError(d, flags, err)
		}
		if i == 0 {
			fd, r = s.first.fd(), s.first.rings
			if s.Memory, err = dataplane.NewMemory(s.first.umem, cfg.FrameSize); err != nil {
				return s, err
			}
		}
		if err := s.addPort(cfg, d, fd, r, flags); err != nil {
			return s, openError(d, flags, err)
		}
	}
	return s, nil
}

// whileBusy tries open again for releaseWait if the queue is in use.
func whileBusy(open func() error) error {
	deadline := time.Now().Add(releaseWait)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := open()
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		time.Sleep(pause)
	}
}

// addPort makes the socket fd with the rings r a Port, which closes it.
func (s *Set) addPort(cfg Config, d *device, fd int, r *rings, flags bindFlags) error {
	p := &Port{set: s, rings: r, fd: fd, name: d.name, queue: d.queue, mem: s.Memory, shift: s.Memory.ChunkShift(),
		alwaysWake: flags&unix.XDP_USE_NEED_WAKEUP == 0, ringSize: uint32(cfg.Ring), owner: s.first.fd() == fd}
	s.Ports = append(s.Ports, p)
	s.open++
	options, err := unix.GetsockoptInt(fd, unix.SOL_XDP, unix.XDP_OPTIONS)
	if err != nil {
		return failed("asking for the mode", err)
	}
	p.zeroCopy = options&unix.XDP_OPTIONS_ZEROCOPY != 0
	p.txBudget = tune(fd, cfg.Ring, cfg.FrameSize)
	poll := cfg.BusyPoll.within(cfg.Ring)
	if !p.zeroCopy && p.txBudget == txBatch {
		poll = poll.within(2 * txBatch)
	}
	if p.busyPoll = poll.on() && (!poll.IfKnown || p.NAPI() != 0); p.busyPoll {
		if err := busyPoll(fd, poll); err != nil {
			return err
		}
	}
	p.pollMost = poll.most()
	p.hungry = true
	p.refill(0)
	return nil
}

// Close closes all ports and releases the packet memory. The worker must have stopped; frames it
// still holds and slices from Memory.Bytes must not be touched any more.
func (s *Set) Close() error {
	var err error
	for i := len(s.Ports) - 1; i >= 0; i-- {
		err = errors.Join(err, s.Ports[i].Close())
	}
	// Open may have failed between the first socket and its Port.
	return errors.Join(err, s.releaseMemory())
}

// releaseMemory closes the first socket and unmaps the UMEM, once no port is open.
func (s *Set) releaseMemory() error {
	if s.open > 0 || s.first == nil {
		return nil
	}
	if s.Memory != nil {
		s.Memory.Detach()
	}
	err := s.first.close()
	s.first = nil
	return err
}

// InHand returns how many chunks are neither free nor held by a port: the frames that
// the worker has received and not yet sent or freed. Between two polls it must be 0; anything
// else is a leak. Only the worker may call it, or anyone once it has stopped.
func (s *Set) InHand() int {
	n := s.Memory.Chunks() - s.Memory.Available()
	for _, p := range s.Ports {
		n -= int(p.outstanding())
	}
	return n
}
