package frametest

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

var spec = Spec{Src: netip.MustParseAddrPort("10.0.0.100:40000"), Dst: netip.MustParseAddrPort("10.0.0.11:80"), UDP: true, Payload: []byte("twenty bytes at least")}

// What tshark is asked does find what is wrong: else that it finds nothing would say nothing.
func TestTsharkFinds(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(b []byte)
		bad  bool
	}{
		{"nothing wrong", func([]byte) {}, false},
		{"IPv4 header", func(b []byte) { b[25] ^= 1 }, true},
		{"payload", func(b []byte) { b[50] ^= 1 }, true},
		{"UDP length", func(b []byte) { b[39] = 5 }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := spec.Build()
			c.edit(b)
			var file bytes.Buffer
			w := pcapgo.NewWriter(&file)
			for _, err := range []error{w.WriteFileHeader(65535, layers.LinkTypeEthernet),
				w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(1, 0), CaptureLength: len(b), Length: len(b)}, b)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			if found := tsharkFinds(t, file.Bytes()); len(found) > 0 != c.bad || c.bad && strings.Count(string(found), "\n") != 1 {
				t.Errorf("tshark finds %q", found)
			}
		})
	}
}

func TestMissing(t *testing.T) {
	a, b := []byte("a"), []byte("b")
	if m := Missing([][]byte{b, a}, [][]byte{a, b}); m != nil {
		t.Errorf("in another order: %q is missing", m)
	}
	if m := Missing([][]byte{a}, [][]byte{a, a, b}); len(m) != 2 || string(m[0]) != "a" || string(m[1]) != "b" {
		t.Errorf("%q is missing, want a and b", m)
	}
}

func TestForwarded(t *testing.T) {
	b := spec.Build()
	mac := [6]byte(b[6:12])
	for _, c := range []struct {
		name string
		own  []netip.Addr
		edit func(b []byte)
		want bool
	}{
		{"a client's packet", nil, func([]byte) {}, true},
		{"from another host", nil, func(b []byte) { b[11]++ }, false},
		{"from the director's own stack", []netip.Addr{spec.Src.Addr()}, func([]byte) {}, false},
		{"to it", []netip.Addr{spec.Dst.Addr()}, func([]byte) {}, false},
		{"a tunnel of its", []netip.Addr{spec.Src.Addr()}, func(b []byte) { b[23] = 4 }, true},
		{"ARP", nil, func(b []byte) { b[13] = 6 }, false},
	} {
		f := bytes.Clone(b)
		c.edit(f)
		if got := Forwarded(f, mac, c.own...); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
