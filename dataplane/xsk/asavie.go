package xsk

// Everything that touches asavie/xdp v0.3.3 is in this file. It opens the first socket of a
// Set: it allocates and registers the UMEM, makes the rings, maps them and binds. Its own ring code is
// not used: it panics on ENETDOWN, pays a system call a batch and can hand out a frame twice. Only its
// mappings are, since before Linux 6.4 the rings of a bound socket cannot be mapped again.

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"syscall"

	"github.com/asavie/xdp"
	"golang.org/x/sys/unix"
)

// asavieMu guards xdp.DefaultSocketFlags, the package variable that holds the bind flags, and
// keeps unmapOrphans from meeting a socket that is only half opened.
var asavieMu sync.Mutex

// A umemSocket is the socket that owns a Set's UMEM, and the memory of its own rings: who uses them must forget them before close.
type umemSocket struct {
	sock  *xdp.Socket
	umem  []byte
	rings *rings
	maps  [][]byte // what rings lie in, mapped by asavie with syscall.Mmap
}

// openFirst opens a socket with a UMEM of frames chunks of frameSize bytes and four rings of
// ring slots, bound to the device. On an error nothing stays open or mapped.
func openFirst(d *device, flags bindFlags, frames, frameSize, ring int) (*umemSocket, error) {
	asavieMu.Lock()
	defer asavieMu.Unlock()
	saved := xdp.DefaultSocketFlags
	xdp.DefaultSocketFlags = uint16(flags)
	defer func() { xdp.DefaultSocketFlags = saved }()

	s, err := xdp.NewSocket(d.ifindex, d.queue, &xdp.SocketOptions{
		NumFrames:              frames,
		FrameSize:              frameSize,
		FillRingNumDescs:       ring,
		CompletionRingNumDescs: ring,
		RxRingNumDescs:         ring,
		TxRingNumDescs:         ring,
	})
	if err != nil {
		return nil, errors.Join(asavieError(err), unmapOrphans())
	}
	// asavie opens it without SOCK_CLOEXEC: a child that inherits it would keep the queue busy.
	unix.CloseOnExec(s.FD())
	first := &umemSocket{sock: s, umem: s.GetFrame(xdp.Desc{Addr: 0, Len: uint32(frames * frameSize)})}
	if err := first.adoptRings(ring); err != nil {
		return nil, errors.Join(err, first.release())
	}
	return first, nil
}

// adoptRings finds the rings of size slots that asavie has mapped and keeps to itself.
func (s *umemSocket) adoptRings(size int) error {
	const step = "finding the mapped rings"
	inode, err := socketInode(s.fd())
	if err != nil {
		return failed(step, err)
	}
	maps, err := socketMappings()
	if err != nil {
		return failed(step, err)
	}
	r, err := newRings(s.fd(), size, func(pgoff uint64, length int) ([]byte, error) {
		for _, m := range maps {
			if m.inode == inode && m.offset == pgoff && m.end-m.start >= uintptr(length) {
				return m.bytes(length), nil
			}
		}
		return nil, fmt.Errorf("/proc/self/maps shows none of %d bytes at %#x of socket %d", length, pgoff, inode)
	})
	if err != nil {
		return err
	}
	s.rings, s.maps = r, r.maps
	return nil
}

func (s *umemSocket) fd() int { return s.sock.FD() }

// close closes the socket and unmaps its rings, which asavie's Close only forgets, and the
// UMEM. The order matters: a pointer into an unmapped ring must not be reachable, since the
// Go heap may be given the same addresses later. So syscall.Munmap has to do it: it keeps a
// list of what syscall.Mmap has mapped.
func (s *umemSocket) close() error {
	asavieMu.Lock()
	defer asavieMu.Unlock()
	return s.release()
}

// release is close with asavieMu held.
func (s *umemSocket) release() error {
	inode, err := socketInode(s.fd())
	maps := s.maps
	s.umem, s.rings, s.maps = nil, nil, nil
	err = errors.Join(err, s.sock.Close())
	s.sock = nil
	for _, m := range maps {
		err = errors.Join(err, syscall.Munmap(m))
	}
	if maps == nil && inode != 0 { // the rings were not found one by one
		err = errors.Join(err, unmapSocket(inode))
	}
	return err
}

// asavieError finds the errno again that asavie has turned into text, and names the
// step in words.
func asavieError(err error) error {
	text := err.Error()
	step := "opening the first socket"
	for _, s := range []struct{ part, name string }{
		{"syscall.Socket", "socket"},
		{"syscall.Mmap failed", "allocating the packet memory"},
		{"XDP_UMEM_REG", "registering the packet memory"},
		{"_RING", "making the rings"},
		{"Bind", "bind"},
	} {
		if strings.Contains(text, s.part) {
			step = s.name
		}
	}
	for e := unix.Errno(1); e < 134; e++ {
		if strings.HasSuffix(text, ": "+e.Error()) {
			return failed(step, e)
		}
	}
	if strings.HasSuffix(text, ": "+unix.Errno(524).Error()) {
		return failed(step, unix.Errno(524))
	}
	return failed(step, err)
}
