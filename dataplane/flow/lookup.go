package flow

import (
	"math/bits"

	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// usedLanes masks out the two lanes of the third word that have no index.
var usedLanes = [3]uint64{swarHigh, swarHigh, swarHigh & 0xffffffff}

// Candidates finds for each hash the first entry whose fingerprint is the same, 0 where there
// is none. It goes over the burst three times, so that its cache misses overlap: touch the buckets, compare the
// fingerprints, touch the entries. Each time is a function of its own that calls nothing, so that its loop runs in
// registers. It returns for how many there is none; sink only keeps the loads alive.
func (t *Table) Candidates(hashes []uint64, out []uint32) (unknown int, sink uint64) {
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
	return unknown, sink
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
	return t.ReplyTuple(e.Client, e.Ports, proto(e), be)
}

// ReplyTuple hashes what backend be answers to packets from client with these ports: LinkReply puts a flow under it.
func (t *Table) ReplyTuple(client packet.Addr, ports packet.Ports, proto uint8, be *table.Backend) uint64 {
	return t.hasher.Tuple(be.Addr, client, packet.MakePorts(backendPort(be, ports), ports.Src()), proto)
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
