// Package pcapio reads and writes captures: pcap and pcapng files of Ethernet frames. It puts gopacket's readers
// and writers, which differ, behind one Reader and one Writer, and is strict where a replay must be: another link type is an
// error, and what is written depends on nothing but what was given to write.
package pcapio

import (
	"bufio"
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
