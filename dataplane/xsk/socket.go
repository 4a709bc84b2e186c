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
// refuses any other bind flag beside XDP_SHARED_UMEM. The rings are mapped before the socket is bound:
// before Linux 6.4 those of a bound socket cannot be (EBUSY). On an error nothing stays open or mapped.
func openShared(d *device, first, ring int) (fd int, r *rings, err error) {
	fd, err = unix.Socket(unix.AF_XDP, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, failed("socket", err)
	}
	defer func() {
		if err == nil {
			return
		}
		if r != nil {
			err = errors.Join(err, r.unmap())
		}
		fd, r, err = -1, nil, errors.Join(err, unix.Close(fd))
	}()
	for _, opt := range []int{unix.XDP_UMEM_FILL_RING, unix.XDP_UMEM_COMPLETION_RING, unix.XDP_RX_RING, unix.XDP_TX_RING} {
		if err := unix.SetsockoptInt(fd, unix.SOL_XDP, opt, ring); err != nil {
			return fd, nil, failed("making the rings", err)
		}
	}
	r, err = newRings(fd, ring, func(pgoff uint64, length int) ([]byte, error) {
		return unix.Mmap(fd, int64(pgoff), length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	})
	if err != nil {
		return fd, r, err
	}
	sa := &unix.SockaddrXDP{Flags: unix.XDP_SHARED_UMEM, Ifindex: uint32(d.ifindex), QueueID: uint32(d.queue), SharedUmemFD: uint32(first)}
	if err := unix.Bind(fd, sa); err != nil {
		return fd, r, failed("bind", err)
	}
	return fd, r, nil
}

// rings are the four rings of one socket. maps is the memory they lie in.
type rings struct {
	fill       producer[uint64]
	completion consumer[uint64]
	rx         consumer[unix.XDPDesc]
	tx         producer[unix.XDPDesc]
	maps       [][]byte
}

// A ringMemory returns the memory of the ring of a socket that lies at page offset pgoff and is length bytes long.
type ringMemory func(pgoff uint64, length int) ([]byte, error)

// newRings views the rings of the socket fd, of size slots each. On an error too, what memory has returned is in maps.
func newRings(fd, size int, memory ringMemory) (r *rings, err error) {
	r = &rings{}
	off, err := ringOffsets(fd)
	if err != nil {
		return r, failed("asking for the rings' layout", err)
	}
	fill, e1 := mapRing[uint64](memory, unix.XDP_UMEM_PGOFF_FILL_RING, off.Fr, size)
	completion, e2 := mapRing[uint64](memory, unix.XDP_UMEM_PGOFF_COMPLETION_RING, off.Cr, size)
	rx, e3 := mapRing[unix.XDPDesc](memory, unix.XDP_PGOFF_RX_RING, off.Rx, size)
	tx, e4 := mapRing[unix.XDPDesc](memory, unix.XDP_PGOFF_TX_RING, off.Tx, size)
	for _, m := range [][]byte{fill.mem, completion.mem, rx.mem, tx.mem} {
		if m != nil {
			r.maps = append(r.maps, m)
		}
	}
	for _, e := range []error{e1, e2, e3, e4} {
		if e != nil {
			return r, failed("mapping the rings", e)
		}
	}
	r.fill, r.completion = newProducer(fill), newConsumer(completion)
	r.rx, r.tx = newConsumer(rx), newProducer(tx)
	return r, nil
}

// forget forgets every pointer into the rings, which stay mapped.
func (r *rings) forget() { *r = rings{} }

// unmap unmaps the rings of a shared socket and forgets every pointer into them.
func (r *rings) unmap() error {
	maps := r.maps
	r.forget()
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
