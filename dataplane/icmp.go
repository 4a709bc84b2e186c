package dataplane

import (
	"xlvs/dataplane/flow"
	"xlvs/dataplane/offheap"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/rewrite"
	"xlvs/dataplane/table"
)

// icmp answers an echo request to a VIP that has a backend to take new flows, and passes errors on to those whose packets
// they are about. All else is dropped.
func (p *pipeline) icmp(in, i int, f Frame) {
	pkt := &p.pkt[i]
	b := p.mem.Bytes(f)
	switch {
	case pkt.Src.Martian():
		p.drop(f, DropMartian, in, i, noError)
	case rewrite.IsError(b, pkt):
		p.icmpError(in, i, f)
	case !rewrite.IsEcho(b, pkt) || !p.snap.Alive(pkt.Dst):
		p.drop(f, DropICMP, in, i, noError)
	case p.snap.Ours(pkt.Src):
		p.drop(f, DropMartian, in, i, noError)
	case !p.limit.take(p.now):
		p.drop(f, DropICMPLimited, in, i, noError)
	default:
		rewrite.Echo(b, pkt)
		p.noteAction(ActionAnswer)
		offheap.Add64(&p.count.Echoes, 1)
		p.send(in, in, f)
	}
}

// icmpError finds out what the packet is that an ICMP error quotes: a server's to a client, a NAT client's to its
// backend, or an outer packet of a tunnel. An error that cannot be passed on is dropped without another (RFC 1122, 3.2.2).
func (p *pipeline) icmpError(in, i int, f Frame) {
	pkt := &p.pkt[i]
	b := p.mem.Bytes(f)
	if pkt.TTL <= 1 {
		p.drop(f, DropTTL, in, i, noError)
		return
	}
	var q packet.Packet
	pkt.ParseQuote(b, &q)
	known := q.Kind == packet.KindTCP || q.Kind == packet.KindUDP
	switch {
	case known && p.errorToBackend(in, i, f, &q):
	case known && p.errorToClient(in, i, f, &q):
	case (known || q.Kind == packet.KindOther) && p.errorOfTunnel(in, i, f, &q):
	default:
		p.drop(f, DropICMP, in, i, noError)
	}
}

// errorToBackend passes an error about what a service's server sent, q, to the backend of its flow, or where none is
// known to the one that the flow would have. It returns false if q is no service's.
func (p *pipeline) errorToBackend(in, i int, f Frame, q *packet.Packet) bool {
	pkt := &p.pkt[i]
	slot := p.snap.Lookup(q.Src, q.Ports.Src(), q.Proto)
	if slot < 0 || pkt.Dst != q.Src {
		return false
	}
	svc := &p.snap.Services[slot]
	p.noteService(svc)
	ports := q.Ports.Swap()
	h := p.hasher.Tuple(q.Dst, q.Src, ports, q.Proto)
	key := flow.Key{Client: q.Dst, Service: svc.Ref, Ports: ports, VIP: svc.Offset(q.Src)}
	be, use := p.owner(h, &key), FlowHit
	if be == nil {
		be, use = p.snap.Pick(svc, spread(&p.hasher, svc, q.Dst, q.Src, ports, q.Proto)), FlowNone
	}
	p.noteBackend(be, use)
	switch {
	case be == nil:
		p.drop(f, DropNoBackend, in, i, noError)
	case !be.Resolved:
		p.drop(f, DropNoNeighbour, in, i, noError)
	case int(pkt.End)-int(pkt.L3) > int(be.Limit):
		p.drop(f, DropTooBig, in, i, noError)
	default:
		p.hash[i] = h
		p.sendError(svc.Mode, be, q, in, i, f)
	}
	return true
}

// owner returns the backend of the flow with a key, in this worker's table or another's; nil if there is none.
func (p *pipeline) owner(h uint64, key *flow.Key) *table.Backend {
	if idx := p.flows.Find(h, key); idx != 0 {
		return p.snap.Backend(p.flows.At(idx).Backend)
	}
	return p.elsewhere(h, key)
}

// elsewhere looks for a flow in the other workers' tables.
func (p *pipeline) elsewhere(h uint64, key *flow.Key) *table.Backend {
	for k := range p.peers {
		if i := p.peers[k].flows.PeekFlow(h, key, &p.seen); i != 0 {
			p.seenAt = origin{k, i}
			return p.snap.Backend(p.seen.Backend)
		}
	}
	return nil
}

func (p *pipeline) sendError(mode table.Mode, be *table.Backend, q *packet.Packet, in, i int, f Frame) {
	p.noteAction(ActionForward)
	offheap.Add64(&p.count.ICMPForwarded, 1)
	if mode != table.NAT {
		p.forward(mode, be, 0, in, i, f)
		return
	}
	pkt := &p.pkt[i]
	p.countForward(mode, be, pkt)
	rewrite.ICMPRequest(p.mem.Bytes(f), pkt, q, be)
	p.send(in, int(be.Out), f)
}

// errorToClient passes an error about what a NAT client sent, quoted as its backend saw it, to the client: from the backend
// itself or from a router before it.
func (p *pipeline) errorToClient(in, i int, f Frame, q *packet.Packet) bool {
	pkt := &p.pkt[i]
	if pkt.Dst != q.Src || !p.snap.Replies(q.Dst, q.Ports.Dst(), q.Proto) {
		return false
	}
	answer := packet.Packet{Src: q.Dst, Dst: q.Src, Ports: q.Ports.Swap(), Proto: q.Proto, Kind: q.Kind}
	e, _ := p.findReply(p.hasher.Flow(&answer), &answer)
	if e == nil {
		return false
	}
	svc, be := p.snap.Service(e.Service), p.snap.Backend(e.Backend)
	if svc == nil || be == nil || int(e.In()) >= len(p.snap.Ports) {
		return false
	}
	out := &p.snap.Ports[e.In()]
	if int(pkt.End)-int(pkt.L3) > int(out.MTU) {
		return false
	}
	p.noteService(svc)
	p.noteBackend(be, FlowHit)
	p.noteAction(ActionReply)
	eth := table.Eth(e.MAC(), out.MAC)
	rewrite.ICMPReply(p.mem.Bytes(f), pkt, q, svc.At(e.VIP()), e.Ports.Dst(), &eth)
	offheap.Add64(&p.count.ICMPForwarded, 1)
	p.countReply(be, pkt)
	p.send(in, int(e.In()), f)
	return true
}

// countReply counts what a NAT client is sent.
func (p *pipeline) countReply(be *table.Backend, pkt *packet.Packet) {
	size := uint64(pkt.End) - uint64(pkt.L3)
	bc := &p.backends[be.Ref.Slot()]
	bc.answered(size)
	offheap.Add64(&p.count.Replies, 1)
	offheap.Add64(&p.count.ReplyBytes, size)
}

// errorOfTunnel handles an error about an outer packet of ours: its sender is told by an error about the inner packet, with the
// MTU that is left for it. The flow tells the way to the client; without one, or without enough of the inner packet in
// the quote (RFC 792 asks for 8 bytes only), nobody can be told.
func (p *pipeline) errorOfTunnel(in, i int, f Frame, q *packet.Packet) bool {
	pkt := &p.pkt[i]
	b := p.mem.Bytes(f)
	at, v6, ok := rewrite.Inner(b, q)
	if !ok || pkt.Dst != q.Src || !intact(b, pkt) {
		return false
	}
	var inner packet.Packet
	pkt.ParseInner(b, at, v6, &inner)
	if inner.Kind != packet.KindTCP && inner.Kind != packet.KindUDP {
		return false
	}
	slot := p.snap.Lookup(inner.Dst, inner.Ports.Dst(), inner.Proto)
	if slot < 0 || p.snap.Services[slot].Mode != table.TUN {
		return false
	}
	svc := &p.snap.Services[slot]
	key := flow.Key{Client: inner.Src, Service: svc.Ref, Ports: inner.Ports, VIP: svc.Offset(inner.Dst)}
	e, be := p.clientFlow(p.hasher.Flow(&inner), &key)
	if be == nil || be.Addr != q.Dst || be.TunSrc != q.Src || int(e.In()) >= len(p.snap.Ports) {
		return false
	}
	p.noteService(svc)
	p.noteBackend(be, FlowHit)
	msg, ok := rewrite.TunnelError(b, pkt, be, v6)
	if !ok || e.MAC() == (table.MAC{}) {
		return false
	}
	if !p.limit.take(p.now) {
		p.drop(f, DropICMPLimited, in, i, noError)
		return true
	}
	port := &p.snap.Ports[e.In()]
	src := port.V4
	if v6 {
		src = port.V6
	}
	if src == (packet.Addr{}) {
		src = inner.Dst
	}
	eth := table.Eth(e.MAC(), port.MAC)
	start, length, ok := rewrite.Relay(p.mem.Chunk(f.Chunk), int(f.Off), pkt, &inner, at, src, &eth, msg)
	if !ok {
		return false
	}
	f.Off, f.Len = uint16(start), uint16(length)
	p.noteAction(ActionReply)
	offheap.Add64(&p.count.ICMPForwarded, 1)
	p.send(in, int(e.In()), f)
	return true
}

// intact reports whether an ICMP message's checksum is right: what is made of the message gets a new one.
func intact(b []byte, pkt *packet.Packet) bool {
	pseudo := uint64(0)
	if pkt.V6 {
		pseudo = packet.PseudoSum(pkt.Src, pkt.Dst, packet.ProtoICMPv6, pkt.L4Len())
	}
	return packet.Fold(packet.Sum(b[pkt.L4:pkt.End], pseudo)) == 0xffff
}

// clientFlow returns the flow with a key and its backend, from this worker's table or another's; nil if there is none.
func (p *pipeline) clientFlow(h uint64, key *flow.Key) (*flow.Entry, *table.Backend) {
	if idx := p.flows.Find(h, key); idx != 0 {
		e := p.flows.At(idx)
		return e, p.snap.Backend(e.Backend)
	}
	return &p.seen, p.elsewhere(h, key)
}

// clamp lowers the segment size that a SYN or SYN-ACK announces, as its service says. With NAT what it is answered with comes back
// through the director, and leaves by a port with an MTU of back.
func clamp(b []byte, pkt *packet.Packet, svc *table.Service, be *table.Backend, back uint16) {
	most := svc.ClampMSS
	if most == table.AutoMSS {
		head := packet.IPv4Len + packet.TCPLen
		if pkt.V6 {
			head = packet.IPv6Len + packet.TCPLen
		}
		way := int(be.Limit)
		if svc.Mode == table.NAT {
			way = min(way, int(back))
		}
		most = uint16(max(way-head, 0))
	}
	rewrite.ClampMSS(b, pkt, most)
}
