package control

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"xlvs/dataplane/packet"
	"xlvs/dataplane/steer"
	"xlvs/dataplane/table"
)

const shaped = `  - name: prefix
    address: 10.1.7.0/28
    port: 80
    protocol: tcp
    forward: tun
    tunnel: { type: gue, port: 7000 }
    persistence: { timeout: 90s, mask: 24 }
    backends:
      - { name: a, address: 10.1.0.1 }
      - { name: six, address: "2001:db8::6" }
  - name: within
    address: 10.1.7.4
    port: 80
    protocol: tcp
    forward: tun
    tunnel: { type: gre, checksum: true }
    hash: source
    backends: [{ name: a, address: 10.1.0.1 }]
  - name: six
    address: "2001:db8:f::/112"
    port: 443
    protocol: udp
    forward: nat
    announce: off
    quic: { server_id_length: 2, config_id: 4 }
    backends: [{ name: q, address: "2001:db8::7", server_id: "0a0b" }]
  - name: ops
    address: 10.1.7.30
    port: 514
    protocol: udp
    forward: dr
    one_packet: true
    backends: [{ name: o, address: 10.1.0.1 }]
`

// What a service's configuration says of its shape is what workers, the steering program and announcements get.
func TestShapes(t *testing.T) {
	w := started(t, services("\n"+shaped))
	v, b := w.entry("prefix", "a")
	if v.Bits != 124 || v.Persist != 90_000 || v.Mask != table.MaskBits(120) || v.BySource || v.OnePacket || v.QUIC != nil || !v.Singular {
		t.Errorf("prefix: %+v", v)
	}
	if b.Encap != table.GUE || b.EncapTo != 7000 || b.EncapSum {
		t.Errorf("GUE over IPv4: %+v", b)
	}
	if _, b := w.entry("prefix", "six"); b.Encap != table.GUE || !b.EncapSum {
		t.Errorf("GUE over IPv6 has a checksum: %+v", b)
	}
	v, b = w.entry("within", "a")
	if v.Bits != 0 || !v.BySource || v.Mask != table.MaskBits(128) || v.Persist != 0 || v.Singular || b.Encap != table.GRE || !b.EncapSum || b.EncapTo != 0 {
		t.Errorf("within: %+v, %+v", v, b)
	}
	v, b = w.entry("six", "q")
	if v.Bits != 112 || v.QUIC == nil {
		t.Fatalf("six: %+v", v)
	}
	cid := []byte{0x40, 4<<5 | 7, 0x0a, 0x0b, 0, 0, 0, 0, 0}
	if got := v.QUIC.Server(cid); got != int32(b.Ref.Slot()) {
		t.Errorf("the connection ID leads to backend %d instead of %d", got, b.Ref.Slot())
	}
	if v, _ := w.entry("ops", "o"); !v.OnePacket || !v.Singular {
		t.Errorf("ops: %+v", v)
	}
	s := w.engine.Snapshot()
	for dst, want := range map[string]string{"10.1.7.0": "prefix", "10.1.7.15": "prefix", "10.1.7.4": "within", "10.1.7.16": ""} {
		got := ""
		if slot := s.Lookup(packet.FromNetip(netip.MustParseAddr(dst)), 80, packet.ProtoTCP); slot >= 0 {
			got = s.Services[slot].Name
		}
		if got != want {
			t.Errorf("%s is service %q, want %q", dst, got, want)
		}
	}
	rules := w.rules(w.services)
	for _, k := range []steer.Key{
		{Addr: netip.MustParseAddr("10.1.7.0"), Bits: 28, Port: 80, Proto: 6}, {Addr: netip.MustParseAddr("10.1.7.4"), Port: 80, Proto: 6},
		{Addr: netip.MustParseAddr("2001:db8:f::"), Bits: 112, Port: 443, Proto: 17},
	} {
		if !slices.Contains(rules.Services, k) {
			t.Errorf("the steering rules lack %+v: %+v", k, rules.Services)
		}
	}
	var want []string
	for n := range 16 {
		want = append(want, fmt.Sprintf("10.1.7.%d", n))
	}
	want = append(want, "10.1.7.30")
	var got []string
	for _, a := range w.ann.vips {
		got = append(got, a.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("answered for %v, want %v", got, want)
	}
}

// A change of shape leaves flows where they are: the service is the same one. A change of its addresses makes another.
func TestShapeChanges(t *testing.T) {
	const before = `  - name: s
    address: 10.1.7.0/28
    port: 80
    protocol: tcp
    forward: tun
    backends: [{ name: a, address: 10.1.0.1 }]
`
	w := started(t, services("\n"+before))
	v, b := w.entry("s", "a")
	for _, c := range []struct {
		old, new string
		same     bool
	}{
		{"forward: tun\n", "forward: tun\n    tunnel: { type: gre }\n", true},
		{"forward: tun\n", "forward: tun\n    persistence: {}\n", true},
		{"forward: tun\n", "forward: tun\n    hash: source\n", true},
		{"10.1.7.0/28", "10.1.7.0/29", false},
		{"10.1.7.0/28", "10.1.7.0", false},
	} {
		must(t, w.reload(parse(t, services("\n"+strings.Replace(before, c.old, c.new, 1)))))
		if nv, nb := w.entry("s", "a"); (nv.Ref == v.Ref && nb.Ref == b.Ref) != c.same {
			t.Errorf("after %s: the same service: %v", strings.Replace(before, c.old, c.new, 1), !c.same)
		}
		must(t, w.reload(parse(t, services("\n"+before))))
		v, b = w.entry("s", "a")
	}
}
