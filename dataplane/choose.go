package dataplane

import (
	"xlvs/dataplane/flow"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// key identifies the flow of packet i, which is for svc.
func (p *pipeline) key(svc *table.Service, i int) flow.Key {
	pkt := &p.pkt[i]
	return flow.Key{Client: pkt.Src, Service: svc.Ref, Ports: pkt.Ports, VIP: svc.Offset(pkt.Dst)}
}

// martian reports whether packet i comes from where no client can be: an address that is nobody's, the director's
// own, a VIP (Linux' ip_handle_martian_source), or a link that nothing is forwarded from (ip6_forward). It is asked of what
// would open a flow, so that packets of known flows do not pay for it.
func (p *pipeline) martian(i int) bool {
	src := p.pkt[i].Src
	return src.Martian() || src.LinkLocal6() || p.snap.Ours(src)
}

// choose picks the backend of a new flow, nil if there is none for it.
func (p *pipeline) choose(svc *table.Service, in, i int) *table.Backend {
	if svc.Persist != 0 {
		return p.persistent(svc, in, i)
	}
	return p.pick(svc, i)
}

// pick picks it where nothing is remembered of clients: by what spread would return, whose hash of the tuple is at hand.
func (p *pipeline) pick(svc *table.Service, i int) *table.Backend {
	h := p.hash[i]
	if svc.BySource {
		h = sourceHash(&p.hasher, svc, p.pkt[i].Src)
	}
	return p.snap.Pick(svc, h)
}

// touchReplies loads the buckets that the replies of the burst's new NAT flows will be found in. Which they are depends on the backends, which are
// picked twice for it: that costs less than a miss of the cache that waits for no other. Of a service that remembers clients, the backend
// is not known so early.
func (p *pipeline) touchReplies(packets int) (sink uint64) {
	n := 0
	for i := range packets {
		pkt := &p.pkt[i]
		if p.cand[i] != 0 || pkt.Kind > packet.KindUDP {
			continue
		}
		slot := p.snap.Lookup(pkt.Dst, pkt.Ports.Dst(), pkt.Proto)
		if slot < 0 {
			continue
		}
		svc := &p.snap.Services[slot]
		if svc.Mode != table.NAT || svc.Persist != 0 {
			continue
		}
		if be := p.pick(svc, i); be != nil {
			p.back[n] = p.flows.ReplyTuple(pkt.Src, pkt.Ports, pkt.Proto, be)
			n++
		}
	}
	return p.flows.TouchReplies(p.back[:n])
}

// sourceHash depends on the masked client address alone, so that services with the same backends and table size agree.
func sourceHash(h *packet.Hasher, svc *table.Service, client packet.Addr) uint64 {
	return h.Tuple(svc.Masked(client), packet.Addr{}, 0, 0)
}

// spread is the hash that a new flow's backend is picked by where nothing is remembered of its client.
func spread(h *packet.Hasher, svc *table.Service, src, dst packet.Addr, ports packet.Ports, proto uint8) uint64 {
	if svc.BySource || svc.Persist != 0 {
		return sourceHash(h, svc, src)
	}
	return h.Tuple(src, dst, ports, proto)
}

// persistent picks the backend that other flows of the masked client address went to within the service's time
// (ip_vs_sched_persist), this worker's flows or another's; where nothing is remembered, the one that the address hashes
// to. A backend that is down or gone is not held on to; one of weight 0 is, as in IPVS without expire_quiescent_template.
func (p *pipeline) persistent(svc *table.Service, in, i int) *table.Backend {
	key, h := p.flows.TemplateKey(svc, p.pkt[i].Src)
	if idx := p.flows.Find(h, &key); idx != 0 {
		e := p.flows.At(idx)
		if be := p.remembered(svc, e); be != nil {
			e.Count(p.now, 0)
			return be
		}
		p.flows.Delete(idx)
	}
	var be *table.Backend
	for k := 0; be == nil && k < len(p.peers); k++ {
		if p.peers[k].flows.PeekTemplate(h, &key, &p.seen) {
			be = p.remembered(svc, &p.seen)
		}
	}
	if be == nil {
		be = p.snap.Pick(svc, sourceHash(&p.hasher, svc, p.pkt[i].Src))
	}
	if be != nil {
		p.flows.Insert(h, &key, be.Ref, flow.StateTemplate, uint8(in), p.now)
	}
	return be
}

// remembered returns a template's backend if it may still be used.
func (p *pipeline) remembered(svc *table.Service, e *flow.Entry) *table.Backend {
	be := p.snap.Backend(e.Backend)
	if be == nil || !be.Up || int32(p.now-e.LastSeen) > int32(svc.Persist) {
		return nil
	}
	return be
}
