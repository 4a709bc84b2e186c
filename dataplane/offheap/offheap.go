// Package offheap allocates large tables outside the Go heap: the garbage collector neither
// scans nor counts them, and huge pages, where the kernel has any, make random reads cheap. They have one writer and
// any number of readers: it stores with Put and Add, they read with Load and sync/atomic.
//
// Built with the race detector, which does not see memory that it did not allocate, tables are on the Go heap, and
// every word that one goroutine writes and another reads is accessed atomically: what it then finds is a way round
// these functions.
package offheap

import (
	"sync/atomic"
	"unsafe"
)

// A Region is zeroed memory from the kernel, aligned to 2 MiB when it is at least that large.
type Region struct {
	mapping []byte
	huge    bool
}

// Huge reports whether the kernel accepted the advice to back the region with huge pages.
func (r *Region) Huge() bool { return r.huge }

// Slice maps n zeroed elements of T, which must hold no pointers: the collector will not see them.
// With populate the pages are faulted in now, so that no worker pays for it later;
// without, memory is only reserved until it is touched.
func Slice[T any](n int, populate bool) ([]T, *Region, error) {
	if race {
		return make([]T, n), &Region{}, nil
	}
	var zero T
	b, r, err := reserve(n*int(unsafe.Sizeof(zero)), populate)
	if err != nil {
		return nil, nil, err
	}
	return unsafe.Slice((*T)(unsafe.Pointer(&b[0])), n), r, nil
}

// Load copies *p for a reader while its owner goes on writing: each word is right, several may not belong together.
// T must consist of 64-bit words.
func Load[T any](p *T) (out T) {
	const word = 8
	if unsafe.Sizeof(out)%word != 0 || unsafe.Alignof(out) != word {
		panic("offheap: Load of a type that does not consist of 64-bit words")
	}
	n := unsafe.Sizeof(out) / word
	from, to := unsafe.Slice((*uint64)(unsafe.Pointer(p)), n), unsafe.Slice((*uint64)(unsafe.Pointer(&out)), n)
	for i := range from {
		to[i] = atomic.LoadUint64(&from[i])
	}
	return out
}

// addressOf is for alignment only.
func addressOf(b []byte) uintptr { return uintptr(unsafe.Pointer(&b[0])) }
