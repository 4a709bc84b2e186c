package xsk

import (
	"errors"

	"golang.org/x/sys/unix"
)

// bindFlags are the sxdp_flags of bind(2).
type bindFlags uint16

func (f bindFlags) String() string {
	if f&unix.XDP_ZEROCOPY != 0 {
		return "zero-copy"
	}
	return "copy"
}

// openShared opens a socket that shares the UMEM of the socket first, with four rings of
// its own. The kernel gives it the first one's mode and need_wakeup (xp_assign_dev_shared), and
// refuses any other bind flag beside XDP_SHARED_UMEM.
func openShared(d *device, first, ring int) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, failed("socket", err)
	}
	for _, opt := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_RX_RING, unix.XDP_TX_RING} {
		if err := unix.SetsockoptInt(fd, unix.SOL_XDP, opt, ring); err != nil {
			return -1, errors.Join(failed("making the rings", err), unix.Close(fd))
		}
	}
	sa := &unix.SockaddrXDP{Flags: unix.XDP_SHARED_UMEM, Ifindex: uint32(d.ifindex), QueueID: uint32(d.queue), SharedUmemFD: uint32(first)}
	if err := unix.Bind(fd, sa); err != nil {
		return -1, errors.Join(failed("bind", err), unix.Close(fd))
	}
	return fd, nil
}

// rings are the four rings of one socket, mapped.
type rings struct {
	fill       producer[uint64]
	completion consumer[uint64]
	rx         consumer[unix.XDPDesc]
	tx         producer[unix.XDPDesc]
	maps       [][]byte
}

func mapRings(fd, size int) (r *rings, err error) {
	off, err := ringOffsets(fd)
	if err != nil {
		return nil, failed("asking for the rings' layout", err)
	}
	r = &rings{}
	fill, e1 := mapRing[uint64](fd, unix.XDP_UMEM_PGOFF_FILL_RING, off.Fr, size)
	completion, e2 := mapRing[uint64](fd, unix.XDP_UMEM_PGOFF_COMPLETION_RING, off.Cr, size)
	rx, e3 := mapRing[unix.XDPDesc](fd, unix.XDP_PGOFF_RX_RING, off.Rx, size)
	tx, e4 := mapRing[unix.XDPDesc](fd, unix.XDP_PGOFF_TX_RING, off.Tx, size)
	for _, m := range [][]byte{fill.mem, completion.mem, rx.mem, tx.mem} {
		if m != nil {
			r.maps = append(r.maps, m)
		}
	}
	for _, e := range []error{e1, e2, e3, e4} {
		if e != nil {
			return nil, errors.Join(failed("mapping the rings", e), r.unmap())
		}
	}
	r.fill, r.completion = newProducer(fill), newConsumer(completion)
	r.rx, r.tx = newConsumer(rx), newProducer(tx)
	return r, nil
}

// unmap unmaps the rings and forgets every pointer into them.
func (r *rings) unmap() error {
	maps := r.maps
	*r = rings{}
	var err error
	for _, m := range maps {
		err = errors.Join(err, unix.Munmap(m))
	}
	return err
}

// tune sets the socket's options that are not needed to work. It returns the number of
// frames that one wake-up may send in copy mode.
func tune(fd, ring, frameSize int) (txBudget int) {
	// In copy mode a frame in flight counts against the send buffer, whose default holds only
	// a few hundred. Failing is harmless: Flush then comes back later for the rest.
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, ring*frameSize) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, ring*frameSize)
	}
	// Linux 6.17 lets one sendto drain the whole ring; before, and on smaller rings, it is 32 frames.
	if unix.SetsockoptInt(fd, unix.SOL_XDP, unix.XDP_MAX_TX_SKB_BUDGET, ring) == nil {
		return ring
	}
	return txBatch
}

// busyPoll turns busy polling on.
func busyPoll(fd int, b BusyPoll) error {
	for _, o := range []struct {
		name       string
		opt, value int
	}{
		{"SO_PREFER_BUSY_POLL", unix.SO_PREFER_BUSY_POLL, 1},
		{"SO_BUSY_POLL", unix.SO_BUSY_POLL, b.Microseconds},
		{"SO_BUSY_POLL_BUDGET", unix.SO_BUSY_POLL_BUDGET, b.Budget},
	} {
		if o.value == 0 {
			continue
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.opt, o.value); err != nil {
			return failed("busy polling: "+o.name, err)
		}
	}
	return nil
}
