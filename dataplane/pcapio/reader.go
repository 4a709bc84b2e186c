package pcapio

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// A Reader reads a capture of either format, told by its first bytes.
type Reader struct {
	b       *bufio.Reader // both read from it, and nothing ahead
	zip     *unzip        // beneath it; nil: not compressed
	order   binary.ByteOrder
	classic *pcapgo.Reader
	ng      *pcapgo.NgReader
	fcs     int // bytes of frame check sequence behind each frame
	n       int
}

const (
	pcapHeader   = 24 // bytes of a pcap file's header
	recordHeader = 16 // bytes before each of its packets
)

// magic is what captures begin with, and what else is given for one.
var magic = []struct {
	first, what, remedy string
}{
	{"\x28\xb5\x2f\xfd", "compressed with zstd", "unpack it with `zstd -d`"},
	{"\xfd7zXZ\x00", "compressed with xz", "unpack it with `xz -d`"},
	{"BZh", "compressed with bzip2", "unpack it with `bzip2 -d`"},
	{"\x04\x22\x4d\x18", "compressed with lz4", "unpack it with `lz4 -d`"},
	{"PK\x03\x04", "a zip archive", "unpack it with `unzip`"},
	{"snoop\x00", "a snoop capture", "convert it with `editcap -F pcapng`"},
	{"\x34\xcd\xb2\xa1", "of a variant of pcap", "convert it with `editcap -F pcapng`"},
	{"\xa1\xb2\xcd\x34", "of a variant of pcap", "convert it with `editcap -F pcapng`"},
}

// ngMagic is the type of a section header block, the same in both byte orders (pcapng, 4.1).
var ngMagic = []byte{0x0a, 0x0d, 0x0d, 0x0a}

// NewReader reads the capture's header. A capture may be compressed with gzip.
func NewReader(r io.Reader) (*Reader, error) {
	c := &Reader{b: bufio.NewReaderSize(r, 1<<16), order: binary.LittleEndian}
	head, err := c.b.Peek(2)
	if err == nil && head[0] == 0x1f && head[1] == 0x8b {
		z, err := gzip.NewReader(c.b)
		if err != nil {
			return nil, fmt.Errorf("it is compressed with gzip, and damaged: %w", err)
		}
		c.zip = &unzip{z: z}
		c.b = bufio.NewReaderSize(c.zip, 1<<16)
	}
	head, err = c.b.Peek(pcapHeader)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err // a directory, for one
	}
	for _, m := range magic {
		if bytes.HasPrefix(head, []byte(m.first)) {
			return nil, fmt.Errorf("it is %s, which is not read here; %s", m.what, m.remedy)
		}
	}
	switch {
	case len(head) == 0:
		return nil, errors.New("it is empty")
	case len(head) < pcapHeader:
		return nil, fmt.Errorf("it is too short to be a capture (%d bytes)", len(head))
	case bytes.HasPrefix(head, ngMagic):
		err = c.startNg()
	default:
		err = c.startClassic(head)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// unzip unpacks. That what is compressed ends too early it says with an error of its own: pcapgo's would be a file's end.
type unzip struct {
	z   *gzip.Reader
	cut bool
}

var errZipCut = errors.New("the compressed file ends too early")

// Read implements io.Reader.
func (u *unzip) Read(b []byte) (int, error) {
	n, err := u.z.Read(b)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		u.cut, err = true, errZipCut
	}
	return n, err
}

// ended says whether reading failed because the file ends, or what is compressed in it.
func (r *Reader) ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errZipCut) || r.zip != nil && r.zip.cut && r.b.Buffered() == 0
}

func (r *Reader) startNg() (err error) {
	r.ng, err = pcapgo.NewNgReader(r.b, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
	if err != nil {
		return fmt.Errorf("not a readable pcapng file: %w", err)
	}
	return nil
}

func (r *Reader) startClassic(head []byte) (err error) {
	if head[0] == 0xa1 {
		r.order = binary.BigEndian
	}
	// How long frame check sequences are is in the link type's highest bits (draft-ietf-opsawg-pcap, 4).
	if link := r.order.Uint32(head[20:]); link>>26&1 != 0 {
		r.fcs = int(link>>28) * 2
	}
	if r.classic, err = pcapgo.NewReader(r.b); err != nil {
		return fmt.Errorf("neither a pcap nor a pcapng file (%w); if it is a capture, convert it with `editcap -F pcapng`", err)
	}
	if t := r.classic.LinkType(); t != layers.LinkTypeEthernet {
		return linkError(t)
	}
	if n := r.classic.Snaplen(); n == 0 || n > snapLen {
		r.classic.SetSnaplen(snapLen) // or a broken length would be memory that is asked for
	}
	return nil
}

func linkError(t layers.LinkType) error {
	return fmt.Errorf("the capture is of link type %s (%d), and only Ethernet (1) can be replayed; "+
		"capture on an Ethernet interface instead of `any`, a tunnel or a wireless one", t, int(t))
}

// ErrCut is the end of a capture that does not end behind a packet, as where the program that captured was killed.
var ErrCut = errors.New("the file ends within it: the capture was cut short")

// Read returns the next packet, or io.EOF after the last. Another error says at which packet, and nothing can be read behind it; it wraps ErrCut
// where the file ends too early.
func (r *Reader) Read() (p Packet, err error) {
	r.n++
	if r.classic != nil {
		p, err = r.readClassic()
	} else {
		p, err = r.readNg()
	}
	switch {
	case errors.Is(err, io.EOF):
		return p, io.EOF
	case err != nil && r.ended(err):
		return p, fmt.Errorf("packet %d: %w", r.n, ErrCut)
	case err != nil:
		return p, fmt.Errorf("packet %d: %w", r.n, err)
	}
	return p, nil
}

func (r *Reader) readClassic() (p Packet, err error) {
	head, err := r.b.Peek(recordHeader)
	if err != nil {
		if len(head) > 0 && errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return p, err
	}
	if have, wire := r.order.Uint32(head[8:]), r.order.Uint32(head[12:]); have > snapLen {
		return p, fmt.Errorf("it would have %d bytes: the file is damaged here", have)
	} else if have > wire {
		return p, fmt.Errorf("it is said to have had %d bytes, of which %d were captured: the file is damaged here, or whoever wrote it made a mistake", wire, have)
	}
	data, ci, err := r.classic.ReadPacketData()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF // its header was there
		}
		return p, err
	}
	p = Packet{Data: data, Wire: ci.Length, Time: ci.Timestamp}
	if r.fcs > 0 {
		p.Wire = max(p.Wire-r.fcs, 0)
		p.Data = data[:min(len(data), p.Wire)]
	}
	return p, nil
}

func (r *Reader) readNg() (p Packet, err error) {
	data, ci, err := r.ng.ReadPacketData()
	if err != nil {
		return p, err
	}
	if ci.CaptureLength > ci.Length {
		return p, fmt.Errorf("it is said to have had %d bytes, of which %d were captured: the file is damaged here, or whoever wrote it made a mistake",
			ci.Length, ci.CaptureLength)
	}
	p = Packet{Data: data, Wire: ci.Length, Time: ci.Timestamp}
	if t, ok := ci.AncillaryData[0].(layers.LinkType); ok && t != layers.LinkTypeEthernet {
		return p, linkError(t)
	}
	i, err := r.ng.Interface(ci.InterfaceIndex)
	if err != nil {
		return p, err
	}
	p.Interface = i.Name
	p.Time, err = exact(ci, i.TimestampResolution)
	return p, err
}

// exact is a packet's time where the interface counts fractions of a second by powers of two: the library rounds what one of them
// takes to whole nanoseconds. A simple packet block has no time: that is the beginning of the epoch.
func exact(ci gopacket.CaptureInfo, res pcapgo.NgResolution) (time.Time, error) {
	const second = uint64(time.Second)
	switch {
	case ci.Timestamp.IsZero():
		return time.Unix(0, 0).UTC(), nil
	case !res.Binary():
		return ci.Timestamp, nil
	case res.Exponent() >= 30:
		return ci.Timestamp, fmt.Errorf("its interface counts time in units of 2^-%d s, which is not read here; convert the capture with `editcap -F pcap`", res.Exponent())
	}
	of := uint64(1) << res.Exponent()
	units := uint64(ci.Timestamp.Nanosecond()) / (second / of)
	return time.Unix(ci.Timestamp.Unix(), int64(units*second/of)).UTC(), nil
}
