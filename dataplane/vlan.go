package dataplane

import (
	"xlvs/dataplane/offheap"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/rewrite"
)

// enter returns the port that frame f, which interface trunk received, came in by: the VLAN's that it is tagged for, if that is
// one of the director's. Only then may its tags change on the way.
func (p *pipeline) enter(trunk int, pkt *packet.Packet, f Frame) int {
	if pkt.Kind >= packet.KindMalformed || pkt.L3 == packet.EthLen {
		return trunk
	}
	return p.snap.Enter(trunk, packet.TagsOf(p.mem.Bytes(f)))
}

// sendTagged is send where there are VLANs. A frame that stays in its VLAN keeps its tags as they are; so does one with tags that
// are none of the director's VLANs, as long as it leaves by an interface itself. All others get the tags of the port that
// they leave by.
func (p *pipeline) sendTagged(in, out int, f Frame) {
	from, to := &p.snap.Ports[in], &p.snap.Ports[out]
	if to.Tags != from.Tags {
		start, length, ok := rewrite.Retag(p.mem.Chunk(f.Chunk), int(f.Off), int(f.Len), to.Tags)
		if !ok {
			offheap.Add64(&p.count.Drops[DropNoHeadroom], 1)
			p.noteDrop(DropNoHeadroom)
			p.mem.Free(f.Chunk)
			return
		}
		f.Off, f.Len = uint16(start), uint16(length)
	}
	if to.Tags != 0 {
		out = int(to.Trunk)
	}
	p.noteSent(out)
	p.put(out, f)
}
