package pcapio

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

type order interface {
	binary.ByteOrder
	binary.AppendByteOrder
}

// A section is written by hand here, as the draft has it (draft-ietf-opsawg-pcapng): no library of ours writes big endian, nor these options.
type section struct {
	order
	b []byte
}

func (s *section) block(kind uint32, body []byte) {
	size := uint32(12 + (len(body)+3)/4*4)
	s.b = s.AppendUint32(s.AppendUint32(s.b, kind), size)
	s.b = append(append(s.b, body...), make([]byte, int(size)-12-len(body))...)
	s.b = s.AppendUint32(s.b, size)
}

func (s *section) option(b []byte, code uint16, value ...byte) []byte {
	b = append(s.AppendUint16(s.AppendUint16(b, code), uint16(len(value))), value...)
	return append(b, make([]byte, (4-len(value)%4)%4)...)
}

func newSection(o order) *section {
	s := &section{order: o}
	body := o.AppendUint32(nil, 0x1a2b3c4d)
	body = o.AppendUint16(o.AppendUint16(body, 1), 0)
	s.block(0x0a0d0d0a, o.AppendUint64(body, ^uint64(0)))
	return s
}

// iface adds an interface. resolution is if_tsresol, -1 for none; offset is if_tsoffset, 0 for none.
func (s *section) iface(name string, link uint16, resolution int, offset uint64) {
	b := s.AppendUint32(s.AppendUint16(s.AppendUint16(nil, link), 0), 0)
	b = s.option(b, 2, []byte(name)...)
	if resolution >= 0 {
		b = s.option(b, 9, byte(resolution))
	}
	if offset != 0 {
		b = s.option(b, 14, s.AppendUint64(nil, offset)...)
	}
	s.block(1, s.option(b, 0))
}

func (s *section) packet(i uint32, time uint64, wire int, data []byte) {
	b := s.AppendUint32(nil, i)
	b = s.AppendUint32(s.AppendUint32(b, uint32(time>>32)), uint32(time))
	b = s.AppendUint32(s.AppendUint32(b, uint32(len(data))), uint32(wire))
	b = append(append(b, data...), make([]byte, (4-len(data)%4)%4)...)
	b = s.option(b, 2, s.AppendUint32(nil, 1)...) // epb_flags: inbound
	s.block(6, s.option(b, 0))
}

var orders = map[string]order{"little endian": binary.LittleEndian, "big endian": binary.BigEndian}

// Timestamps in every unit, with an offset, in both byte orders.
func TestResolutions(t *testing.T) {
	const s = 1700000000
	for name, o := range orders {
		for _, c := range []struct {
			resolution int
			offset     uint64
			time       uint64
			want       time.Time
		}{
			{-1, 0, s*1e6 + 123456, time.Unix(s, 123456000)},
			{6, 0, s*1e6 + 123456, time.Unix(s, 123456000)},
			{9, 0, s*1e9 + 123456789, time.Unix(s, 123456789)},
			{3, 0, s*1e3 + 999, time.Unix(s, 999e6)},
			{12, 0, 17e11*1e6 + 999999999999, time.Unix(1700000, 999999999)},
			{9, s, 5, time.Unix(s, 5)},
			{6, ^uint64(99), s * 1e6, time.Unix(s-100, 0)}, // -100
			{0x80 | 10, 0, s<<10 + 512, time.Unix(s, 5e8)},
			{0x80 | 20, 0, s<<20 + 1<<20 - 1, time.Unix(s, 999999046)},
			{0x80 | 29, 0, s<<29 + 1<<29 - 1, time.Unix(s, 999999998)},
		} {
			w := newSection(o)
			w.iface("eth0", 1, c.resolution, c.offset)
			w.packet(0, c.time, 60, make([]byte, 60))
			if p := readAll(t, w.b); len(p) != 1 || !p[0].Time.Equal(c.want) || p[0].Interface != "eth0" {
				t.Errorf("%s, resolution %#x: %+v, want %v", name, c.resolution, p, c.want)
			}
		}
	}
}

// Each section has its own byte order and its own interfaces.
func TestSections(t *testing.T) {
	a, b, c := newSection(binary.LittleEndian), newSection(binary.BigEndian), newSection(binary.LittleEndian)
	a.iface("eth0", 1, -1, 0)
	a.iface("eth1", 1, 9, 0)
	a.packet(1, 7, 61, make([]byte, 61))
	a.packet(0, 7, 62, make([]byte, 62))
	b.iface("eth2", 1, 9, 0)
	b.packet(0, 8, 1500, make([]byte, 63))
	c.block(0x0bad, make([]byte, 5)) // of a kind that nobody knows
	c.iface("eth3", 1, -1, 0)
	c.block(3, append(c.AppendUint32(nil, 64), make([]byte, 64)...)) // a simple packet, which has no time
	var got []string
	for _, p := range readAll(t, bytes.Join([][]byte{a.b, b.b, c.b}, nil)) {
		got = append(got, fmt.Sprintf("%s %d/%d %d", p.Interface, len(p.Data), p.Wire, p.Time.UnixNano()))
	}
	const want = "eth1 61/61 7, eth0 62/62 7000, eth2 63/1500 8, eth3 64/64 0"
	if s := strings.Join(got, ", "); s != want {
		t.Errorf("%s, want %s", s, want)
	}
}

// classic writes a pcap file with records of the given lengths by hand.
func classic(o order, magic, link uint32, records ...[2]uint32) []byte {
	b := o.AppendUint32(nil, magic)
	b = o.AppendUint16(o.AppendUint16(b, 2), 4)
	b = o.AppendUint32(o.AppendUint64(b, 0), 65535)
	b = o.AppendUint32(b, link)
	for i, r := range records {
		b = o.AppendUint32(o.AppendUint32(b, 1700000000), uint32(i))
		b = o.AppendUint32(o.AppendUint32(b, r[0]), r[1])
		b = append(b, bytes.Repeat([]byte{byte(i)}, int(min(r[0], 9000)))...)
	}
	return b
}

// Both byte orders and units of time; the frame check sequence behind each frame, where the header says that there is one, is taken off.
func TestClassic(t *testing.T) {
	records := [][2]uint32{{64, 64}, {64, 1518}, {62, 64}, {2, 2}}
	for name, o := range orders {
		for magic, unit := range map[uint32]time.Duration{0xa1b2c3d4: time.Microsecond, 0xa1b23c4d: time.Nanosecond} {
			for link, want := range map[uint32]string{
				1:                   "64/64 64/1518 62/64 2/2",
				0x0400_0001 | 2<<28: "60/60 64/1514 60/60 0/0",
				2<<28 | 1:           "64/64 64/1518 62/64 2/2", // a length, but no flag
			} {
				var got []string
				for i, p := range readAll(t, classic(o, magic, link, records...)) {
					got = append(got, fmt.Sprintf("%d/%d", len(p.Data), p.Wire))
					if !p.Time.Equal(time.Unix(1700000000, int64(i)*int64(unit))) {
						t.Errorf("%s, %#x: packet %d at %v", name, magic, i, p.Time)
					}
				}
				if s := strings.Join(got, " "); s != want {
					t.Errorf("%s, %#x, link type %#x: %s, want %s", name, magic, link, s, want)
				}
			}
		}
	}
}

func compressed(t *testing.T, b []byte) []byte {
	t.Helper()
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, err := w.Write(b)
	fatal(t, err)
	fatal(t, w.Close())
	return z.Bytes()
}

func TestGzip(t *testing.T) {
	for _, f := range []Format{Pcap, Pcapng} {
		whole := compressed(t, write(t, f, []string{"eth0"}, make([]byte, 60), make([]byte, 61)))
		if p := readAll(t, whole); len(p) != 2 || len(p[1].Data) != 61 {
			t.Errorf("format %d: %+v", f, p)
		}
		whole[len(whole)-5]++ // a byte of the checksum
		r, err := NewReader(bytes.NewReader(whole))
		for err == nil {
			_, err = r.Read()
		}
		if !errors.Is(err, gzip.ErrChecksum) {
			t.Errorf("format %d, with a wrong checksum: %v", f, err)
		}
	}
}

// A capture that is cut anywhere gives every packet that is there in full. Only where it is cut between two does nobody notice.
func TestCutAnywhere(t *testing.T) {
	frames := [][]byte{make([]byte, 60), make([]byte, 61), {1}}
	for _, f := range []Format{Pcap, Pcapng} {
		whole := write(t, f, []string{"eth0", "eth1"}, frames...)
		ends := map[int]int{} // where the file could end: with how many packets
		for n := range len(frames) + 1 {
			ends[len(write(t, f, []string{"eth0", "eth1"}, frames[:n]...))] = n
		}
		noticed, before := 0, 0
		for n := range len(whole) {
			if k, ok := ends[n]; ok {
				before = k
			}
			got, err := untilError(whole[:n])
			_, clean := ends[n]
			switch {
			case got != before:
				t.Fatalf("format %d, %d bytes: %d packets, want %d: %v", f, n, got, before, err)
			case clean != errors.Is(err, io.EOF) && n >= 200:
				t.Fatalf("format %d, %d bytes: %v", f, n, err)
			case errors.Is(err, ErrCut):
				noticed++
			}
		}
		if noticed < 150 {
			t.Errorf("format %d: only %d cuts were noticed", f, noticed)
		}
		z := compressed(t, whole)
		for n := 30; n < len(z); n++ {
			if _, err := untilError(z[:n]); err == nil || errors.Is(err, io.EOF) {
				t.Fatalf("format %d, %d bytes of %d of gzip: %v", f, n, len(z), err)
			}
		}
	}
}

func untilError(capture []byte) (packets int, err error) {
	r, err := NewReader(bytes.NewReader(capture))
	for err == nil {
		if _, err = r.Read(); err == nil {
			packets++
		}
	}
	return packets, err
}

// What cannot be read is said in words.
func TestRefused(t *testing.T) {
	ng := func(write func(*section)) []byte {
		s := newSection(binary.BigEndian)
		write(s)
		return s.b
	}
	const micro = 0xa1b2c3d4
	for _, c := range []struct {
		capture []byte
		want    string
	}{
		{nil, "it is empty"},
		{[]byte{0x0a}, "too short to be a capture (1 bytes)"},
		{classic(binary.LittleEndian, micro, 1)[:23], "too short to be a capture (23 bytes)"},
		{[]byte("\x28\xb5\x2f\xfd"), "it is compressed with zstd, which is not read here; unpack it with `zstd -d`"},
		{compressed(t, nil), "it is empty"},
		{compressed(t, make([]byte, 99))[:12], "the compressed file ends too early"},
		{[]byte{0x1f, 0x8b, 9, 9}, "it is compressed with gzip, and damaged"},
		{classic(binary.LittleEndian, 0xa1b2cd34, 1), "it is of a variant of pcap"},
		{classic(binary.BigEndian, 0xa1b2cd34, 1), "it is of a variant of pcap"},
		{[]byte("config:\n  interfaces: [{ name: eth0 }]\n"), "neither a pcap nor a pcapng file"},
		{classic(binary.LittleEndian, micro, 113), "only Ethernet (1)"},
		{classic(binary.LittleEndian, micro, 276), "(276), and only Ethernet (1)"},
		{classic(binary.LittleEndian, micro, 1, [2]uint32{60, 60}, [2]uint32{60, 59}), "packet 2: it is said to have had 59 bytes, of which 60 were captured"},
		{classic(binary.BigEndian, micro, 1, [2]uint32{1 << 30, 1 << 30}), "packet 1: it would have 1073741824 bytes: the file is damaged here"},
		{ng(func(s *section) { s.iface("eth0", 1, -1, 0); s.packet(0, 0, 59, make([]byte, 60)) }), "packet 1: it is said to have had 59 bytes, of which 60 were captured"},
		{ng(func(s *section) { s.packet(0, 0, 60, make([]byte, 60)) }), "packet 1: Interface id 0 not present"},
		{ng(func(s *section) { s.iface("any", 113, -1, 0); s.packet(0, 0, 60, make([]byte, 60)) }), "only Ethernet (1)"},
		{ng(func(s *section) { s.iface("eth0", 1, 0x80|32, 0); s.packet(0, 0, 60, make([]byte, 60)) }), "packet 1: its interface counts time in units of 2^-32 s"},
	} {
		if _, err := untilError(c.capture); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40q: %v, want %s", c.capture, err, c.want)
		}
	}
	dir, err := os.Open(t.TempDir())
	fatal(t, err)
	defer dir.Close()
	if _, err := NewReader(dir); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory: %v", err)
	}
}
