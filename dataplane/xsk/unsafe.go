package xsk

// All of the package's unsafe code is in this file: views of mapped memory, rings and meters, the
// getsockopt calls that fill a struct, and ethtool's ioctl.

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A ringMap is one ring as the kernel shares it. mem is the mapping that the other
// fields point into; they must not be used after it is unmapped.
type ringMap[T any] struct {
	mem                       []byte
	producer, consumer, flags *uint32
	slots                     []T
}

// mapRing views a ring of size slots that memory maps, given the ring's page offset (XDP_PGOFF_RX_RING and its like)
// and its length in bytes.
func mapRing[T any](memory ringMemory, pgoff uint64, off unix.XDPRingOffset, size int) (ringMap[T], error) {
	var slot T
	mem, err := memory(pgoff, int(off.Desc)+size*int(unsafe.Sizeof(slot)))
	if err != nil {
		return ringMap[T]{}, err
	}
	return viewRing[T](mem, off, size), nil
}

// bytes returns the first length bytes of the mapping, which must have that many. They are no part of the Go heap, and
// must not be reachable any more once they are unmapped.
func (m mapping) bytes(length int) []byte {
	start := m.start
	return unsafe.Slice(*(**byte)(unsafe.Pointer(&start)), length)
}

// viewRing interprets mem as a ring with its parts at the offsets off.
func viewRing[T any](mem []byte, off unix.XDPRingOffset, size int) ringMap[T] {
	var slot T
	if need := int(off.Desc) + size*int(unsafe.Sizeof(slot)); len(mem) < need {
		panic(fmt.Sprintf("xsk: a ring of %d slots needs %d bytes, not %d", size, need, len(mem)))
	}
	return ringMap[T]{
		mem:      mem,
		producer: (*uint32)(unsafe.Pointer(&mem[off.Producer])),
		consumer: (*uint32)(unsafe.Pointer(&mem[off.Consumer])),
		flags:    (*uint32)(unsafe.Pointer(&mem[off.Flags])),
		slots:    unsafe.Slice((*T)(unsafe.Pointer(&mem[off.Desc])), size),
	}
}

// MeterAt returns the meter of a queue in memory that holds those of all, one after the other.
func MeterAt(mem []byte, queue int) *Meter {
	const size = int(unsafe.Sizeof(Meter{}))
	return (*Meter)(unsafe.Pointer(&mem[queue*size : (queue+1)*size][0]))
}

func ringOffsets(fd int) (unix.XDPMmapOffsets, error) {
	var off unix.XDPMmapOffsets
	n, err := getsockopt(fd, unix.XDP_MMAP_OFFSETS, unsafe.Pointer(&off), unsafe.Sizeof(off))
	if err == nil && n != unsafe.Sizeof(off) {
		// The first form of the struct, before Linux 5.4, had no offsets of the flags.
		err = unix.ENOTSUP
	}
	return off, err
}

func kernelStatistics(fd int) (unix.XDPStatistics, error) {
	var st unix.XDPStatistics
	_, err := getsockopt(fd, unix.XDP_STATISTICS, unsafe.Pointer(&st), unsafe.Sizeof(st))
	return st, err
}

func getsockopt(fd, opt int, to unsafe.Pointer, size uintptr) (uintptr, error) {
	n := uint32(size)
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_XDP, uintptr(opt),
		uintptr(to), uintptr(unsafe.Pointer(&n)), 0)
	if errno != 0 {
		return 0, errno
	}
	return uintptr(n), nil
}

// ethtoolRequest has the driver of an interface execute a request (SIOCETHTOOL), a struct of linux/ethtool.h that begins with its
// command. The kernel writes its answer over it, as far as the struct and the sizes in it say: request must be that long.
func ethtoolRequest(fd int, name string, request []byte) error {
	var ifr struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // the kernel copies a whole struct ifreq
	}
	if len(name) >= len(ifr.name) {
		return unix.ENODEV
	}
	copy(ifr.name[:], name)
	ifr.data = unsafe.Pointer(unsafe.SliceData(request))
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr)))
	runtime.KeepAlive(request)
	if errno != 0 {
		return errno
	}
	return nil
}
