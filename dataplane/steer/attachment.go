package steer

import (
	"errors"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// MaxQueues is the number of receive queues an interface can have sockets on: queue numbers are below it.
const MaxQueues = 256

// An Attachment is the steering program on one interface. Its methods may be called from any goroutine.
type Attachment struct {
	steerer *Steerer
	name    string
	objects steerInterface
	hook    *hook
}

// steerInterface is what each interface has of its own.
type steerInterface struct {
	Program  *ebpf.Program  `ebpf:"steer"`
	Sockets  *ebpf.Map      `ebpf:"sockets"`
	Counters *ebpf.Map      `ebpf:"counters"`
	Meters   *ebpf.Map      `ebpf:"meters"`
	OwnMAC   *ebpf.Variable `ebpf:"own_mac"`
}

func (o *steerInterface) Close() error {
	return errors.Join(o.Program.Close(), o.Sockets.Close(), o.Counters.Close(), o.Meters.Close())
}

// Attach runs the steering program on an interface of the network namespace of the calling thread. name serves
// messages. Until SetSocket is called, every frame passes to the kernel. An interface with
// another XDP program is refused with ErrBusy. The caller closes the Attachment, or the Steerer, which closes all.
func (s *Steerer) Attach(ifindex int, name string, mode Mode) (*Attachment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	a := &Attachment{steerer: s, name: name}
	opts := &ebpf.CollectionOptions{MapReplacements: s.rules.byName()}
	if err := s.spec.LoadAndAssign(&a.objects, opts); err != nil {
		return nil, explain("load the steering program for "+name, err)
	}
	var err error
	if a.hook, err = attachXDP(a.objects.Program, ifindex, name, mode); err != nil {
		return nil, errors.Join(err, a.objects.Close())
	}
	s.attached[a] = struct{}{}
	return a, nil
}

// Mode returns what the mode became: Native or Generic.
func (a *Attachment) Mode() Mode { return a.hook.mode }

// NativeError says why an attachment in mode Auto became Generic; nil otherwise.
func (a *Attachment) NativeError() error { return a.hook.nativeErr }

// SetSocket gives the director's frames of a queue to an AF_XDP socket, which must be bound to this interface
// and queue: the kernel drops what is redirected to a socket of another. Its fill ring should hold frames by now.
// The kernel forgets the socket when it is closed; fd stays the caller's.
func (a *Attachment) SetSocket(queue int, fd int) error {
	if queue < 0 || queue >= MaxQueues {
		return fmt.Errorf("steer %s: queue %d is not from 0 to %d", a.name, queue, MaxQueues-1)
	}
	if err := a.objects.Sockets.Update(uint32(queue), uint32(fd), ebpf.UpdateAny); err != nil {
		return fmt.Errorf("steer %s: put the socket of queue %d into the map: %w", a.name, queue, err)
	}
	return nil
}

// ClearSocket takes a queue's socket away: the director's frames of the queue pass to the kernel and are
// counted as NoSocket. A queue without a socket is no error.
func (a *Attachment) ClearSocket(queue int) error {
	if queue < 0 || queue >= MaxQueues {
		return fmt.Errorf("steer %s: queue %d is not from 0 to %d", a.name, queue, MaxQueues-1)
	}
	if err := a.objects.Sockets.Delete(uint32(queue)); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("steer %s: take the socket of queue %d out of the map: %w", a.name, queue, err)
	}
	return nil
}

// SetMAC tells the program the interface's MAC address. From then on frames to other unicast addresses pass to
// the kernel, which drops them, as it does without a director: a switch floods them, and an
// interface in promiscuous mode receives them. Without SetMAC, or after SetMAC(nil), the
// program takes every unicast address for its own; so whoever calls it must call it again when the address changes.
func (a *Attachment) SetMAC(mac net.HardwareAddr) error {
	if len(mac) != 0 && len(mac) != 6 {
		return fmt.Errorf("steer %s: %q is not an Ethernet address", a.name, mac)
	}
	if err := a.objects.OwnMAC.Set(macNumber(mac)); err != nil {
		return fmt.Errorf("steer %s: set the MAC address: %w", a.name, err)
	}
	return nil
}

// MeterSize is the bytes of a queue's meter.
const MeterSize = 64

// Meters maps what the program shares with the workers of the interface's queues: MaxQueues meters of MeterSize bytes, by queue.
// A meter begins with three numbers of 32 bits in the machine's byte order: how many of 256 packets that would open a TCP flow of a
// service the program is to drop, which is the worker's to write; how many frames the queue has brought, and how many of
// them would open such a flow, which the program counts. The mapping outlives the Attachment: the caller unmaps it (unix.Munmap).
func (a *Attachment) Meters() ([]byte, error) {
	mem, err := unix.Mmap(a.objects.Meters.FD(), 0, MaxQueues*MeterSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("steer %s: map the meters: %w", a.name, err)
	}
	return mem, nil
}

// Counters returns what the program has counted on this interface, all CPUs together.
func (a *Attachment) Counters() (Counters, error) {
	var c Counters
	if err := readCounters(a.objects.Counters, c[:]); err != nil {
		return c, fmt.Errorf("steer %s: read the counters: %w", a.name, err)
	}
	return c, nil
}

func readCounters(m *ebpf.Map, into []uint64) error {
	var perCPU []uint64
	for i := range into {
		if err := m.Lookup(uint32(i), &perCPU); err != nil {
			return err
		}
		for _, n := range perCPU {
			into[i] += n
		}
	}
	return nil
}

// Close detaches the program from the interface. Closing twice is harmless.
func (a *Attachment) Close() error {
	a.steerer.mu.Lock()
	defer a.steerer.mu.Unlock()
	if _, ok := a.steerer.attached[a]; !ok {
		return nil
	}
	delete(a.steerer.attached, a)
	return a.release()
}

func (a *Attachment) release() error {
	if err := errors.Join(a.hook.close(), a.objects.Close()); err != nil {
		return fmt.Errorf("detach the steering program from %s: %w", a.name, err)
	}
	return nil
}
