package xsk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// A WakeError says that the kernel refused to be woken for a port. The port stays usable:
// for ENETDOWN it works again by itself once the interface is up.
type WakeError struct {
	Name  string // the interface
	Queue int
	Errno unix.Errno
}

func (e *WakeError) Error() string {
	what := ""
	switch e.Errno {
	case unix.ENETDOWN:
		what = "; the interface is down, frames wait until it is up again"
	case unix.ENXIO:
		what = "; the interface is gone, reload once it is back"
	case unix.ENOBUFS, unix.ENOMEM:
		what = "; the kernel is short of memory for packets"
	}
	return fmt.Sprintf("queue %d of %s: waking the kernel: %v%s", e.Queue, e.Name, e.Errno, what)
}

// Unwrap returns the errno, so that errors.Is(err, unix.ENETDOWN) works.
func (e *WakeError) Unwrap() error { return e.Errno }

// A step is where opening a socket failed. Errno 0: the cause is in err alone.
type stepError struct {
	step  string
	errno unix.Errno
	err   error
}

func (e *stepError) Error() string { return e.step + ": " + e.err.Error() }
func (e *stepError) Unwrap() error {
	if e.errno != 0 {
		return e.errno
	}
	return e.err
}

func failed(step string, err error) error {
	var errno unix.Errno
	errors.As(err, &errno)
	return &stepError{step: step, errno: errno, err: err}
}

// An OpenError says which port could not be opened, why, and what to do about it.
type OpenError struct {
	Name  string
	Queue int
	Mode  string // zero-copy or copy
	Err   error
	hint  string
}

func (e *OpenError) Error() string {
	s := fmt.Sprintf("AF_XDP socket for queue %d of %s (%s mode): %v", e.Queue, e.Name, e.Mode, e.Err)
	if e.hint != "" {
		s += ": " + e.hint
	}
	return s
}

// Unwrap returns the cause; errors.Is with a unix.Errno works.
func (e *OpenError) Unwrap() error { return e.Err }

func openError(d *device, mode bindFlags, err error) *OpenError {
	e := &OpenError{Name: d.name, Queue: d.queue, Mode: mode.String(), Err: err}
	switch {
	case errors.Is(err, unix.EBUSY):
		e.hint = fmt.Sprintf("queue %d of %s is in use by another AF_XDP socket; stop that program or choose another queue", d.queue, d.name)
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		e.hint = "AF_XDP sockets need CAP_NET_RAW (and busy polling CAP_NET_ADMIN); run as root or give the program these capabilities"
	case errors.Is(err, unix.ENODEV):
		e.hint = fmt.Sprintf("there is no interface %s in this network namespace", d.name)
	case errors.Is(err, unix.EAFNOSUPPORT):
		e.hint = "this kernel is built without AF_XDP (CONFIG_XDP_SOCKETS)"
	case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
		e.hint = "not enough memory may be locked; raise the limit (ulimit -l, LimitMEMLOCK=) or ask for fewer frames"
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.Errno(524)):
		// 524 is the kernel's internal ENOTSUPP, which some drivers let out.
		e.hint = fmt.Sprintf("the driver of %s cannot do this; `bind: copy` works with every driver", d.name)
	case errors.Is(err, unix.ENOPROTOOPT):
		e.hint = "this kernel does not know the option; busy polling takes Linux 5.11, `busy_poll: off` goes without"
	case errors.Is(err, unix.EINVAL):
		e.hint = fmt.Sprintf("the kernel found the request wrong: check that %s has a queue %d and that its MTU of %d fits the frames", d.name, d.queue, d.mtu)
	}
	return e
}
