package table

import (
	"fmt"
	"math/bits"

	"xlvs/dataplane/packet"
)

// index is an open-addressed hash table, at most a quarter full, from (address, port, protocol) to a
// slot. It is read-only once built. Its contents come from the configuration, so its hash needs no
// secret: traffic cannot make its chains longer.
type index struct {
	cells []cell
	shift uint8
}

type cell struct {
	addr packet.Addr
	key  uint32 // port | protocol<<16 | used<<24
	slot int32
}

const used = 1 << 24

func cellKey(port uint16, proto uint8) uint32 { return uint32(port) | uint32(proto)<<16 | used }

func newIndex(n int) index {
	size := 16
	for size < 4*n {
		size *= 2
	}
	return index{cells: make([]cell, size), shift: uint8(64 - bits.TrailingZeros(uint(size)))}
}

func (x *index) home(a packet.Addr, key uint32) uint64 {
	const golden = 0x9e3779b97f4a7c15
	return ((a.A*golden ^ a.B) + uint64(key)*0xff51afd7ed558ccd) * golden >> x.shift
}

// get returns the slot, or -1.
func (x *index) get(a packet.Addr, key uint32) int32 {
	mask := uint64(len(x.cells) - 1)
	for i := x.home(a, key); ; i++ {
		c := &x.cells[i&mask]
		if c.key == key && c.addr == a {
			return c.slot
		}
		if c.key == 0 {
			return -1
		}
	}
}

// put adds a key; it returns the slot that has the key already, or -1.
func (x *index) put(a packet.Addr, key uint32, slot int32) int32 {
	mask := uint64(len(x.cells) - 1)
	for i := x.home(a, key); ; i++ {
		c := &x.cells[i&mask]
		if c.key == key && c.addr == a {
			return c.slot
		}
		if c.key == 0 {
			*c = cell{a, key, slot}
			return -1
		}
	}
}

func (s *Snapshot) buildIndex() error {
	s.index, s.vips, s.replies = newIndex(len(s.Services)), newIndex(len(s.Services)), newIndex(len(s.Backends))
	s.makeLevels()
	s.buildOurs()
	for i := range s.Services {
		v := &s.Services[i]
		if !v.Live {
			continue
		}
		services, vips := &s.index, &s.vips
		if v.Bits != 0 {
			l := s.level(v.Bits)
			services, vips = &l.services, &l.vips
		} else {
			s.anyPort = s.anyPort || v.Port == 0
		}
		if other := services.put(v.Addr, cellKey(v.Port, v.Proto), int32(i)); other >= 0 {
			return fmt.Errorf("snapshot: services %s and %s have the same address, port and protocol",
				s.Services[other].Name, v.Name)
		}
		if len(v.Slots) > 0 && !v.NoEcho {
			vips.put(v.Addr, used, int32(i))
		}
	}
	for i := range s.Services {
		v := &s.Services[i]
		if !v.Live {
			continue
		}
		vips := &s.vips
		if v.Bits != 0 {
			vips = &s.level(v.Bits).vips
		}
		vips.put(v.Addr, used, int32(i)) // keeps what the first pass put: a service that can answer
	}
	for i := range s.Backends {
		b := &s.Backends[i]
		if !b.Live {
			continue
		}
		v := s.Service(b.Service)
		if v == nil {
			return fmt.Errorf("snapshot: backend %s belongs to no live service", b.Name)
		}
		if v.Mode == NAT {
			s.replies.put(b.Addr, cellKey(b.Port, v.Proto), int32(i))
			s.nat = true
		}
	}
	return nil
}

// Lookup returns the slot of the service for a packet to dst, or -1. A service of this one address comes before those
// of prefixes, a longer prefix before a shorter one; among services of the same addresses the exact port comes before port 0.
func (s *Snapshot) Lookup(dst packet.Addr, port uint16, proto uint8) int32 {
	slot := s.index.get(dst, cellKey(port, proto))
	if slot < 0 && s.anyPort {
		slot = s.index.get(dst, cellKey(0, proto))
	}
	if slot < 0 && len(s.prefixes) > 0 {
		slot = s.lookupPrefix(dst, port, proto)
	}
	return slot
}

// VIP returns the slot of some service on address a, or -1 when it is no VIP.
func (s *Snapshot) VIP(a packet.Addr) int32 {
	slot := s.vips.get(a, used)
	for i := 0; slot < 0 && i < len(s.prefixes); i++ {
		l := &s.prefixes[i]
		slot = l.vips.get(a.And(l.mask), used)
	}
	return slot
}

// Ours reports whether a is a VIP or one of the director's own addresses: no client's. One look-up answers it where no
// service has a prefix, because each new flow asks.
func (s *Snapshot) Ours(a packet.Addr) bool {
	return s.ours.get(a, used) >= 0 || len(s.prefixes) > 0 && s.VIP(a) >= 0
}

func (s *Snapshot) buildOurs() {
	s.ours = newIndex(2*len(s.Ports) + len(s.Services))
	for i := range s.Ports {
		for _, a := range [2]packet.Addr{s.Ports[i].V4, s.Ports[i].V6} {
			if a != (packet.Addr{}) {
				s.ours.put(a, used, int32(i))
			}
		}
	}
	for i := range s.Services {
		if v := &s.Services[i]; v.Live && v.Bits == 0 {
			s.ours.put(v.Addr, used, int32(i))
		}
	}
}

// Replies reports whether a packet from src and port may be a NAT backend's reply.
func (s *Snapshot) Replies(src packet.Addr, port uint16, proto uint8) bool {
	return s.replies.get(src, cellKey(port, proto)) >= 0 || s.replies.get(src, cellKey(0, proto)) >= 0
}

// Translates reports whether there is a backend that is reached by NAT.
func (s *Snapshot) Translates() bool { return s.nat }

// Pick returns the Maglev table's backend for a flow's hash, or nil when none may take new
// flows. The slot is (hash>>32)·len >> 32: a multiplication where a remainder would cost a division. A slot of a backend
// that is down, because its death is known and the table without it is not built yet, leads to another one.
func (s *Snapshot) Pick(v *Service, hash uint64) *Backend {
	if len(v.Slots) == 0 {
		return nil
	}
	if b := s.at(v, hash); b.Up {
		return b
	}
	return s.standIn(v, hash)
}

func (s *Snapshot) at(v *Service, hash uint64) *Backend {
	m := v.Slots[(hash>>32)*uint64(len(v.Slots))>>32]
	return &s.Backends[v.Members[m].Slot()]
}

// standIn spreads the flows of backends that are down over those that are up, by hashing again as often as is likely
// to be enough.
func (s *Snapshot) standIn(v *Service, hash uint64) *Backend {
	for range 16 {
		hash *= 0x9e3779b97f4a7c15
		if b := s.at(v, hash); b.Up {
			return b
		}
	}
	for _, r := range v.Members {
		if b := &s.Backends[r.Slot()]; b.Up {
			return b
		}
	}
	return nil
}

// Alive reports whether echo requests to address a are answered: it is a VIP, and of its services one that does not
// forbid it has a backend for new flows.
func (s *Snapshot) Alive(a packet.Addr) bool {
	slot := s.VIP(a)
	return slot >= 0 && len(s.Services[slot].Slots) > 0 && !s.Services[slot].NoEcho
}
