package rewrite

import (
	"encoding/binary"

	"xlvs/dataplane/packet"
)

// Retag gives the frame of length bytes at off in chunk the tags t in place of those that it has. It moves the MAC
// addresses, not the packet. All of the new tags have the priority of the old outer one. ok is false when the chunk has no room.
//
//	before     | dst src | tag | type | …
//	after | dst src | tag | tag | type | …
func Retag(chunk []byte, off, length int, t packet.Tags) (start, size int, ok bool) {
	b := chunk[off : off+length]
	priority := packet.Priority(b)
	start = off + packet.TagsOf(b).Len() - t.Len()
	if start < 0 {
		return off, length, false
	}
	out := chunk[start:]
	copy(out[:12], b[:12])
	if outer := t.Outer(); outer != 0 {
		binary.BigEndian.PutUint32(out[12:], outer|priority)
	}
	if inner := t.Inner(); inner != 0 {
		binary.BigEndian.PutUint32(out[16:], inner|priority)
	}
	return start, length + off - start, true
}
