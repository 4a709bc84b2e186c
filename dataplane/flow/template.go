package flow

import (
	"math/bits"
	"sync/atomic"

	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// templateProto stands for the protocol in the hash of a template, so that no packet's hash is the same.
const templateProto = 0

// TemplateKey is what remembers where new flows of a masked client address go (IPVS' connection template, which has the
// client's port 0). hash is what to call Find and Insert with.
func (t *Table) TemplateKey(v *table.Service, client packet.Addr) (k Key, hash uint64) {
	k = Key{Client: v.Masked(client), Service: v.Ref}
	return k, t.hasher.Tuple(k.Client, v.Addr, 0, templateProto)
}

// PeekTemplate finds a template in a table that another worker owns, and copies it.
func (t *Table) PeekTemplate(h uint64, k *Key, out *Entry) bool {
	return t.PeekFlow(h, k, out) != 0 && out.State() == StateTemplate
}

// PeekFlow finds a flow in a table that another worker owns, copies it and returns its index, 0 if there is none.
func (t *Table) PeekFlow(h uint64, k *Key, out *Entry) uint32 {
	n := t.home(h)
	b := &t.buckets[n]
	if i := t.peekFlowIn(b, h, k, out); i != 0 || b.peekAway() == 0 {
		return i
	}
	return t.peekFlowIn(&t.buckets[t.other(n, fingerprint(h))], h, k, out)
}

func (t *Table) peekFlowIn(b *bucket, h uint64, k *Key, out *Entry) uint32 {
	pat := pattern(h)
	for w := range b.fp {
		word := atomic.LoadUint64(&b.fp[w])
		for m := match(word, pat) & usedLanes[w]; m != 0; m &= m - 1 {
			i := atomic.LoadUint32(&b.idx[w*4+bits.TrailingZeros64(m)>>4])
			if t.Peek(i, out) && out.sameKey(k) {
				return i
			}
		}
	}
	return 0
}
