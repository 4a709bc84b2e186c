// Package pcapio reads and writes captures: pcap and pcapng files of Ethernet frames. It puts gopacket's readers
// and writers, which differ, behind one Reader and one Writer, and is strict where a replay must be: another link type is an
// error, and what is written depends on nothing but what was given to write.
package pcapio

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// A Packet is one captured frame.
type Packet struct {
	Data      []byte // valid until the next Read
	Wire      int    // bytes that it had on the wire: more than Data where the capture has only a part
	Time      time.Time
	Interface string // on which it was captured; empty where the capture does not say
}

// A Reader reads a capture of either format, told by its first bytes.
type Reader struct {
	classic *pcapgo.Reader
	ng      *pcapgo.NgReader
	n       int
}

// ngMagic is the type of a section header block, the same in both byte orders (pcapng, 4.1).
var ngMagic = []byte{0x0a, 0x0d, 0x0d, 0x0a}

// NewReader reads the capture's header.
func NewReader(r io.Reader) (*Reader, error) {
	b := bufio.NewReaderSize(r, 1<<16)
	head, err := b.Peek(4)
	if err != nil {
		return nil, fmt.Errorf("it is too short to be a capture (%d bytes)", len(head))
	}
	if bytes.Equal(head, ngMagic) {
		ng, err := pcapgo.NewNgReader(b, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
		if err != nil {
			return nil, fmt.Errorf("not a readable pcapng file: %w", err)
		}
		return &Reader{ng: ng}, nil
	}
	classic, err := pcapgo.NewReader(b)
	if err != nil {
		return nil, fmt.Errorf("neither a pcap nor a pcapng file: %w", err)
	}
	if t := classic.LinkType(); t != layers.LinkTypeEthernet {
		return nil, linkError(t)
	}
	if n := classic.Snaplen(); n == 0 || n > snapLen {
		classic.SetSnaplen(snapLen) // or a broken length would be memory that is asked for
	}
	return &Reader{classic: classic}, nil
}

func linkError(t layers.LinkType) error {
	return fmt.Errorf("the capture is of link type %s (%d), and only Ethernet (1) can be replayed; "+
		"capture on an Ethernet interface instead of `any`, a tunnel or a wireless one", t, int(t))
}

// Read returns the next packet, or io.EOF after the last. An error names the packet.
func (r *Reader) Read() (p Packet, err error) {
	r.n++
	var ci gopacket.CaptureInfo
	if r.classic != nil {
		p.Data, ci, err = r.classic.ReadPacketData()
	} else {
		p.Data, ci, err = r.ng.ReadPacketData()
	}
	switch {
	case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return p, io.EOF
	case err != nil:
		return p, fmt.Errorf("packet %d: %w", r.n, err)
	}
	p.Wire, p.Time = ci.Length, ci.Timestamp
	if r.ng == nil {
		return p, nil
	}
	if len(ci.AncillaryData) > 0 {
		if t, ok := ci.AncillaryData[0].(layers.LinkType); ok && t != layers.LinkTypeEthernet {
			return p, fmt.Errorf("packet %d: %w", r.n, linkError(t))
		}
	}
	if i, err := r.ng.Interface(ci.InterfaceIndex); err == nil {
		p.Interface = i.Name
	}
	return p, nil
}

// A Writer writes a capture. Flush must be called at the end.
type Writer struct {
	classic *pcapgo.Writer
	buf     *bufio.Writer
	ng      *pcapgo.NgWriter
}

// A Format is a capture's file format.
type Format uint8

// The formats.
const (
	Pcap Format = iota
	Pcapng
)

// FormatOf tells a format by a file's extension.
func FormatOf(file string) (Format, error) {
	switch ext := strings.ToLower(filepath.Ext(file)); ext {
	case ".pcap", ".cap":
		return Pcap, nil
	case ".pcapng", ".ntar":
		return Pcapng, nil
	default:
		return 0, fmt.Errorf("%s: the extension %q names no capture format; use .pcap or .pcapng", file, ext)
	}
}

// snapLen is what a header says is the most a frame may have: as libpcap's MAXIMUM_SNAPLEN.
const snapLen = 262144

// NewWriter writes the header of a capture with the given interfaces, of which there must be one at least. Times have a
// resolution of a nanosecond in both formats.
func NewWriter(w io.Writer, f Format, interfaces []string) (*Writer, error) {
	if f == Pcap {
		b := bufio.NewWriterSize(w, 1<<16)
		c := pcapgo.NewWriterNanos(b)
		return &Writer{classic: c, buf: b}, c.WriteFileHeader(snapLen, layers.LinkTypeEthernet)
	}
	ngInterface := func(name string) pcapgo.NgInterface {
		return pcapgo.NgInterface{Name: name, LinkType: layers.LinkTypeEthernet, SnapLength: snapLen, TimestampResolution: 9}
	}
	// Without the defaults, which name the machine that writes.
	ng, err := pcapgo.NewNgWriterInterface(w, ngInterface(interfaces[0]),
		pcapgo.NgWriterOptions{SectionInfo: pcapgo.NgSectionInfo{Application: "xlvs"}})
	if err != nil {
		return nil, err
	}
	for _, name := range interfaces[1:] {
		if _, err := ng.AddInterface(ngInterface(name)); err != nil {
			return nil, err
		}
	}
	return &Writer{ng: ng}, nil
}

// Write adds a frame that left by interface number i at time t.
func (w *Writer) Write(i int, t time.Time, frame []byte) error {
	ci := gopacket.CaptureInfo{Timestamp: t, CaptureLength: len(frame), Length: len(frame), InterfaceIndex: i}
	if w.ng != nil {
		return w.ng.WritePacket(ci, frame)
	}
	return w.classic.WritePacket(ci, frame)
}

// Flush writes what is buffered.
func (w *Writer) Flush() error {
	if w.ng != nil {
		return w.ng.Flush()
	}
	return w.buf.Flush()
}
