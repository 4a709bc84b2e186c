package perf

// A ring hands out all chunks of a memory in turn. Each is written half a round before it is delivered, when the
// frames after it have long pushed it out of the caches next to the core: as a NIC leaves frames, which writes
// to memory or to the last-level cache.
type ring struct {
	size, next uint32
}

// coldChunks is how many chunks go round: packet memory of the size that a director has.
const coldChunks = 8192

// cool makes the source deliver from a ring from now on, packets of the template that it has now first.
func (s *source) cool() {
	if s.ring != nil {
		return
	}
	for {
		if _, ok := s.mem.Alloc(); !ok {
			break
		}
	}
	s.ring = &ring{size: uint32(s.mem.Chunks())}
	for c := range s.ring.size / 2 {
		s.write(c)
	}
}

// turn returns the chunk to deliver now, and the one to write now.
func (r *ring) turn() (deliver, write uint32) {
	deliver = r.next
	if write = deliver + r.size/2; write >= r.size {
		write -= r.size
	}
	if r.next++; r.next == r.size {
		r.next = 0
	}
	return deliver, write
}
