package offline

import (
	"bytes"
	"errors"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"xlvs/control/config"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/notation"
	"xlvs/dataplane/pcapio"
)

// testdata/replay/lab.pcap is what tcpdump saw on the cable of a running director while curl, with the kernel's TCP, fetched and
// uploaded through all modes and families; lab.yaml is that director's configuration. TestCaptureOfTheLab in cmd/xlvs
// makes both anew: go test ./cmd/xlvs -run TestCaptureOfTheLab -capture. Senders left transport checksums unfinished, as
// they do on virtual interfaces.
const (
	labCapture = "testdata/replay/lab.pcap"
	labConfig  = "testdata/replay/lab.yaml"
)

// As the capture was made, a replay gives the very frames that the running director sent, which are in it.
func TestCaptureOfTheLab(t *testing.T) {
	capture, text := labFiles(t)
	conf, err := config.Parse(labConfig, text)
	fatal(t, err)
	in, err := pcapio.NewReader(bytes.NewReader(capture))
	fatal(t, err)
	var sent [][]byte
	for _, f := range readFrames(t, in) {
		if frametest.Forwarded(f, conf.Interfaces[0].MAC, conf.Interfaces[0].Addresses[0].Addr(), conf.Interfaces[0].Addresses[1].Addr()) {
			sent = append(sent, f)
		}
	}
	out, _ := replayFile(t, conf, capture, pcapio.Pcap)
	again, err := pcapio.NewReader(bytes.NewReader(out))
	fatal(t, err)
	frames := readFrames(t, again)
	if len(frames) != len(sent) || len(sent) < 100 {
		t.Fatalf("%d frames, and the director sent %d", len(frames), len(sent))
	}
	for _, f := range frametest.Missing(frames, sent) {
		t.Errorf("the director sent what the replay does not give: %s", notation.Format(f))
	}
}

var anyMode = regexp.MustCompile("forward: (dr|tun|nat)")

// The capture replays with each service in the mode that it had, and with all in one: the same files twice and from both formats,
// every connection a flow, and nothing in them that is malformed or has a wrong checksum.
func TestCaptureInEveryMode(t *testing.T) {
	capture, text := labFiles(t)
	pcapng := frametest.Pcapng(t, capture)
	for _, mode := range []string{"as it was", "dr", "tun", "nat"} {
		t.Run(mode, func(t *testing.T) {
			conf, err := config.Parse(labConfig, inMode(text, mode))
			fatal(t, err)
			for name, f := range map[string]pcapio.Format{"pcap": pcapio.Pcap, "pcapng": pcapio.Pcapng} {
				out, verdicts := replayFile(t, conf, capture, f)
				for _, again := range [][]byte{capture, pcapng} {
					if o, v := replayFile(t, conf, again, f); !bytes.Equal(out, o) || !bytes.Equal(verdicts, v) {
						t.Error("not the same a second time, or from pcapng")
					}
				}
				if n := strings.Count(string(verdicts), `"flow":"new"`); n != 12 {
					t.Errorf("%d flows, but curl made 12 connections", n)
				}
				checkFrames(t, out)
				t.Run("tshark of "+name, func(t *testing.T) { frametest.Tshark(t, out) })
			}
		})
	}
}

// inMode makes all services forward in a mode. Only NAT can translate ports, as that of the lab's own NAT services does.
func inMode(text []byte, mode string) []byte {
	if mode == "as it was" {
		return text
	}
	text = anyMode.ReplaceAll(text, []byte("forward: "+mode))
	if mode != "nat" {
		text = regexp.MustCompile(", port: [0-9]+ }").ReplaceAll(text, []byte(" }"))
	}
	return text
}

func labFiles(t *testing.T) (capture, conf []byte) {
	t.Helper()
	capture, err := os.ReadFile(labCapture)
	fatal(t, err)
	conf, err = os.ReadFile(labConfig)
	fatal(t, err)
	return capture, conf
}

func replayFile(t *testing.T, conf *config.Config, capture []byte, f pcapio.Format) (out, verdicts []byte) {
	t.Helper()
	d, err := New(conf, Options{Flows: caseFlows})
	fatal(t, err)
	defer func() { fatal(t, d.Close()) }()
	in, err := pcapio.NewReader(bytes.NewReader(capture))
	fatal(t, err)
	var file, lines bytes.Buffer
	w, err := pcapio.NewWriter(&file, f, d.Interfaces())
	fatal(t, err)
	_, err = Replay(d, in, w, &lines)
	fatal(t, err)
	fatal(t, w.Flush())
	return file.Bytes(), lines.Bytes()
}

func readFrames(t *testing.T, r *pcapio.Reader) (frames [][]byte) {
	t.Helper()
	for {
		p, err := r.Read()
		if errors.Is(err, io.EOF) {
			return frames
		}
		fatal(t, err)
		frames = append(frames, p.Data)
	}
}

// checkFrames looks for malformed packets and wrong checksums by a checker of our own.
func checkFrames(t *testing.T, capture []byte) {
	t.Helper()
	r, err := pcapio.NewReader(bytes.NewReader(capture))
	fatal(t, err)
	for _, f := range readFrames(t, r) {
		if _, err := frametest.Decode(f); err != nil {
			t.Errorf("%v: %s", err, notation.Format(f))
		}
	}
}
