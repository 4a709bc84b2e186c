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
	"encoding/binary"
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

// An Entry is one flow. The owner updates the counters and LastSeen in place; what identifies
// the flow changes only between an odd and the next even seq, so that a reader on another core can tell.
type Entry struct {
	Client   packet.Addr
	Service  table.Ref
	Ports    packet.Ports // of the client's packets
	Backend  table.Ref
	meta     uint32 // state | in<<8 | refs<<16 | flags
	LastSeen uint32 // milliseconds of the worker's clock; while free: the next free entry
	Created  uint32
	Bytes    uint64
	Packets  uint32
	seq      uint32
	l2       uint64 // MAC address that the client's packets come from; above it Key.VIP
}

// VIP tells which of its service's addresses the flow is to: see table.Service.At.
func (e *Entry) VIP() uint16 { return uint16(e.l2 >> 48) }

// Count accounts for a packet of size bytes of IP that came at time now.
func (e *Entry) Count(now uint32, size uint64) {
	offheap.Put32(&e.LastSeen, now)
	offheap.Add32(&e.Packets, 1)
	offheap.Add64(&e.Bytes, size)
}

// State returns the flow's state.
func (e *Entry) State() State { return State(e.meta) }

const (
	flagSampled = 1 << 24
	flagEvicted = 1 << 25
)

// SetSampled marks the flow as one that events are reported for; Sampled tells.
func (e *Entry) SetSampled() { offheap.Put32(&e.meta, e.meta|flagSampled) }

// Sampled reports whether SetSampled was called.
func (e *Entry) Sampled() bool { return e.meta&flagSampled != 0 }

// Evicted reports of an entry that Ended returned whether the flow was ended before its time, to make room.
func (e *Entry) Evicted() bool { return e.meta&flagEvicted != 0 }

// In returns the port that the client's packets come in on.
func (e *Entry) In() uint8 { return uint8(e.meta >> 8) }

// setState changes the state.
func (e *Entry) setState(s State) { offheap.Put32(&e.meta, e.meta&^0xff|uint32(s)) }

// MAC returns the source MAC address of the client's packets: where replies go.
func (e *Entry) MAC() (m table.MAC) {
	for i := range m {
		m[i] = byte(e.l2 >> (8 * i))
	}
	return m
}

const macBits = 1<<48 - 1

// SetHop sets what a reply needs to find its way: the port that frame b, a client's, came in on, and its source MAC.
func (e *Entry) SetHop(in uint8, b []byte) {
	l2 := binary.LittleEndian.Uint64(b[6:])&macBits | e.l2&^macBits
	if l2 != e.l2 {
		offheap.Put64(&e.l2, l2)
	}
	if e.In() != in {
		offheap.Put32(&e.meta, e.meta&^0xff00|uint32(in)<<8)
	}
}

func (e *Entry) refs() uint8  { return uint8(e.meta >> 16) }
func (e *Entry) addRef(n int) { offheap.Add32(&e.meta, uint32(n)<<16) }
func (e *Entry) sameKey(k *Key) bool {
	return e.Client == k.Client && e.Service == k.Service && e.Ports == k.Ports && e.VIP() == k.VIP
}

// Key identifies a flow in the client's direction.
type Key struct {
	Client  packet.Addr
	Service table.Ref
	Ports   packet.Ports
	VIP     uint16 // table.Service.Offset of the destination: 0 unless the service has more than one address
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

// usedLanes masks out the two lanes of the third word that have no index.
var usedLanes = [3]uint64{swarHigh, swarHigh, swarHigh & 0xffffffff}

// Candidates finds for each hash the first entry whose fingerprint is the same, 0 where there
// is none. It goes over the burst three times, so that its cache misses overlap: touch the buckets, compare the
// fingerprints, touch the entries. Each time is a function of its own that calls nothing, so that its loop runs in
// registers. What Candidates returns only keeps the loads alive.
func (t *Table) Candidates(hashes []uint64, out []uint32) (sink uint64) {
	out = out[:len(hashes)]
	sink = t.touchBuckets(hashes)
	t.match(hashes, out)
	s, unknown := t.touchEntries(out)
	sink += s
	if unknown > 0 {
		sink += t.touchFree(unknown)
		if t.pooled == 0 && int(t.fresh) == len(t.entries) {
			sink += t.touchVictims(hashes, out)
		}
	}
	return sink
}

func (t *Table) touchBuckets(hashes []uint64) (sink uint64) {
	buckets, shift := t.buckets, t.shift&63
	mask := uint64(len(buckets) - 1)
	for _, h := range hashes {
		sink += buckets[h>>shift&mask].fp[0]
	}
	return sink
}

func (t *Table) match(hashes []uint64, out []uint32) {
	buckets, shift := t.buckets, t.shift&63
	mask := uint64(len(buckets) - 1)
	out = out[:len(hashes)]
	for i, h := range hashes {
		b, pat := &buckets[h>>shift&mask], pattern(h)
		c := uint32(0)
		if m := match(b.fp[0], pat); m != 0 {
			c = b.idx[bits.TrailingZeros64(m)>>4&3]
		} else if m := match(b.fp[1], pat); m != 0 {
			c = b.idx[4+bits.TrailingZeros64(m)>>4&3]
		} else if m := match(b.fp[2], pat) & (swarHigh & 0xffffffff); m != 0 {
			c = b.idx[8+bits.TrailingZeros64(m)>>4&1]
		}
		out[i] = c
	}
}

// touchEntries loads the entries found, and counts the hashes for which there is none.
func (t *Table) touchEntries(found []uint32) (sink uint64, unknown int) {
	entries := t.entries
	for _, c := range found {
		sink += entries[c].Client.B
		if c == 0 {
			unknown++
		}
	}
	return sink, unknown
}

// touchVictims loads what Insert will look at when it has to make room for the flows that are not known.
func (t *Table) touchVictims(hashes []uint64, found []uint32) (sink uint64) {
	for i, h := range hashes {
		if found[i] != 0 {
			continue
		}
		b := &t.buckets[t.home(h)]
		if cheap := b.cheap(); cheap != 0 {
			sink += t.entries[b.idx[t.turn(cheap)]].Client.B
			continue
		}
		for lane, k := range &b.idx {
			sink += t.entries[k&-b.taken(lane)].Client.B
		}
	}
	return sink
}

// Entries returns all entries by index, for At in a loop.
func (t *Table) Entries() []Entry { return t.entries }

// At returns entry i, which must come from this table.
func (t *Table) At(i uint32) *Entry { return &t.entries[i] }

// Holds reports whether entry i is the live flow k.
func (t *Table) Holds(i uint32, k *Key) bool {
	e := &t.entries[i]
	return e.sameKey(k) && e.State() != StateNone && e.State() != StateDead
}

// Find returns the live entry with key k, or 0.
func (t *Table) Find(h uint64, k *Key) uint32 {
	n := t.home(h)
	b := &t.buckets[n]
	if i := t.findIn(b, h, k); i != 0 || b.away() == 0 {
		return i
	}
	return t.findIn(&t.buckets[t.other(n, fingerprint(h))], h, k)
}

func (t *Table) findIn(b *bucket, h uint64, k *Key) uint32 {
	pat := pattern(h)
	for w := range b.fp {
		for m := match(b.fp[w], pat) & usedLanes[w]; m != 0; m &= m - 1 {
			if i := b.idx[w*4+bits.TrailingZeros64(m)>>4]; t.Holds(i, k) {
				return i
			}
		}
	}
	return 0
}

// FindReply returns the live NAT flow that p, a packet from a backend, answers, or 0.
func (t *Table) FindReply(h uint64, p *packet.Packet) uint32 {
	n := t.home(h)
	b := &t.buckets[n]
	if i := t.findReplyIn(b, h, p); i != 0 || b.away() == 0 {
		return i
	}
	return t.findReplyIn(&t.buckets[t.other(n, fingerprint(h))], h, p)
}

func (t *Table) findReplyIn(b *bucket, h uint64, p *packet.Packet) uint32 {
	pat := pattern(h)
	for w := range b.fp {
		for m := match(b.fp[w], pat) & usedLanes[w]; m != 0; m &= m - 1 {
			if i := b.idx[w*4+bits.TrailingZeros64(m)>>4]; answers(&t.entries[i], t.snap, p) {
				return i
			}
		}
	}
	return 0
}

// Answers reports whether entry i is the live NAT flow that p answers.
func (t *Table) Answers(i uint32, p *packet.Packet) bool {
	return i != 0 && answers(&t.entries[i], t.snap, p)
}

// answers reports whether p is a reply of flow e.
func answers(e *Entry, s *table.Snapshot, p *packet.Packet) bool {
	if e.Client != p.Dst || e.Ports.Src() != p.Ports.Dst() || e.State() == StateNone || e.State() == StateDead {
		return false
	}
	be := s.Backend(e.Backend)
	return be != nil && be.Service == e.Service && be.Addr == p.Src && backendPort(be, e.Ports) == p.Ports.Src() &&
		(e.State() == StateUDP) == (p.Proto == packet.ProtoUDP)
}

// backendPort is the port that a NAT flow has at its backend: with port 0 the client's choice stays.
func backendPort(be *table.Backend, ports packet.Ports) uint16 {
	if be.Port == 0 {
		return ports.Dst()
	}
	return be.Port
}

// Reply hashes the replies of a NAT flow as they will arrive.
func (t *Table) replyHash(e *Entry, be *table.Backend) uint64 {
	return t.hasher.Tuple(be.Addr, e.Client, packet.MakePorts(backendPort(be, e.Ports), e.Ports.Src()), proto(e))
}

func proto(e *Entry) uint8 {
	switch e.State() {
	case StateUDP:
		return packet.ProtoUDP
	case StateTemplate:
		return templateProto
	}
	return packet.ProtoTCP
}

// Expired reports whether the flow's timeout has run out at time now.
func (t *Table) Expired(e *Entry, now uint32) bool {
	return int32(now-e.LastSeen) > int32(t.snap.TimeoutsOf(e.Service)[e.State()&15])
}
