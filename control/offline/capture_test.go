package offline

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"xlvs/control/config"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/notation"
	"xlvs/dataplane/pcapio"
)

// curlConfig has the addresses of testdata/replay/curl.pcap: what tcpdump saw on the client's end of a veth pair while curl fetched
// and uploaded a page, over IPv4 and IPv6. Its kernel left transport checksums unfinished, as it does on virtual interfaces.
const curlConfig = `
interfaces:
  - { name: eth0, mac: "02:00:00:00:00:01", addresses: [10.0.0.1/24, "2001:db8:1::1/64"] }
services:
  - { name: web4, address: 203.0.113.10, port: 80, protocol: tcp, forward: %[1]s, backends: [{ name: a, address: 10.0.0.11 }, { name: b, address: 10.0.0.12 }] }
  - { name: web6, address: "2001:db8:f::10", port: 80, protocol: tcp, forward: %[1]s, backends: [{ name: a, address: "2001:db8:1::11" }, { name: b, address: "2001:db8:1::12" }] }
`

// asPcapng is the same capture in the other format.
func asPcapng(t *testing.T, capture []byte) []byte {
	t.Helper()
	r, err := pcapgo.NewReader(bytes.NewReader(capture))
	fatal(t, err)
	var b bytes.Buffer
	w, err := pcapgo.NewNgWriter(&b, layers.LinkTypeEthernet)
	fatal(t, err)
	for {
		data, ci, err := r.ReadPacketData()
		if errors.Is(err, io.EOF) {
			fatal(t, w.Flush())
			return b.Bytes()
		}
		fatal(t, err)
		fatal(t, w.WritePacket(gopacket.CaptureInfo{Timestamp: ci.Timestamp, CaptureLength: ci.CaptureLength, Length: ci.Length}, data))
	}
}

// A capture that a kernel made of real connections replays in every mode: the same file twice and from both formats, every
// packet of a connection to the same backend, and nothing in it that is malformed or has a wrong checksum.
func TestKernelMadeCapture(t *testing.T) {
	capture, err := os.ReadFile("testdata/replay/curl.pcap")
	fatal(t, err)
	for _, mode := range []string{"dr", "tun", "nat"} {
		t.Run(mode, func(t *testing.T) {
			conf, err := config.Parse("curl", fmt.Appendf(nil, curlConfig, mode))
			fatal(t, err)
			out, verdicts := replayFile(t, conf, capture)
			for _, again := range [][]byte{capture, asPcapng(t, capture)} {
				if o, v := replayFile(t, conf, again); !bytes.Equal(out, o) || !bytes.Equal(verdicts, v) {
					t.Error("not the same a second time, or from pcapng")
				}
			}
			if n := strings.Count(string(verdicts), `"flow":"new"`); n != 3 {
				t.Errorf("%d flows, but curl made 3 connections", n)
			}
			if n := strings.Count(string(verdicts), `"verdict":"forward"`); n < 15 {
				t.Errorf("only %d packets were forwarded", n)
			}
			checkCapture(t, out)
		})
	}
}

func replayFile(t *testing.T, conf *config.Config, capture []byte) (out, verdicts []byte) {
	t.Helper()
	d, err := New(conf, Options{Flows: caseFlows})
	fatal(t, err)
	defer func() { fatal(t, d.Close()) }()
	in, err := pcapio.NewReader(bytes.NewReader(capture))
	fatal(t, err)
	var file, lines bytes.Buffer
	w, err := pcapio.NewWriter(&file, pcapio.Pcap, d.Interfaces())
	fatal(t, err)
	_, err = Replay(d, in, w, &lines)
	fatal(t, err)
	fatal(t, w.Flush())
	return file.Bytes(), lines.Bytes()
}

// checkCapture looks for malformed packets and wrong checksums, by a checker of our own and, where it is installed, by tshark.
func checkCapture(t *testing.T, capture []byte) {
	t.Helper()
	r, err := pcapio.NewReader(bytes.NewReader(capture))
	fatal(t, err)
	for {
		p, err := r.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		fatal(t, err)
		if _, err := frametest.Decode(p.Data); err != nil {
			t.Errorf("%v: %s", err, notation.Format(p.Data))
		}
	}
	tshark, err := exec.LookPath("tshark")
	if err != nil {
		t.Log("tshark is not installed: not asked")
		return
	}
	name := filepath.Join(t.TempDir(), "out.pcap")
	fatal(t, os.WriteFile(name, capture, 0o600))
	cmd := exec.Command(tshark, "-r", name, "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE",
		"-Y", "_ws.malformed || ip.checksum.status == 0 || tcp.checksum.status == 0 || udp.checksum.status == 0")
	var said bytes.Buffer
	cmd.Stderr = &said
	bad, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, &said)
	}
	if len(bad) > 0 {
		t.Errorf("tshark finds:\n%s", bad)
	}
}
