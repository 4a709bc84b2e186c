package xsk

import "golang.org/x/sys/unix"

// txBatch is how many frames one sendto takes in copy mode at least: TX_BATCH_SIZE of
// net/xdp/xsk.c is 32, and was 16 before Linux 5.16.
const txBatch = 16

// reclaimFrames is how many sent frames a port leaves on the completion ring while it has others to send. The kernel writes that
// ring's index for each frame, on the core that has taken it: every look costs both cores a cache miss.
const reclaimFrames = 256

// Flush wakes the kernel for what Send queued and takes back the chunks of frames
// that have left, now and then. See dataplane.Port. An error is a *WakeError; the queued frames stay
// queued, and the next Flush tries again.
func (p *Port) Flush() error {
	if p.inFlight == 0 {
		return nil
	}
	var err error
	if p.alwaysWake || p.busyPoll || p.tx.needWakeup() {
		if pending := p.tx.pending(); pending > 0 {
			err = p.wakeTX(pending)
		}
	}
	if p.queued == 0 || p.inFlight >= min(reclaimFrames, p.ringSize/2) || p.mem.Available() < reclaimFrames {
		p.reclaim()
	}
	p.queued = 0
	return err
}

// wakeTX calls sendto until the kernel has taken the pending frames, or takes no more for now.
// The number of calls is bounded by what copy mode takes in one, twice over.
//
// Before Linux 6.17, which brought the budget too, the kernel does not say on the ring what it has taken when a call's
// budget is used up. So there a call that seems to have sent nothing is no reason to stop before there was one for each batch.
func (p *Port) wakeTX(pending uint32) error {
	unseen := uint32(0)
	if p.txBudget == txBatch {
		unseen = pending / txBatch
	}
	for tries := 2*pending/txBatch + 2; tries > 0; tries-- {
		errno := p.syscall(unix.SYS_SENDTO, p.fd)
		switch errno {
		case 0:
			return nil
		case unix.EINTR:
			continue
		case unix.EAGAIN, unix.EBUSY:
			// EAGAIN: the call's budget is used up, or the device's queue, the send buffer or the completion ring is full.
			// EBUSY: the driver dropped one frame, whose chunk comes back as if it had been sent.
			if errno == unix.EBUSY {
				p.count.txRefused.Add(1)
			}
			p.reclaim()
			left := p.tx.pending()
			if left == 0 {
				return nil
			}
			switch {
			case left < pending:
				pending = left
			case unseen > 0:
				unseen--
			default:
				p.count.txStalls.Add(1)
				return nil
			}
		default:
			return p.failed(errno)
		}
	}
	return nil
}

// wakeRX makes the driver look at the fill ring, or, when busy polling, runs its NAPI. Its error
// is counted and kept for FirstError; Flush reports what lasts.
func (p *Port) wakeRX() {
	p.received(p.syscall(unix.SYS_RECVFROM, p.fd))
}

// pollNAPI runs the device's NAPI once, through fd: the kernel takes up to two budgets of frames from it (napi_busy_loop,
// busy_poll_stop).
func (p *Port) pollNAPI(fd int) {
	p.unpolled = 0
	if y := p.yielded - 1; y >= 0 && (y != fd && y != p.fd || p.prefer(y, 1)) { // others' are not the port's to touch any more
		p.yielded = 0
	}
	before := p.shed.counted()
	p.received(p.syscall(unix.SYS_RECVFROM, fd))
	p.shed.polled(before, p.pollMost)
}

// polls returns the socket whose receive calls poll the device, and whether Recv makes them.
func (p *Port) polls() (fd int, ok bool) {
	if fd := int(p.pollFD.Load()) - 1; fd >= 0 {
		return fd, true
	}
	return p.fd, p.busyPoll
}

// Yield polls the device once more, this time without keeping its interrupts off: a poll that finds nothing and does not
// prefer busy polling turns them on again (napi_complete_done); otherwise they stay off for gro_flush_timeout after the worker's
// last poll. They stay off for that time, too, after a poll that finds something, also the kernel's own after an interrupt: frames
// that come behind one that is the kernel's, and so wakes no worker, wait. See dataplane.Yielder.
func (p *Port) Yield() {
	if fd, ok := p.polls(); ok && p.yielded == 0 && p.prefer(fd, 0) {
		p.yielded = fd + 1
		p.syscall(unix.SYS_RECVFROM, fd) // an error that lasts comes back at the next poll
	}
}

// prefer sets SO_PREFER_BUSY_POLL.
func (p *Port) prefer(fd, value int) bool {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PREFER_BUSY_POLL, value)
	if err != nil {
		p.count.errors.Add(1)
	}
	return err == nil
}

func (p *Port) received(errno unix.Errno) {
	switch errno {
	case 0, unix.EINTR, unix.EAGAIN, unix.EBUSY:
	default:
		_ = p.failed(errno)
	}
}

// syscall makes a sendto or recvfrom without data. It is a raw one: it does not block, and a worker
// owns its core, so handing its P to another goroutine meanwhile would only cost time.
func (p *Port) syscall(trap uintptr, fd int) unix.Errno {
	p.count.wakeups.Add(1)
	_, _, errno := unix.RawSyscall6(trap, uintptr(fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
	return errno
}

// failed counts an error and returns it, the same value as long as it stays the same error: an
// interface that is down fails at every poll and must not allocate at every poll.
func (p *Port) failed(errno unix.Errno) error {
	p.count.errors.Add(1)
	if p.lastErr == nil || p.lastErr.Errno != errno {
		p.lastErr = &WakeError{Name: p.name, Queue: p.queue, Errno: errno}
		p.firstErr.CompareAndSwap(nil, p.lastErr)
	}
	return p.lastErr
}

// reclaim frees the chunks on the completion ring.
func (p *Port) reclaim() {
	index, n := p.completion.peek(p.ringSize)
	if n == 0 {
		return
	}
	lost := uint32(0)
	for i := range n {
		chunk := p.completion.get(index+i) >> p.shift
		if chunk >= uint64(p.mem.Chunks()) {
			lost++
			continue
		}
		p.mem.Free(uint32(chunk))
	}
	p.completion.release(n)
	p.inFlight -= n
	p.count.completed.Add(uint64(n))
	if lost > 0 {
		p.count.txInvalid.Add(uint64(lost))
	}
}
