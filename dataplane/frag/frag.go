// Package frag remembers, for datagrams that come in fragments, which way the first fragment went, so that the
// others, which have no ports, follow it. It holds others that come before the first, and judges which
// fragments must not go on: overlapping ones (RFC 1858, RFC 5722) and those that contradict the datagram's end.
//
// A Table belongs to one worker. Its memory is fixed when it is made; nothing in it allocates afterwards. Datagrams
// are in sets of a few entries by hash: where a set is full, the oldest datagram's entry is taken.
package frag

import (
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// A Key names a datagram (RFC 791, 3.2). For IPv6 Proto is 0, as each fragment may name another (RFC 8200, 4.5).
type Key struct {
	Src, Dst packet.Addr
	ID       uint32
	Proto    uint8
}

// Kind is what is known of a datagram's way.
type Kind uint8

// The kinds of ways.
const (
	Unknown   Kind = iota // the first fragment has not come
	ToBackend             // a client's, to Way.Backend
	ToClient              // a NAT backend's, to its client
	Nowhere               // dropped, and so is what follows
)

// A Way is what becomes of every fragment of a datagram.
type Way struct {
	Kind    Kind
	Mode    table.Mode
	Out     uint8 // ToClient: port to leave by
	Service table.Ref
	Backend table.Ref
	Hash    uint64      // of the flow
	Addr    packet.Addr // ToClient: the VIP
	Eth     [12]byte    // ToClient: Ethernet addresses
}

// Held is a frame that waits for its datagram's first fragment: a chunk of the worker's memory, where in it the frame
// is, and the interface that it came in on.
type Held struct {
	Chunk    uint32
	Off, Len uint16
	In       uint8
}

// Bounds of a table.
const (
	Timeout     = 30_000 // milliseconds that a datagram is remembered, as Linux' ipfrag_time
	HoldTimeout = 1_000  // milliseconds that a fragment waits for the first one
	maxHeld     = 64     // fragments held for one datagram: more than one of 65535 bytes has at an MTU of 1280
	setSize     = 4
)

const units = 65536 / 8

type entry struct {
	key     Key
	way     Way
	used    bool
	bad     bool // condemned: nothing of it goes on
	late    bool // condemned, because the first fragment did not come in time
	created uint32
	end     uint32 // bytes in all; 0: the last fragment has not come
	high    uint32 // end of the furthest fragment
	covered uint32 // bytes that have come
	head    int32  // first and last held frame; -1: none
	tail    int32
	held    int32
}

type node struct {
	frame Held
	since uint32
	owner uint32
	next  int32
	live  bool
}

// A Table has a worker's fragmented datagrams.
type Table struct {
	entries []entry
	seen    [][units / 64]uint64 // by entry: which units of 8 bytes have come
	ring    []node               // held frames in the order of their coming
	first   int                  // oldest node of the ring
	n       int                  // nodes of the ring in use, dead ones included
	live    int
	orphans []Held
}

// New makes a table for datagrams (a power of two, at least 4) that may hold so many frames in all.
func New(datagrams, held int) *Table {
	return &Table{
		entries: make([]entry, datagrams),
		seen:    make([][units / 64]uint64, datagrams),
		ring:    make([]node, max(held, 1)),
		orphans: make([]Held, 0, max(held, 1)),
	}
}

// Held returns how many frames wait.
func (t *Table) Held() int { return t.live }

// Find returns the datagram k, whose hash is h, making an entry for it if there is none.
func (t *Table) Find(h uint64, k *Key, now uint32) uint32 {
	base := uint32(h) % uint32(len(t.entries)/setSize) * setSize
	best := base
	for i := base; i < base+setSize; i++ {
		e := &t.entries[i]
		if e.used && now-e.created > Timeout {
			t.Forget(i)
		}
		if e.used && e.key == *k {
			return i
		}
		if b := &t.entries[best]; b.used && (!e.used || now-e.created > now-b.created) {
			best = i
		}
	}
	t.Forget(best)
	t.entries[best] = entry{key: *k, used: true, created: now, head: -1, tail: -1}
	return best
}

// Judgement says whether a fragment may go on.
type Judgement uint8

// The judgements.
const (
	Fine      Judgement = iota
	Duplicate           // all of it has come before, and it does not contradict the datagram's end: it is dropped, and the datagram goes on
	Overlap             // part of it has come before, or it contradicts the datagram's end: the datagram is condemned
	Condemned           // of a datagram that was condemned before
	Late                // of a datagram whose first fragment did not come in time
)

// Judge enters a fragment into its datagram's account.
func (t *Table) Judge(i uint32, f *packet.Fragment) Judgement {
	e := &t.entries[i]
	switch {
	case e.late:
		return Late
	case e.bad:
		return Condemned
	}
	from, to, last := uint32(f.Offset), uint32(f.Offset+f.Len), !f.More
	fresh := t.count(i, from, to)
	switch {
	case e.contradicts(to, last) || fresh != 0 && fresh != (to+7)/8-from/8:
		t.Condemn(i)
		return Overlap
	case fresh == 0:
		return Duplicate
	}
	t.mark(i, from, to)
	e.high = max(e.high, to)
	e.covered += to - from
	if last {
		e.end = to
	}
	return Fine
}

// contradicts reports whether a fragment up to to cannot be of a datagram with those that have come: there is one last fragment, at
// the end, and what is not the last ends before.
func (e *entry) contradicts(to uint32, last bool) bool {
	switch {
	case e.end == 0:
		return last && to <= e.high
	case last:
		return to != e.end
	}
	return to >= e.end
}

// count returns how many units of [from, to) have not come yet.
func (t *Table) count(i, from, to uint32) (fresh uint32) {
	for u := from / 8; u < (to+7)/8; u++ {
		if t.seen[i][u/64]>>(u%64)&1 == 0 {
			fresh++
		}
	}
	return fresh
}

func (t *Table) mark(i, from, to uint32) {
	for u := from / 8; u < (to+7)/8; u++ {
		t.seen[i][u/64] |= 1 << (u % 64)
	}
}

// Way returns what is known of a datagram's way.
func (t *Table) Way(i uint32) *Way { return &t.entries[i].way }

// Condemn drops what is held of a datagram; nothing of it goes on any more.
func (t *Table) Condemn(i uint32) {
	t.entries[i].bad = true
	for {
		f, ok := t.Take(i)
		if !ok {
			return
		}
		t.orphans = append(t.orphans, f)
	}
}

// Settle forgets a datagram that has come in full, so that its identification can be used again at once.
func (t *Table) Settle(i uint32) {
	if e := &t.entries[i]; e.used && !e.bad && e.way.Kind != Unknown && e.covered == e.end {
		t.Forget(i)
	}
}

// Forget frees an entry. What is held of it is dropped.
func (t *Table) Forget(i uint32) {
	e := &t.entries[i]
	if !e.used {
		return
	}
	t.Condemn(i)
	clear(t.seen[i][:(e.high+511)/512])
	*e = entry{}
}

// Orphans returns the frames that were dropped since the last call: the caller frees them.
func (t *Table) Orphans() []Held {
	o := t.orphans
	t.orphans = t.orphans[:0]
	return o
}
