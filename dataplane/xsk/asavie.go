package xsk

// Everything that touches asavie/xdp v0.3.3 is in this file. It opens the first socket of a
// Set: it allocates and registers the UMEM, makes the rings and binds. Its own ring code is
// not used: it panics on ENETDOWN, pays a system call a batch and can hand out a frame twice.

import (
	"errors"
	"strings"
	"sync"

	"github.com/asavie/xdp"
	"golang.org/x/sys/unix"
)

// asavieMu guards xdp.DefaultSocketFlags, the package variable that holds the bind flags, and
// keeps unmapOrphans from meeting a socket that is only half opened.
var asavieMu sync.Mutex

// A umemSocket is the socket that owns a Set's UMEM.
type umemSocket struct {
	sock *xdp.Socket
	umem []byte
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
	return &umemSocket{sock: s, umem: s.GetFrame(xdp.Desc{Addr: 0, Len: uint32(frames * frameSize)})}, nil
}

func (s *umemSocket) fd() int { return s.sock.FD() }

// close closes the socket, unmaps its rings (asavie's too, which its Close only forgets) and the
// UMEM. The order matters: a pointer into an unmapped ring must not be reachable, since the
// Go heap may be given the same addresses later.
func (s *umemSocket) close() error {
	asavieMu.Lock()
	defer asavieMu.Unlock()
	inode, err := socketInode(s.fd())
	s.umem = nil
	err = errors.Join(err, s.sock.Close())
	s.sock = nil
	if inode != 0 {
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
