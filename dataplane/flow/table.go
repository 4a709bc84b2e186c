// Package flow remembers which backend each flow went to. A Table belongs to one worker: it
// alone writes; any goroutine may read through Peek functions, without locks.
//
// Memory is fixed when the table is made: 64 bytes an entry and 16 bytes of buckets for each, off the
// heap. A flow is found by a hash of its five-tuple as it travels from the client; a NAT flow
// also by the hash of its replies. A bucket is one cache line of ten 16-bit fingerprints and ten indices:
//
//	bucket  fp[0..3] | fp[4..7] | fp[8..9] bits | idx[0] … idx[9]         64 bytes
//	          |                                            └── entries[idx]
//	          └── compared four at a time (SWAR)                 64 bytes
//
// A flow whose bucket is full goes to a second one, which its fingerprint and its first bucket
// determine. "away" counts the flows of this bucket that live in their second one: while it is 0, as it
// nearly always is, one cache line answers a look-up. "guests" has a bit for each lane that holds such a flow,
// "cheap" one for each whose flow a flood can make: half-open, or UDP that was heard of once. With it a flood over a
// full table is told whom to evict without a look at any entry. The bits above fp[9] are away (12), cheap (10)
// and guests (10).
package flow

import (
	"fmt"
	"math/bits"

	"xlvs/dataplane/offheap"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

const lanes = 10

type bucket struct {
	fp  [3]uint64
	idx [lanes]uint32
}

// A Table is the flow table of one worker.
type Table struct {
	buckets []bucket
	entries []Entry // entries[0] is never used: index 0 means none
	shift   uint8
	pool    [poolSize]uint32
	pooled  int    // free entries in pool
	free    uint32 // first of the list of free entries that the pool has no room for: see spill
	fresh   uint32 // entries from here on were never used
	used    int
	hasher  packet.Hasher
	snap    *table.Snapshot
	hand    uint32 // bucket that Sweep looks at next
	swept   uint32 // when Sweep last ran
	ended   []Entry
	regions [2]*offheap.Region
}

// MinEntries and MaxEntries bound the size of a table.
const (
	MinEntries = 1 << 10
	MaxEntries = 1 << 26
)

// maxEnded is room for all flows that a burst of packets can end: some three for each packet, and as many
// again as Sweep and scavenge, which stop at half of it, have put there.
const maxEnded = 1024

// BytesPerFlow is what one entry costs with its share of the buckets.
const BytesPerFlow = 80

// New makes a table for n flows, rounded up to a power of two. Close gives its memory back.
func New(n int, h packet.Hasher) (*Table, error) {
	if n < MinEntries || n > MaxEntries {
		return nil, fmt.Errorf("flow table: %d entries were asked for; from %d to %d are possible", n, MinEntries, MaxEntries)
	}
	size := 1 << bits.Len(uint(n-1))
	empty, err := table.New(&table.Snapshot{Timeouts: DefaultTimeouts()})
	if err != nil {
		return nil, err
	}
	t := &Table{hasher: h, fresh: 1, snap: empty, ended: make([]Entry, 0, maxEnded)}
	t.shift = uint8(64 - bits.Len(uint(size/4-1)))
	if t.buckets, t.regions[0], err = offheap.Slice[bucket](size/4, true); err != nil {
		return nil, fmt.Errorf("flow table: %w", err)
	}
	if t.entries, t.regions[1], err = offheap.Slice[Entry](size, true); err != nil {
		_ = t.regions[0].Free()
		return nil, fmt.Errorf("flow table: %w", err)
	}
	return t, nil
}

// Close unmaps the table. Nobody may read it any more.
func (t *Table) Close() error {
	t.buckets, t.entries = nil, nil
	err := t.regions[0].Free()
	if e := t.regions[1].Free(); err == nil {
		err = e
	}
	return err
}

// Len returns how many entries are in use, Cap how many there are.
func (t *Table) Len() int { return t.used }

// Cap returns the number of usable entries.
func (t *Table) Cap() int { return len(t.entries) - 1 }

// Huge reports whether the table lies in huge pages.
func (t *Table) Huge() bool { return t.regions[1].Huge() }

// Use makes the table follow a snapshot: the timeouts of its services, and the addresses of services
// and backends that flows name.
func (t *Table) Use(s *table.Snapshot) { t.snap = s }

func (t *Table) home(h uint64) uint64 { return h >> t.shift & uint64(len(t.buckets)-1) }

// other returns the second bucket of a flow with this fingerprint in bucket n, and the first one if n is the second.
func (t *Table) other(n, fp uint64) uint64 {
	return n ^ (fp*0x9e3779b1>>8|1)&uint64(len(t.buckets)-1)
}

const (
	awayShift, awayMask = 32, 0xfff
	cheapShift          = 44
	guestShift          = 54
	laneMask            = 1<<lanes - 1
)

func (b *bucket) away() uint64   { return b.fp[2] >> awayShift & awayMask }
func (b *bucket) cheap() uint64  { return b.fp[2] >> cheapShift & laneMask }
func (b *bucket) guests() uint64 { return b.fp[2] >> guestShift }

// turn chooses one of the lanes in a set that is not empty: not always the first, nor one that can be foretold
// from outside.
func (t *Table) turn(set uint64) int {
	from := t.swept % lanes
	if s := set >> from; s != 0 {
		return int(from) + bits.TrailingZeros64(s)
	}
	return bits.TrailingZeros64(set)
}
func (b *bucket) empty() bool { return b.fp[0]|b.fp[1]|b.fp[2]&0xffffffff == 0 }

// taken returns 1 for a lane in use and 0 for a free one, without a branch that could be guessed wrongly.
func (b *bucket) taken(l int) uint32 { return uint32(b.lane(l)+0xffff) >> 16 }

// lane returns the fingerprint in a lane; 0 means free.
func (b *bucket) lane(l int) uint64 { return b.fp[l>>2] >> (uint(l&3) * 16) & 0xffff }

const (
	swarLow  = 0x0001000100010001
	swarHigh = 0x8000800080008000
)

// fingerprint returns a hash's fingerprint, which is never 0.
func fingerprint(h uint64) uint64 {
	fp := h & 0xffff
	if fp == 0 {
		fp = 1
	}
	return fp
}

// pattern repeats a hash's fingerprint in all four lanes.
func pattern(h uint64) uint64 { return fingerprint(h) * swarLow }

// match marks the high bit of each lane of w that equals the pattern's; a lane above a true match
// may be marked wrongly, which the comparison of keys sorts out.
func match(w, pat uint64) uint64 {
	x := w ^ pat
	return (x - swarLow) & ^x & swarHigh
}
