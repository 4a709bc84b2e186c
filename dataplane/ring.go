package dataplane

import "sync/atomic"

// A ring carries records from one goroutine to another: one writer, one reader, no waiting. What does not fit is the
// writer's to count and forget.
type ring[T any] struct {
	buf  []T
	_    [64]byte
	head atomic.Uint64 // written by the writer
	_    [56]byte
	tail atomic.Uint64 // written by the reader
	_    [56]byte
}

// newRing makes a ring for at least n records.
func newRing[T any](n int) *ring[T] {
	size := 1
	for size < n {
		size *= 2
	}
	return &ring[T]{buf: make([]T, size)}
}

// put stores a record; false means the ring is full.
func (r *ring[T]) put(e *T) bool {
	h := r.head.Load()
	if h-r.tail.Load() == uint64(len(r.buf)) {
		return false
	}
	r.buf[h&uint64(len(r.buf)-1)] = *e
	r.head.Store(h + 1)
	return true
}

// read moves records into out and returns how many.
func (r *ring[T]) read(out []T) int {
	t, h := r.tail.Load(), r.head.Load()
	if t == h {
		return 0 // without a store, which the writer's core would have to fetch the line back from
	}
	n := min(int(h-t), len(out))
	for i := range n {
		out[i] = r.buf[(t+uint64(i))&uint64(len(r.buf)-1)]
	}
	r.tail.Store(t + uint64(n))
	return n
}
