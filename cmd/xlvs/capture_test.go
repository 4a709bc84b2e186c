package main_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"xlvs/dataplane/frametest"
	"xlvs/dataplane/notation"
	"xlvs/dataplane/pcapio"
	"xlvs/dataplane/table"
	"xlvs/testenv"
)

// kept is where the capture is kept that control/offline replays on machines without root: -capture makes it anew.
const kept = "../../control/offline/testdata/replay/"

var keep = flag.Bool("capture", false, "write lab.pcap and lab.yaml of control/offline/testdata/replay anew")

// TestCaptureOfTheLab has tcpdump capture what goes to and from a running director while curl, on the kernel's TCP, downloads and
// uploads in every mode and family. Replayed, it must give the very frames that the director sent, in either
// format, the same each time, and tshark finds no fault in them.
//
//	curl ── client ══ switch ══ director-0 │ eth0 ── director      XDP hides frames from tcpdump on eth0
//	                              tcpdump ─┘
func TestCaptureOfTheLab(t *testing.T) {
	needRoot(t)
	frametest.NeedTools(t, "tcpdump", "curl")
	w := start(t, setup{})
	dir := t.TempDir()
	conf := offlineConfig(t, w)
	fatal(t, os.WriteFile(filepath.Join(dir, "lab.yaml"), []byte(conf), 0o600))
	mac, err := w.Director.MAC("eth0")
	fatal(t, err)

	file := filepath.Join(dir, "lab.pcap")
	stop := tcpdump(t, w, file)
	curlAll(t, w, dir)
	var sent [][]byte
	// The last segments of a connection are under way when curl ends.
	until(t, "what tcpdump saw of the director is what a replay gives", func() bool {
		sent = sentBy(t, file, [6]byte(mac), w.DirectorAddr(false), w.DirectorAddr(true))
		_, _, status := inDir(t, dir, "replay", "-c", "lab.yaml", "--in", "lab.pcap", "--out", "out.pcap")
		return status == 0 && len(sent) > 0 && len(sent) == len(framesOf(t, filepath.Join(dir, "out.pcap")))
	})
	stop()
	for _, f := range frametest.Missing(framesOf(t, filepath.Join(dir, "out.pcap")), sent) {
		t.Errorf("the director sent what the replay does not give: %s", notation.Format(f))
	}
	replaysAlike(t, dir)
	if *keep {
		for _, name := range []string{"lab.pcap", "lab.yaml"} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			fatal(t, err)
			fatal(t, os.WriteFile(kept+name, b, 0o644))
		}
	}
}

// offlineConfig is the lab's configuration with what a director otherwise learns from the kernel.
func offlineConfig(t *testing.T, w *world) string {
	t.Helper()
	own, err := w.Director.MAC("eth0")
	fatal(t, err)
	conf := strings.Replace(w.Config(testenv.ConfigOptions{NoHealth: true}), "  - name: eth0\n",
		fmt.Sprintf("  - name: eth0\n    mac: %q\n    addresses: [%s/16, \"%s/64\"]\n", own, w.DirectorAddr(false), w.DirectorAddr(true)), 1)
	for _, s := range w.Servers {
		mac, err := s.MAC("eth0")
		fatal(t, err)
		for _, v6 := range []bool{false, true} {
			at := fmt.Sprintf("address: %q, ", s.Addr(v6))
			conf = strings.ReplaceAll(conf, at, fmt.Sprintf("%smac: %q, ", at, mac))
		}
	}
	return conf
}

// tcpdump captures at the switch's end of the director's cable until stop.
func tcpdump(t *testing.T, w *world, file string) (stop func()) {
	t.Helper()
	said := &lines{ready: make(chan struct{})}
	cmd := w.Switch.Command(context.WithoutCancel(t.Context()), "tcpdump", "-i", "director-0", "-n", "-s", "2048", "-B", "32768", "-U", "--immediate-mode", "-Z", "root", "-w", file, "ip or ip6")
	cmd.Stderr = said
	p, err := w.Switch.Start(cmd)
	fatal(t, err)
	select {
	case <-said.ready:
	case <-p.Done():
		t.Fatalf("tcpdump: %v: %s", p.Wait(), said.text())
	}
	return func() {
		t.Helper()
		fatal(t, p.Signal(syscall.SIGINT))
		if err := p.Wait(); err != nil || !strings.Contains(said.text(), "\n0 packets dropped by kernel") {
			t.Errorf("tcpdump: %v: %s", err, said.text())
		}
	}
}

// lines is what a process prints; ready is closed with its first line.
type lines struct {
	mu    sync.Mutex
	b     bytes.Buffer
	ready chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.b.Len() > 0 && bytes.ContainsRune(l.b.Bytes(), '\n')
	n, err := l.b.Write(p)
	if !before && bytes.ContainsRune(p, '\n') {
		close(l.ready)
	}
	return n, err
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// curlAll has curl fetch and upload through every mode and family: few enough bytes for a capture that is kept, and
// enough for several segments, which a tunnel has no room for.
func curlAll(t *testing.T, w *world, dir string) {
	t.Helper()
	fatal(t, os.WriteFile(filepath.Join(dir, "body"), payload(5000), 0o600))
	eachRow(t, w, func(t *testing.T, m table.Mode, v6 bool) {
		base := "http://" + netip.AddrPortFrom(w.VIP(m, v6), testenv.HTTPPort).String()
		for _, args := range [][]string{{base + "/bytes/7000"}, {"--data-binary", "@body", "-H", "Expect:", base + "/upload"}} {
			cmd := w.Client.Command(t.Context(), "curl", append([]string{"--silent", "--show-error", "--fail", "--globoff", "--noproxy", "*", "--max-time", "10"}, args...)...)
			var out, text bytes.Buffer
			cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &text
			if err := w.Client.Run(cmd); err != nil {
				t.Errorf("curl %v: %v: %s", args, err, &text)
			}
			if want := "5000 "; args[0] == "--data-binary" && !strings.HasPrefix(out.String(), want) || args[0] != "--data-binary" && out.Len() != 7000 {
				t.Errorf("curl %v gave %d bytes: %.40q", args, out.Len(), out.String())
			}
		}
	})
}

func framesOf(t *testing.T, file string) (frames [][]byte) {
	t.Helper()
	f, err := os.Open(file)
	fatal(t, err)
	defer f.Close()
	r, err := pcapio.NewReader(f)
	fatal(t, err)
	for {
		p, err := r.Read()
		// tcpdump may be writing the last one.
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return frames
		}
		fatal(t, err)
		frames = append(frames, p.Data)
	}
}

func sentBy(t *testing.T, file string, mac [6]byte, own ...netip.Addr) (sent [][]byte) {
	t.Helper()
	for _, f := range framesOf(t, file) {
		if frametest.Forwarded(f, mac, own...) {
			sent = append(sent, f)
		}
	}
	return sent
}

// replaysAlike replays lab.pcap twice, and as pcapng, into both formats.
func replaysAlike(t *testing.T, dir string) {
	t.Helper()
	capture, err := os.ReadFile(filepath.Join(dir, "lab.pcap"))
	fatal(t, err)
	fatal(t, os.WriteFile(filepath.Join(dir, "lab.pcapng"), frametest.Pcapng(t, capture), 0o600))
	first := map[string][]byte{}
	for _, in := range []string{"lab.pcap", "lab.pcap", "lab.pcapng"} {
		for _, out := range []string{"out.pcap", "out.pcapng"} {
			if stdout, text, status := inDir(t, dir, "replay", "-c", "lab.yaml", "--in", in, "--out", out, "--verdicts", "verdicts"); status != 0 {
				t.Fatalf("status %d: %s%s", status, stdout, text)
			}
			for _, name := range []string{out, "verdicts"} {
				b, err := os.ReadFile(filepath.Join(dir, name))
				fatal(t, err)
				if first[name] == nil {
					first[name] = b
				} else if !bytes.Equal(first[name], b) {
					t.Errorf("%s of %s is another file than before", name, in)
				}
			}
		}
	}
	t.Run("tshark", func(t *testing.T) {
		frametest.Tshark(t, first["out.pcap"])
		frametest.Tshark(t, first["out.pcapng"])
	})
}
