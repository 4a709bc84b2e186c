package flow

import (
	"math/bits"

	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// One port of a client may have QUIC connections to several servers, which only their connection IDs tell apart, and with NAT
// the replies of each server need a flow that leads them back. The client's packets find one of these flows by their hash; the
// others stand aside: they have the same key, and are linked under the hash of their replies alone.

// InsertAside adds a UDP flow with key k to NAT backend be, beside the one that Find returns, and returns its index;
// it makes room, and fails, as Insert does.
func (t *Table) InsertAside(k *Key, be *table.Backend, in uint8, now uint32) uint32 {
	return t.Insert(t.asideHash(k, be), k, be.Ref, StateUDP, in, now)
}

// FindAside returns the live NAT flow with key k to backend be, whether it stands aside or not, or 0.
func (t *Table) FindAside(k *Key, be *table.Backend) uint32 {
	h := t.asideHash(k, be)
	n := t.home(h)
	b := &t.buckets[n]
	if i := t.findAsideIn(b, h, k, be.Ref); i != 0 || b.away() == 0 {
		return i
	}
	return t.findAsideIn(&t.buckets[t.other(n, fingerprint(h))], h, k, be.Ref)
}

// PeekAside is FindAside for a worker that does not own the table: it copies the flow, and returns its index. It may miss one whose
// replies have the fingerprint of another flow's with the same key.
func (t *Table) PeekAside(k *Key, be *table.Backend, out *Entry) uint32 {
	if i := t.PeekFlow(t.asideHash(k, be), k, out); i != 0 && out.Backend == be.Ref {
		return i
	}
	return 0
}

func (t *Table) findAsideIn(b *bucket, h uint64, k *Key, be table.Ref) uint32 {
	pat := pattern(h)
	for w := range b.fp {
		for m := match(b.fp[w], pat) & usedLanes[w]; m != 0; m &= m - 1 {
			if i := b.idx[w*4+bits.TrailingZeros64(m)>>4]; t.Holds(i, k) && t.entries[i].Backend == be {
				return i
			}
		}
	}
	return 0
}

func (t *Table) asideHash(k *Key, be *table.Backend) uint64 {
	return t.ReplyTuple(k.Client, k.Ports, packet.ProtoUDP, be)
}
