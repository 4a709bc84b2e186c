package packet

import "encoding/binary"

// Tags are the VLAN tags of a frame without their priorities, the outer one in the upper half. Each is as on the wire: the
// type (0x8100 or 0x88a8), then the VLAN's number. 0 is no tag; one tag alone leaves the lower half 0.
//
//	 0         2        4                        IEEE 802.1Q, 9.6
//	| type    | pcp(3) dei(1) vlan(12) |
type Tags uint64

const (
	tagBits      = 0xffff0fff
	priorityBits = 0xf000
)

// Within returns the tags of VLAN id, a tag of type etherType, inside of t, which is one tag or none.
func (t Tags) Within(etherType, id uint16) Tags {
	tag := Tags(etherType)<<16 | Tags(id&0xfff)
	if t == 0 {
		return tag << 32
	}
	return t | tag
}

// Len returns how many bytes the tags take.
func (t Tags) Len() int {
	switch {
	case t == 0:
		return 0
	case uint32(t) == 0:
		return VLANLen
	}
	return 2 * VLANLen
}

// Outer and Inner return the two tags; 0 where there is none.
func (t Tags) Outer() uint32 { return uint32(t >> 32) }

// Inner returns the second tag.
func (t Tags) Inner() uint32 { return uint32(t) }

// TagsOf reads the first two tags of frame b.
func TagsOf(b []byte) (t Tags) {
	if len(b) < MaxL2Len || !isTag(binary.BigEndian.Uint16(b[12:])) {
		return 0
	}
	t = Tags(binary.BigEndian.Uint32(b[12:])&tagBits) << 32
	if isTag(binary.BigEndian.Uint16(b[16:])) {
		t |= Tags(binary.BigEndian.Uint32(b[16:]) & tagBits)
	}
	return t
}

// Priority returns priority and drop eligibility of frame b's outer tag, where a tag has them; 0 without one.
func Priority(b []byte) uint32 {
	if TagsOf(b) == 0 {
		return 0
	}
	return binary.BigEndian.Uint32(b[12:]) & priorityBits
}
