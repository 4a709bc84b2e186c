//go:build amd64 && !race

package offheap

import "sync/atomic"

// On amd64 stores become visible in program order, and the compiler keeps theirs: a plain store is enough, where an
// atomic one would be a locked exchange, which waits for a cache miss that others could overlap with.

// Put64, Put32 and PutSeq store a word that others read: a reader that sees it sees what was stored before it, too.
func Put64(p *uint64, v uint64) { *p = v }

// Put32 is Put64 for 32 bits.
func Put32(p *uint32, v uint32) { *p = v }

// PutSeq is Put32 for a sequence number, which stands between other stores. The load after it is what keeps the
// compiler from dropping the first of two such stores as dead; the machine answers it from its store buffer.
func PutSeq(p *uint32, v uint32) {
	*p = v
	_ = atomic.LoadUint32(p)
}

// Add64, Add32 and AddInt add to a counter. Only its owner may: it reads the word as what it is, its own.
func Add64(p *uint64, n uint64) { *p += n }

// Add32 is Add64 for 32 bits.
func Add32(p *uint32, n uint32) { *p += n }

// AddInt is Add64 for a number that also shrinks.
func AddInt(p *int64, n int64) { *p += n }
