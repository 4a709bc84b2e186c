package xsk

import "sync/atomic"

// A consumer is our side of a ring that the kernel writes: the RX ring (T is a
// descriptor) or the completion ring (T is an address). Use is Peek, Get each
// slot, Release.
//
//	next                 limit = the kernel's producer
//	  |<---- available ---->|
type consumer[T any] struct {
	head  *uint32 // shared: written by the kernel
	tail  *uint32 // shared: written by us
	slots []T
	mask  uint32
	next  uint32 // our consumer index
	limit uint32 // the kernel's producer index as last seen
}

func newConsumer[T any](m ringMap[T]) consumer[T] {
	c := consumer[T]{head: m.producer, tail: m.consumer, slots: m.slots, mask: uint32(len(m.slots) - 1)}
	c.next = atomic.LoadUint32(c.tail)
	c.limit = atomic.LoadUint32(c.head)
	return c
}

// peek returns the index of the first slot to read and how many there are, at most
// most. The kernel's index is read only when the cached one does not suffice.
func (c *consumer[T]) peek(most uint32) (index, n uint32) {
	if c.limit-c.next < most {
		c.limit = atomic.LoadUint32(c.head)
	}
	return c.next, min(c.limit-c.next, most)
}

// get reads a peeked slot.
func (c *consumer[T]) get(index uint32) T { return c.slots[index&c.mask] }

// release gives the first n peeked slots back to the kernel, with one atomic store.
func (c *consumer[T]) release(n uint32) {
	c.next += n
	atomic.StoreUint32(c.tail, c.next)
}

// pending returns how many slots wait to be read.
func (c *consumer[T]) pending() uint32 {
	c.limit = atomic.LoadUint32(c.head)
	return c.limit - c.next
}
