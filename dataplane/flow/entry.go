package flow

import (
	"encoding/binary"

	"xlvs/dataplane/offheap"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

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
