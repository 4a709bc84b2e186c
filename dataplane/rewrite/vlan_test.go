package rewrite

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"xlvs/dataplane/packet"
)

// Retag gives any frame any tags: MAC addresses and packet stay as they are.
func TestRetag(t *testing.T) {
	type tag struct{ etherType, id uint16 }
	kinds := [][]tag{{}, {{packet.EtherVLAN, 10}}, {{packet.EtherQinQ, 500}}, {{packet.EtherQinQ, 500}, {packet.EtherVLAN, 20}}}
	macs := []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	rest := append([]byte{0x08, 0x00}, bytes.Repeat([]byte{0xa5, 0x5a}, 30)...)
	frame := func(tags []tag, priorities ...uint16) (b []byte) {
		b = append(b, macs...)
		for i, t := range tags {
			b = binary.BigEndian.AppendUint16(b, t.etherType)
			b = binary.BigEndian.AppendUint16(b, t.id|priorities[i])
		}
		return append(b, rest...)
	}
	for _, from := range kinds {
		for _, to := range kinds {
			for _, off := range []int{256, 8, 0} {
				t.Run(fmt.Sprint(from, to, off), func(t *testing.T) {
					in := frame(from, 0xb000, 0x2000)
					chunk := append(bytes.Repeat([]byte{0xee}, off), in...)
					var tags packet.Tags
					for _, x := range to {
						tags = tags.Within(x.etherType, x.id)
					}
					var priority uint16
					if len(from) > 0 {
						priority = 0xb000
					}
					want := frame(to, priority, priority)
					start, length, ok := Retag(chunk, off, len(in), tags)
					if fits := off+len(in) >= len(want); ok != fits {
						t.Fatalf("ok is %v, want %v", ok, fits)
					}
					if !ok {
						want = in
					}
					if got := chunk[start : start+length]; !bytes.Equal(got, want) || start+length != off+len(in) {
						t.Errorf("at %d: % x, want % x", start, got, want)
					}
				})
			}
		}
	}
}
