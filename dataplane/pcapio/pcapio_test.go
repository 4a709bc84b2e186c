package pcapio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

var at = time.Unix(1700000000, 123456789)

func write(t *testing.T, f Format, interfaces []string, frames ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := NewWriter(&b, f, interfaces)
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range frames {
		if err := w.Write(i%len(interfaces), at.Add(time.Duration(i)*time.Second), p); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func readAll(t *testing.T, capture []byte) (out []Packet) {
	t.Helper()
	r, err := NewReader(bytes.NewReader(capture))
	if err != nil {
		t.Fatal(err)
	}
	for {
		p, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		p.Data = bytes.Clone(p.Data)
		out = append(out, p)
	}
}

func TestBothFormatsComeBack(t *testing.T) {
	frames := [][]byte{bytes.Repeat([]byte{1}, 60), bytes.Repeat([]byte{2}, 9000), {3}}
	for f, named := range map[Format][]string{Pcap: {"", "", ""}, Pcapng: {"eth0", "eth1", "eth0"}} {
		capture := write(t, f, []string{"eth0", "eth1"}, frames...)
		if again := write(t, f, []string{"eth0", "eth1"}, frames...); !bytes.Equal(capture, again) {
			t.Errorf("format %d: written twice, two different files", f)
		}
		got := readAll(t, capture)
		if len(got) != len(frames) {
			t.Fatalf("format %d: %d packets", f, len(got))
		}
		for i, p := range got {
			if !bytes.Equal(p.Data, frames[i]) || p.Wire != len(frames[i]) || !p.Time.Equal(at.Add(time.Duration(i)*time.Second)) || p.Interface != named[i] {
				t.Errorf("format %d, packet %d: %d bytes of %d at %v on %q", f, i, len(p.Data), p.Wire, p.Time, p.Interface)
			}
		}
	}
}

// What is written names neither the machine nor the library that writes.
func TestNothingOfTheMachine(t *testing.T) {
	b := write(t, Pcapng, []string{"eth0"}, []byte{1})
	for _, s := range []string{"amd64", "linux", "gopacket"} {
		if bytes.Contains(b, []byte(s)) {
			t.Errorf("the file contains %q", s)
		}
	}
}

func TestTruncatedPacket(t *testing.T) {
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	fatal(t, w.WriteFileHeader(64, layers.LinkTypeEthernet))
	fatal(t, w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: 64, Length: 1500}, make([]byte, 64)))
	if p := readAll(t, b.Bytes()); len(p) != 1 || len(p[0].Data) != 64 || p[0].Wire != 1500 {
		t.Errorf("%+v", p)
	}
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWrongLinkType(t *testing.T) {
	var b bytes.Buffer
	fatal(t, pcapgo.NewWriter(&b).WriteFileHeader(64, layers.LinkTypeLinuxSLL))
	if _, err := NewReader(&b); err == nil || !strings.Contains(err.Error(), "only Ethernet (1)") {
		t.Errorf("pcap: %v", err)
	}
	var ng bytes.Buffer
	w, err := pcapgo.NewNgWriter(&ng, layers.LinkTypeRaw)
	fatal(t, err)
	fatal(t, w.WritePacket(gopacket.CaptureInfo{Timestamp: at, CaptureLength: 4, Length: 4}, make([]byte, 4)))
	fatal(t, w.Flush())
	r, err := NewReader(&ng)
	fatal(t, err)
	if _, err := r.Read(); err == nil || !strings.Contains(err.Error(), "packet 1") || !strings.Contains(err.Error(), "only Ethernet (1)") {
		t.Errorf("pcapng: %v", err)
	}
}

func TestBrokenFiles(t *testing.T) {
	for _, s := range []string{"", "\x0a", "not a capture at all, but long enough to be one", "\x0a\x0d\x0d\x0a and then nothing of it"} {
		if _, err := NewReader(strings.NewReader(s)); err == nil {
			t.Errorf("%q was taken for a capture", s)
		}
	}
	whole := write(t, Pcap, []string{"eth0"}, make([]byte, 60))
	r, err := NewReader(bytes.NewReader(whole[:len(whole)-9]))
	fatal(t, err)
	if _, err := r.Read(); !errors.Is(err, ErrCut) || !strings.Contains(err.Error(), "packet 1") {
		t.Errorf("a file that ends within a packet: %v", err)
	}
}

func TestFormatOf(t *testing.T) {
	for name, want := range map[string]Format{"a.pcap": Pcap, "b/c.CAP": Pcap, "x.pcapng": Pcapng} {
		if f, err := FormatOf(name); err != nil || f != want {
			t.Errorf("%s: %d, %v", name, f, err)
		}
	}
	for _, name := range []string{"a", "a.txt", "pcap"} {
		if _, err := FormatOf(name); err == nil || !strings.Contains(err.Error(), ".pcapng") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Whatever the bytes, reading ends, with packets or an error, and what was read can be written and read again.
func FuzzReader(f *testing.F) {
	for _, format := range []Format{Pcap, Pcapng} {
		var b bytes.Buffer
		w, err := NewWriter(&b, format, []string{"eth0", "eth1"})
		if err != nil {
			f.Fatal(err)
		}
		for i := range 2 {
			if err := w.Write(i, at, make([]byte, 60)); err != nil {
				f.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add(classic(binary.BigEndian, 0xa1b23c4d, 0x0400_0001|2<<28, [2]uint32{64, 64}, [2]uint32{3, 1518}))
	s := newSection(binary.BigEndian)
	s.iface("eth0", 1, 0x80|20, 5)
	s.packet(0, 1<<30, 61, make([]byte, 61))
	f.Add(s.b)
	f.Add([]byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"))
	f.Fuzz(func(t *testing.T, capture []byte) {
		r, err := NewReader(bytes.NewReader(capture))
		if err != nil {
			return
		}
		var frames [][]byte
		n := len(capture)
		if n > 0 && capture[0] == 0x1f {
			n *= 1100 // more than gzip can shrink
		}
		for range n + 1 {
			p, err := r.Read()
			if err != nil {
				rewritten(t, frames)
				return
			}
			if len(p.Data) > len(capture) && capture[0] != 0x1f {
				t.Fatalf("%d bytes of a file of %d", len(p.Data), len(capture))
			}
			frames = append(frames, bytes.Clone(p.Data))
		}
		t.Fatal("more packets than bytes")
	})
}

// rewritten writes frames in both formats and compares what can be read of that.
func rewritten(t *testing.T, frames [][]byte) {
	t.Helper()
	for _, format := range []Format{Pcap, Pcapng} {
		var b bytes.Buffer
		w, err := NewWriter(&b, format, []string{"eth0"})
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range frames {
			if err := w.Write(0, at, f); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if len(frames) == 0 {
			continue
		}
		r, err := NewReader(&b)
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range frames {
			if p, err := r.Read(); err != nil || !bytes.Equal(p.Data, f) || p.Wire != len(f) || !p.Time.Equal(at) {
				t.Fatalf("format %d, packet %d: % x, %v, want % x", format, i, p.Data, err, f)
			}
		}
	}
}
