package flow

import "sync/atomic"

// On amd64 stores become visible in program order, and the compiler keeps theirs: a plain store is enough, where an
// atomic one would be a locked exchange, which waits for a cache miss that others could overlap with.

func put64(p *uint64, v uint64) { *p = v }
func put32(p *uint32, v uint32) { *p = v }

// putSeq stores a sequence number between other stores. The load after it is what keeps the compiler from
// dropping the first of two such stores as dead; the machine answers it from its store buffer.
func putSeq(p *uint32, v uint32) {
	*p = v
	_ = atomic.LoadUint32(p)
}
