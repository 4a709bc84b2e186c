package main_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"xlvs/control/offline"
	"xlvs/dataplane/notation"
	"xlvs/dataplane/pcapio"
)

const replayConfig = `
interfaces:
  - { name: eth0, mac: "02:00:00:00:00:01", addresses: [10.0.0.1/24] }
services:
  - { name: web, address: 203.0.113.10, port: 80, protocol: tcp, forward: tun, backends: [{ name: web1, address: 10.0.0.11 }] }
`

// replayDir makes a directory with a configuration and two captures, one of which is not of Ethernet.
func replayDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	fatal(t, os.WriteFile(filepath.Join(dir, "d.yaml"), []byte(replayConfig), 0o600))
	for name, link := range map[string]layers.LinkType{"in.pcap": layers.LinkTypeEthernet, "cooked.pcap": layers.LinkTypeLinuxSLL} {
		var b bytes.Buffer
		w := pcapgo.NewWriter(&b)
		fatal(t, w.WriteFileHeader(65535, link))
		for i, flags := range []string{"S", "A", "FA"} {
			frame, err := notation.Parse("eth 02:00:00:00:00:99 > 02:00:00:00:00:01 / ip 198.51.100.7 > 203.0.113.10 / tcp 40000 > 80 " + flags)
			fatal(t, err)
			fatal(t, w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(int64(i), 0), CaptureLength: len(frame), Length: len(frame)}, frame))
		}
		fatal(t, os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o600))
	}
	return dir
}

// inDir runs the program in a directory.
func inDir(t *testing.T, dir string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := exec.Command(program, args...)
	var out, text bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &out, &text
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), text.String(), cmd.ProcessState.ExitCode()
}

// TestReplay replays a capture twice into both formats.
func TestReplay(t *testing.T) {
	dir := replayDir(t)
	var first map[string][]byte
	for range 2 {
		files := map[string][]byte{}
		for _, name := range []string{"out.pcap", "out.pcapng"} {
			out, text, status := inDir(t, dir, "replay", "-c", "d.yaml", "--in", "in.pcap", "--out", name, "--verdicts", "v.jsonl")
			if status != 0 || text != "" || out != "3 packets, 3 frames sent: forward 3\n" {
				t.Fatalf("status %d: %s%s", status, out, text)
			}
			for _, f := range []string{name, "v.jsonl"} {
				b, err := os.ReadFile(filepath.Join(dir, f))
				fatal(t, err)
				files[f] = b
			}
		}
		if first == nil {
			first = files
			continue
		}
		for name := range files {
			if !bytes.Equal(files[name], first[name]) {
				t.Errorf("%s is another file the second time", name)
			}
		}
	}
	for i, line := range strings.Split(strings.TrimSpace(string(first["v.jsonl"])), "\n") {
		var v offline.Verdict
		fatal(t, json.Unmarshal([]byte(line), &v))
		if v.N != i+1 || v.Verdict != "forward" || v.Backend != "web1" || len(v.Out) != 1 || v.Out[0] != i+1 {
			t.Errorf("%+v", v)
		}
	}
	for _, name := range []string{"out.pcap", "out.pcapng"} {
		r, err := pcapio.NewReader(bytes.NewReader(first[name]))
		fatal(t, err)
		p, err := r.Read()
		fatal(t, err)
		if s := notation.Format(p.Data); !strings.HasSuffix(s, "/ ip 198.51.100.7 > 203.0.113.10 ttl=63 / tcp 40000 > 80 S") || !strings.Contains(s, "ip 10.0.0.1 > 10.0.0.11") {
			t.Errorf("%s: %s", name, s)
		}
	}
}

// TestReplayRefuses tries what cannot be replayed.
func TestReplayRefuses(t *testing.T) {
	dir := replayDir(t)
	whole, err := os.ReadFile(filepath.Join(dir, "in.pcap"))
	fatal(t, err)
	fatal(t, os.WriteFile(filepath.Join(dir, "short.pcap"), whole[:23], 0o600))
	fatal(t, os.WriteFile(filepath.Join(dir, "empty.pcap"), nil, 0o600))
	for _, c := range []struct {
		args   string
		status int
		want   string
	}{
		{"-c d.yaml --in in.pcap", 2, "replay needs a capture to read and one to write"},
		{"--in in.pcap --out out.pcap", 2, "replay needs a configuration file"},
		{"-c d.yaml --in in.pcap --out out.txt", 2, `the extension ".txt" names no capture format; use .pcap or .pcapng`},
		{"-c d.yaml --in in.pcap --out in.pcap", 2, "would be overwritten"},
		{"-c d.yaml --in in.pcap --out out.pcap --verdicts in.pcap", 2, "would be overwritten"},
		{"-c d.yaml --in in.pcap --out out.pcap --verdicts d.yaml", 2, "would be overwritten"},
		{"-c d.yaml --in in.pcap --out out.pcap --verdicts out.pcap", 2, "would be overwritten"},
		{"-c d.yaml --in in.pcap --out out.pcap --down web7", 2, "no backend is called web7"},
		{"-c d.yaml --in cooked.pcap --out out.pcap", 1, "cooked.pcap: the capture is of link type"},
		{"-c d.yaml --in d.yaml --out out.pcap", 1, "d.yaml: neither a pcap nor a pcapng file"},
		{"-c d.yaml --in none.pcap --out out.pcap", 1, "cannot read the capture: open none.pcap"},
		{"-c d.yaml --in in.pcap --out none/out.pcap", 1, "cannot write: open none/out.pcap"},
		{"-c d.yaml --in . --out out.pcap", 2, ". is a directory; --in takes a capture file"},
		{"-c d.yaml --in short.pcap --out out.pcap", 1, "short.pcap: it is too short to be a capture (23 bytes)"},
		{"-c d.yaml --in empty.pcap --out out.pcap", 1, "empty.pcap: it is empty"},
		{"-c none.yaml --in in.pcap --out out.pcap", 1, "cannot read the configuration"},
	} {
		out, text, status := inDir(t, dir, append([]string{"replay"}, strings.Fields(c.args)...)...)
		if status != c.status || !strings.Contains(text, c.want) || out != "" || strings.Count(text, "\n") != 1 {
			t.Errorf("replay %s: status %d, want %d: %s%s", c.args, status, c.status, out, text)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "in.pcap")); err != nil || len(b) < 100 {
		t.Errorf("the input was touched: %d bytes, %v", len(b), err)
	}
}

// TestReplayOfWhatIsLeft replays captures that end within a packet or are damaged there: what came before gives the same as alone,
// and the summary and the exit status both tell.
func TestReplayOfWhatIsLeft(t *testing.T) {
	dir := replayDir(t)
	whole, err := os.ReadFile(filepath.Join(dir, "in.pcap"))
	fatal(t, err)
	record := (len(whole) - 24) / 3
	damaged := bytes.Clone(whole)
	damaged[24+2*record+11] = 0x7f // the highest byte of the third one's length
	for _, c := range []struct {
		name, problem string
		capture       []byte
	}{
		{"alone.pcap", "", whole[:24+2*record]},
		{"cut.pcap", "packet 3: the file ends within it: the capture was cut short", whole[:len(whole)-1]},
		{"header.pcap", "packet 3: the file ends within it: the capture was cut short", whole[:24+2*record+1]},
		{"damaged.pcap", "packet 3: it would have ", damaged},
	} {
		fatal(t, os.WriteFile(filepath.Join(dir, c.name), c.capture, 0o600))
		out, text, status := inDir(t, dir, "replay", "-c", "d.yaml", "--in", c.name, "--out", "of."+c.name, "--verdicts", c.name+".jsonl")
		want := 0
		if c.problem != "" {
			want = 1
		}
		if out != "2 packets, 2 frames sent: forward 2\n" || status != want || !strings.Contains(text, c.problem) || (text == "") != (want == 0) {
			t.Errorf("%s: status %d: %s%s", c.name, status, out, text)
		}
		for _, pair := range [][2]string{{"of." + c.name, "of.alone.pcap"}, {c.name + ".jsonl", "alone.pcap.jsonl"}} {
			got, err := os.ReadFile(filepath.Join(dir, pair[0]))
			fatal(t, err)
			want, err := os.ReadFile(filepath.Join(dir, pair[1]))
			fatal(t, err)
			if !bytes.Equal(got, want) || len(got) == 0 {
				t.Errorf("%s: %s is not as from the whole packets alone", c.name, pair[0])
			}
		}
	}
}

// TestReplayWithoutRoom writes to a full device.
func TestReplayWithoutRoom(t *testing.T) {
	dir := replayDir(t)
	fatal(t, os.Symlink("/dev/full", filepath.Join(dir, "full.pcap")))
	for _, args := range []string{"--out full.pcap", "--out out.pcap --verdicts full.pcap"} {
		out, text, status := inDir(t, dir, append(strings.Fields("replay -c d.yaml --in in.pcap"), strings.Fields(args)...)...)
		if status != 1 || out != "" || !strings.Contains(text, "no space left on device") || !strings.Contains(text, "full.pcap") {
			t.Errorf("%s: status %d: %s%s", args, status, out, text)
		}
	}
}
