package frametest

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Fragments cuts the IP packet of frame f into fragments with at most size bytes of data each, a multiple of 8
// (RFC 791, 3.2; RFC 8200, 4.5). An IPv6 packet must have no extension headers; id goes into its fragment header.
func Fragments(f []byte, size int, id uint32) (out [][]byte) {
	l3 := l3Of(f)
	v6 := f[l3]>>4 == 6
	head, end := l3+int(f[l3]&15)*4, l3+int(binary.BigEndian.Uint16(f[l3+2:]))
	if v6 {
		head, end = l3+40, l3+40+int(binary.BigEndian.Uint16(f[l3+4:]))
	}
	for from := head; from < end; from += size {
		to := min(from+size, end)
		p := slices.Clone(f[:head])
		field := uint16(from-head) / 8
		if v6 {
			h := []byte{p[l3+6], 0, 0, 0, 0, 0, 0, 0}
			field *= 8
			if to < end {
				field |= 1
			}
			binary.BigEndian.PutUint16(h[2:], field)
			binary.BigEndian.PutUint32(h[4:], id)
			p[l3+6] = 44
			binary.BigEndian.PutUint16(p[l3+4:], uint16(8+to-from))
			p = append(p, h...)
		} else {
			if to < end {
				field |= 0x2000
			}
			binary.BigEndian.PutUint16(p[l3+2:], uint16(head-l3+to-from))
			binary.BigEndian.PutUint16(p[l3+6:], field)
			FixIPv4(p[l3:])
		}
		out = append(out, append(p, f[from:to]...))
	}
	return out
}

// FixIPv4 computes the checksum of the IPv4 header that b begins with.
func FixIPv4(b []byte) {
	b[10], b[11] = 0, 0
	binary.BigEndian.PutUint16(b[10:], ^Sum(b[:int(b[0]&15)*4]))
}

func l3Of(f []byte) int {
	l3 := 14
	for t := binary.BigEndian.Uint16(f[12:]); t == 0x8100 || t == 0x88a8; t = binary.BigEndian.Uint16(f[l3-2:]) {
		l3 += 4
	}
	return l3
}

// Reassemble makes the frame of which frames are all the fragments, in any order, each taken out of its tunnel (IP in
// IP) if it is in one. The frame has the Ethernet and IP headers of the first fragment. Every IPv4 header's checksum is checked, and
// that nothing overlaps or is missing.
func Reassemble(frames [][]byte) ([]byte, error) {
	type part struct {
		at   int
		data []byte
	}
	var parts []part
	var head []byte
	end, l3 := -1, 0
	for _, f := range frames {
		f, err := untunnel(f)
		if err != nil {
			return nil, err
		}
		l3 = l3Of(f)
		p, n, more, err := fragmentOf(f, l3)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part{p, f[n:]})
		if p == 0 {
			head = slices.Clone(f[:n])
		}
		if !more {
			end = p + len(f) - n
		}
	}
	slices.SortFunc(parts, func(a, b part) int { return a.at - b.at })
	var data []byte
	for _, p := range parts {
		if p.at != len(data) {
			return nil, fmt.Errorf("a fragment begins at byte %d, the one before ends at %d", p.at, len(data))
		}
		data = append(data, p.data...)
	}
	if len(data) != end {
		return nil, fmt.Errorf("%d bytes in fragments; the last one says %d", len(data), end)
	}
	if head[l3]>>4 == 6 {
		head[l3+6] = head[len(head)-8]
		head = head[:len(head)-8]
		binary.BigEndian.PutUint16(head[l3+4:], uint16(len(head)-l3-40+len(data)))
	} else {
		binary.BigEndian.PutUint16(head[l3+2:], uint16(len(head)-l3+len(data)))
		binary.BigEndian.PutUint16(head[l3+6:], 0)
		FixIPv4(head[l3:])
	}
	return append(head, data...), nil
}

// fragmentOf returns offset and end of header of the fragment in f, which it cuts no padding off.
func fragmentOf(f []byte, l3 int) (at, head int, more bool, err error) {
	if f[l3]>>4 == 6 {
		if f[l3+6] != 44 || len(f) != l3+40+int(binary.BigEndian.Uint16(f[l3+4:])) {
			return 0, 0, false, fmt.Errorf("no IPv6 fragment: % x", f[l3:l3+48])
		}
		field := binary.BigEndian.Uint16(f[l3+42:])
		return int(field &^ 7), l3 + 48, field&1 != 0, nil
	}
	n := int(f[l3]&15) * 4
	if Sum(f[l3:l3+n]) != 0xffff || len(f) != l3+int(binary.BigEndian.Uint16(f[l3+2:])) {
		return 0, 0, false, fmt.Errorf("IPv4 header % x of a frame of %d bytes", f[l3:l3+n], len(f))
	}
	field := binary.BigEndian.Uint16(f[l3+6:])
	return int(field&0x1fff) * 8, l3 + n, field&0x2000 != 0, nil
}

func untunnel(f []byte) ([]byte, error) {
	l3 := l3Of(f)
	proto, head := f[l3+9], l3+20
	if f[l3]>>4 == 6 {
		proto, head = f[l3+6], l3+40
	}
	if proto != 4 && proto != 41 {
		return f, nil
	}
	if head == l3+20 && Sum(f[l3:head]) != 0xffff {
		return nil, fmt.Errorf("outer header % x", f[l3:head])
	}
	out := append(slices.Clone(f[:l3]), f[head:]...)
	binary.BigEndian.PutUint16(out[l3-2:], map[byte]uint16{4: 0x0800, 41: 0x86dd}[proto])
	return out, nil
}
