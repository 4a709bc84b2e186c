package xsk

import (
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// A producer is our side of a ring that the kernel reads: the fill ring (T is a chunk's
// address) or the TX ring (T is a descriptor). Use is Reserve, Set each slot, Submit.
// Both indices run freely over uint32 and are reduced to a slot by the mask alone.
//
//	kernel's consumer        next                limit = consumer + size
//	       |<-- submitted -->|<------- free -------->|
type producer[T any] struct {
	head  *uint32 // shared: written by us
	tail  *uint32 // shared: written by the kernel
	flags *uint32 // shared: written by the kernel
	slots []T
	mask  uint32
	next  uint32 // what head will be after Submit
	limit uint32 // the kernel's consumer as last seen, plus the size: free slots are one subtraction
}

func newProducer[T any](m ringMap[T]) producer[T] {
	p := producer[T]{head: m.producer, tail: m.consumer, flags: m.flags, slots: m.slots, mask: uint32(len(m.slots) - 1)}
	p.next = atomic.LoadUint32(p.head)
	p.limit = atomic.LoadUint32(p.tail) + uint32(len(p.slots))
	return p
}

// reserve returns the index of the first free slot and how many are free, at most
// most. The kernel's index is read only when the cached one does not suffice.
func (p *producer[T]) reserve(most uint32) (index, n uint32) {
	if p.limit-p.next < most {
		p.limit = atomic.LoadUint32(p.tail) + uint32(len(p.slots))
	}
	return p.next, min(p.limit-p.next, most)
}

// set writes a reserved slot.
func (p *producer[T]) set(index uint32, v T) { p.slots[index&p.mask] = v }

// submit hands the first n reserved slots to the kernel. The store is an XCHG on amd64,
// a full barrier: once a batch, never per slot.
func (p *producer[T]) submit(n uint32) {
	p.next += n
	atomic.StoreUint32(p.head, p.next)
}

// pending returns how many submitted slots the kernel has not consumed yet.
func (p *producer[T]) pending() uint32 {
	p.limit = atomic.LoadUint32(p.tail) + uint32(len(p.slots))
	return uint32(len(p.slots)) - (p.limit - p.next)
}

// needWakeup reports whether the kernel asks to be woken (XDP_RING_NEED_WAKEUP).
func (p *producer[T]) needWakeup() bool {
	return atomic.LoadUint32(p.flags)&unix.XDP_RING_NEED_WAKEUP != 0
}
