package offline

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/rogpeppe/go-internal/txtar"

	"xlvs/control/config"
	"xlvs/dataplane/notation"
	"xlvs/dataplane/pcapio"
)

// began is when captures of these tests begin.
var began = time.Unix(1700000000, 0)

// A scene is a capture and what a replay makes of it, as text.
type scene struct {
	conf              *config.Config
	in, verdicts, out string
}

func readScene(t testing.TB, name string) scene {
	t.Helper()
	a, err := txtar.ParseFile(name)
	fatal(t, err)
	s := scene{}
	for _, f := range a.Files {
		switch f.Name {
		case "config.yaml":
			s.conf, err = config.Parse(name, f.Data)
			fatal(t, err)
		case "in":
			s.in = string(f.Data)
		case "verdicts":
			s.verdicts = string(f.Data)
		case "out":
			s.out = string(f.Data)
		default:
			t.Fatalf("%s has a section %s", name, f.Name)
		}
	}
	return s
}

func fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// capture writes the scene's input as a file of the format, with gopacket. Names of interfaces exist in pcapng alone.
func (s scene) capture(t testing.TB, f pcapio.Format) []byte {
	t.Helper()
	var b bytes.Buffer
	classic := pcapgo.NewWriter(&b)
	var ng *pcapgo.NgWriter
	var names []string
	if f == pcapio.Pcap {
		fatal(t, classic.WriteFileHeader(65535, layers.LinkTypeEthernet))
	}
	for line := range strings.Lines(s.in) {
		at, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		name, text, _ := strings.Cut(rest, " ")
		frame, wire := frameOf(t, text)
		d, err := time.ParseDuration(at)
		fatal(t, err)
		ci := gopacket.CaptureInfo{Timestamp: began.Add(d), CaptureLength: len(frame), Length: wire}
		if f == pcapio.Pcap {
			fatal(t, classic.WritePacket(ci, frame))
			continue
		}
		if ci.InterfaceIndex = slices.Index(names, name); ci.InterfaceIndex < 0 {
			ci.InterfaceIndex = len(names)
			names = append(names, name)
			i := pcapgo.NgInterface{Name: name, LinkType: layers.LinkTypeEthernet}
			if ng == nil {
				ng, err = pcapgo.NewNgWriterInterface(&b, i, pcapgo.DefaultNgWriterOptions)
			} else {
				_, err = ng.AddInterface(i)
			}
			fatal(t, err)
		}
		fatal(t, ng.WritePacket(ci, frame))
	}
	if ng != nil {
		fatal(t, ng.Flush())
	}
	return b.Bytes()
}

// frameOf builds a frame and says how long it was on the wire: what a cut takes away was there.
func frameOf(t testing.TB, text string) (frame []byte, wire int) {
	t.Helper()
	frame, err := notation.Parse(text)
	fatal(t, err)
	whole, _, cut := strings.Cut(text, " / cut ")
	if !cut {
		return frame, len(frame)
	}
	full, err := notation.Parse(whole)
	fatal(t, err)
	return frame, len(full)
}

// replay runs a capture and returns the output file and the verdicts.
func (s scene) replay(t *testing.T, capture []byte, f pcapio.Format) (out, verdicts []byte) {
	t.Helper()
	d, err := New(s.conf, Options{Down: []string{"web2"}, Flows: caseFlows})
	fatal(t, err)
	defer func() { fatal(t, d.Close()) }()
	in, err := pcapio.NewReader(bytes.NewReader(capture))
	fatal(t, err)
	var file, lines bytes.Buffer
	w, err := pcapio.NewWriter(&file, f, d.Interfaces())
	fatal(t, err)
	sum, err := Replay(d, in, w, &lines)
	fatal(t, err)
	fatal(t, w.Flush())
	if n := strings.Count(s.in, "\n"); sum.Packets != n || sum.Verdicts["forward"]+sum.Verdicts["reply"]+sum.Verdicts["drop"]+sum.Verdicts["pass"] != n {
		t.Errorf("of %d packets %+v", n, sum)
	}
	if n := d.leaked(); n != 0 {
		t.Errorf("%d frames leaked", n)
	}
	return file.Bytes(), lines.Bytes()
}

// describe writes an output file as text. Pcap does not name interfaces.
func describe(t *testing.T, capture []byte) string {
	t.Helper()
	r, err := pcapio.NewReader(bytes.NewReader(capture))
	fatal(t, err)
	var b strings.Builder
	for {
		p, err := r.Read()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		fatal(t, err)
		fmt.Fprintf(&b, "%v %s %s\n", p.Time.Sub(began), p.Interface, notation.Format(p.Data))
	}
}

func TestReplay(t *testing.T) {
	files, err := filepath.Glob("testdata/replay/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenes: %v", err)
	}
	for _, name := range files {
		s := readScene(t, name)
		capture := s.capture(t, pcapio.Pcapng)
		out, verdicts := s.replay(t, capture, pcapio.Pcapng)
		if diff := cmp.Diff(s.verdicts, string(verdicts)); diff != "" {
			t.Errorf("%s: verdicts (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(s.out, describe(t, out)); diff != "" {
			t.Errorf("%s: out (-want +got):\n%s", name, diff)
		}
		again, verdictsAgain := s.replay(t, capture, pcapio.Pcapng)
		if !bytes.Equal(out, again) || !bytes.Equal(verdicts, verdictsAgain) {
			t.Errorf("%s: replayed twice, two different results", name)
		}
		// To pcap, the same frames at the same times.
		classic, verdictsClassic := s.replay(t, capture, pcapio.Pcap)
		unnamed := strings.NewReplacer(" eth0 ", "  ", " eth1 ", "  ").Replace(s.out)
		if got := describe(t, classic); got != unnamed || !bytes.Equal(verdicts, verdictsClassic) {
			t.Errorf("%s: the pcap file has other frames:\n%s", name, cmp.Diff(unnamed, got))
		}
	}
}

// Of packets that come in on the first interface, pcap and pcapng captures give the same, to the byte.
func TestBothFormatsGiveTheSame(t *testing.T) {
	s := readScene(t, "testdata/replay/verdicts.txtar")
	var first strings.Builder
	for line := range strings.Lines(s.in) {
		if strings.Contains(line, " eth0 ") {
			first.WriteString(line)
		}
	}
	s.in = first.String()
	for _, f := range []pcapio.Format{pcapio.Pcap, pcapio.Pcapng} {
		a, va := s.replay(t, s.capture(t, pcapio.Pcap), f)
		b, vb := s.replay(t, s.capture(t, pcapio.Pcapng), f)
		if !bytes.Equal(a, b) || !bytes.Equal(va, vb) {
			t.Errorf("to format %d: not the same:\n%s", f, cmp.Diff(describe(t, a), describe(t, b)))
		}
	}
}

// A capture that ends within a packet gives what came before, and an error.
func TestBrokenCapture(t *testing.T) {
	s := readScene(t, "testdata/replay/verdicts.txtar")
	capture := s.capture(t, pcapio.Pcap)
	d, err := New(s.conf, Options{Flows: caseFlows})
	fatal(t, err)
	defer func() { fatal(t, d.Close()) }()
	in, err := pcapio.NewReader(bytes.NewReader(capture[:len(capture)-5]))
	fatal(t, err)
	w, err := pcapio.NewWriter(io.Discard, pcapio.Pcap, d.Interfaces())
	fatal(t, err)
	if sum, err := Replay(d, in, w, nil); err == nil || !strings.Contains(err.Error(), "packet 13") || sum.Packets != 12 {
		t.Errorf("%+v, %v", sum, err)
	}
}

// Whatever the capture, each packet has one line, in order, that says what became of it in the end, and no frame is lost.
func FuzzReplay(f *testing.F) {
	for _, name := range []string{"testdata/replay/fragments.txtar", "testdata/replay/verdicts.txtar"} {
		s := readScene(f, name)
		for _, format := range []pcapio.Format{pcapio.Pcap, pcapio.Pcapng} {
			f.Add(s.capture(f, format))
		}
	}
	conf := readScene(f, "testdata/replay/fragments.txtar").conf
	f.Fuzz(func(t *testing.T, capture []byte) {
		in, err := pcapio.NewReader(bytes.NewReader(capture))
		if err != nil {
			return
		}
		d, err := New(conf, Options{Flows: caseFlows})
		fatal(t, err)
		defer func() { fatal(t, d.Close()) }()
		var lines, file bytes.Buffer
		w, err := pcapio.NewWriter(&file, pcapio.Pcap, d.Interfaces())
		fatal(t, err)
		sum, err := Replay(d, in, w, &lines)
		var failed WriteError
		if errors.As(err, &failed) {
			t.Fatal(err)
		}
		fatal(t, w.Flush())
		sent := map[int]bool{}
		n := 0
		for line := range strings.Lines(lines.String()) {
			n++
			var v Verdict
			fatal(t, json.Unmarshal([]byte(line), &v))
			if v.N != n || !slices.Contains([]string{"forward", "reply", "drop", "pass"}, v.Verdict) {
				t.Fatalf("line %d: %s", n, line)
			}
			for _, k := range v.Out {
				if sent[k] || k < 1 || k > sum.Frames {
					t.Fatalf("line %d: frame %d again, or of %d: %s", n, k, sum.Frames, line)
				}
				sent[k] = true
			}
		}
		if n != sum.Packets || len(sent) != sum.Frames || d.leaked() != 0 || len(d.waiting) != 0 {
			t.Fatalf("%d lines, %d frames, %d leaked, %d wait: %+v", n, len(sent), d.leaked(), len(d.waiting), sum)
		}
	})
}
