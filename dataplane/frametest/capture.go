package frametest

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// Forwarded reports whether a frame that was captured beside a director is one that its workers sent: it comes from the director's MAC
// address, and is neither neighbour discovery nor a connection of the director's own host (to whose addresses own are).
func Forwarded(frame []byte, mac [6]byte, own ...netip.Addr) bool {
	const ip6, tcp, udp, icmp6, firstND, lastND = 0x86dd, 6, 17, 58, 133, 137
	if len(frame) < 62 || [6]byte(frame[6:12]) != mac {
		return false
	}
	proto, src, dst := frame[23], netip.AddrFrom4([4]byte(frame[26:])), netip.AddrFrom4([4]byte(frame[30:]))
	switch uint16(frame[12])<<8 | uint16(frame[13]) {
	case 0x0800:
	case ip6:
		proto, src, dst = frame[20], netip.AddrFrom16([16]byte(frame[22:])), netip.AddrFrom16([16]byte(frame[38:]))
		if kind := frame[54]; proto == icmp6 && kind >= firstND && kind <= lastND || proto == 0 { // 0: multicast listener reports
			return false
		}
	default:
		return false
	}
	return proto != tcp && proto != udp || !slices.Contains(own, src) && !slices.Contains(own, dst)
}

// Missing returns the frames of want that got has not, each as often as it is missing. Order says nothing: what several CPUs send to one
// host is captured before it queues up there.
func Missing(got, want [][]byte) (missing [][]byte) {
	n := map[string]int{}
	for _, f := range got {
		n[string(f)]++
	}
	for _, f := range want {
		if n[string(f)]--; n[string(f)] < 0 {
			missing = append(missing, f)
		}
	}
	return missing
}

// bad is what tshark is to find: malformed packets, and wrong checksums of any layer. Of what an ICMP error quotes only the beginning
// is there, which tshark sums up as if it were the whole; so TCP's and UDP's are not asked for in those.
const bad = "_ws.malformed || ip.checksum.status == 0 || icmp.checksum.status == 0 || icmpv6.checksum.status == 0 || " +
	"(tcp.checksum.status == 0 || udp.checksum.status == 0) && !icmp && !icmpv6"

// Tshark asks tshark about a capture, in which it must find nothing malformed and no wrong checksum. Without a tshark the
// test is skipped, and in CI it fails.
func Tshark(t testing.TB, capture []byte) {
	t.Helper()
	if found := tsharkFinds(t, capture); len(found) > 0 {
		t.Errorf("tshark finds:\n%s", found)
	}
}

func tsharkFinds(t testing.TB, capture []byte) []byte {
	t.Helper()
	NeedTools(t, "tshark")
	name := filepath.Join(t.TempDir(), "capture")
	if err := os.WriteFile(name, capture, 0o600); err != nil {
		t.Fatal(err)
	}
	// Each packet is judged by itself: streams in which a client, told of a smaller path MTU, repeats itself in smaller segments are not malformed.
	cmd := exec.Command("tshark", "-n", "-r", name, "-o", "tcp.desegment_tcp_streams:FALSE", "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-Y", bad)
	var said bytes.Buffer
	cmd.Stderr = &said
	found, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v: %s", err, &said)
	}
	return found
}

// NeedTools skips a test on a machine that lacks programs of others', and fails it in CI, which installs them.
func NeedTools(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		if why := "needs " + name + ", which is not installed"; os.Getenv("CI") == "true" {
			t.Fatal(why)
		} else {
			t.Skip(why)
		}
	}
}

// Pcapng is a capture of Ethernet in the other format, written by a library of others'.
func Pcapng(t testing.TB, capture []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	r, err := pcapgo.NewReader(bytes.NewReader(capture))
	fatal(t, err)
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

func fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
