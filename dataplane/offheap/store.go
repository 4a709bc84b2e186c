//go:build !amd64 || race

package offheap

import "sync/atomic"

// Put64, Put32 and PutSeq store a word that others read: a reader that sees it sees what was stored before it, too.
func Put64(p *uint64, v uint64) { atomic.StoreUint64(p, v) }

// Put32 is Put64 for 32 bits.
func Put32(p *uint32, v uint32) { atomic.StoreUint32(p, v) }

// PutSeq is Put32 for a sequence number, which stands between other stores.
func PutSeq(p *uint32, v uint32) { atomic.StoreUint32(p, v) }

// Add64, Add32 and AddInt add to a counter. Only its owner may: it reads the word as what it is, its own.
func Add64(p *uint64, n uint64) { Put64(p, *p+n) }

// Add32 is Add64 for 32 bits.
func Add32(p *uint32, n uint32) { Put32(p, *p+n) }

// AddInt is Add64 for a number that also shrinks.
func AddInt(p *int64, n int64) { atomic.StoreInt64(p, *p+n) }
