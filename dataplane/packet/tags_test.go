package packet

import (
	"encoding/binary"
	"testing"
)

func TestTags(t *testing.T) {
	one := Tags(0).Within(EtherVLAN, 100)
	two := Tags(0).Within(EtherQinQ, 0xffff).Within(EtherVLAN, 7)
	for _, c := range []struct {
		name     string
		types    []uint16 // of the frame, from byte 12 on, with what is between
		want     Tags
		priority uint32
	}{
		{"none", []uint16{EtherIPv4, 0, 0, 0, 0, 0}, 0, 0},
		{"one", []uint16{EtherVLAN, 100, EtherIPv4, 0, 0, 0}, one, 0},
		{"priority and eligibility are not the VLAN's", []uint16{EtherVLAN, 0xb064, EtherIPv4, 0, 0, 0}, one, 0xb000},
		{"two", []uint16{EtherQinQ, 0x2fff, EtherVLAN, 0xe007, EtherIPv6, 0}, two, 0x2000},
		{"of three the first two", []uint16{EtherQinQ, 0xfff, EtherVLAN, 7, EtherVLAN, 9}, two, 0},
		{"number 0", []uint16{EtherVLAN, 0xe000, EtherIPv4, 0, 0, 0}, Tags(0).Within(EtherVLAN, 0), 0xe000},
	} {
		b := make([]byte, 12)
		for _, x := range c.types {
			b = binary.BigEndian.AppendUint16(b, x)
		}
		if got, p := TagsOf(b), Priority(b); got != c.want || p != c.priority {
			t.Errorf("%s: %#x with priority %#x, want %#x with %#x", c.name, got, p, c.want, c.priority)
		}
		if got := TagsOf(b[:MaxL2Len-1]); got != 0 {
			t.Errorf("%s: a frame that is too short for two tags has %#x", c.name, got)
		}
	}
	for tags, want := range map[Tags]int{0: 0, one: 4, two: 8} {
		if tags.Len() != want {
			t.Errorf("%#x takes %d bytes, want %d", tags, tags.Len(), want)
		}
	}
}
