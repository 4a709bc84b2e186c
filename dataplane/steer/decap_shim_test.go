package steer

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

const guePort = 6080

func gue(proto uint8, inner []byte) []byte {
	return udpTo(50000, guePort, append([]byte{0, proto, 0, 0}, inner...)...)
}

func gre(sum bool, etherType uint16, inner []byte) []byte {
	b := []byte{0, 0}
	if sum {
		b[0] = 0x80
	}
	b = binary.BigEndian.AppendUint16(b, etherType)
	if sum {
		b = append(b, 0x12, 0x34, 0, 0)
	}
	return append(b, inner...)
}

// shims are all ways to carry an inner packet; each returns the outer header's protocol and what it carries.
func shims() map[string]func(v6 bool, inner []byte) (uint8, []byte) {
	number := func(v6 bool) uint8 { return map[bool]uint8{false: 4, true: 41}[v6] }
	etherType := func(v6 bool) uint16 { return map[bool]uint16{false: etherIPv4, true: etherIPv6}[v6] }
	return map[string]func(bool, []byte) (uint8, []byte){
		"gue":          func(v6 bool, p []byte) (uint8, []byte) { return 17, gue(number(v6), p) },
		"gre":          func(v6 bool, p []byte) (uint8, []byte) { return 47, gre(false, etherType(v6), p) },
		"gre with sum": func(v6 bool, p []byte) (uint8, []byte) { return 47, gre(true, etherType(v6), p) },
	}
}

func outer(v6 bool, proto uint8, payload []byte) []byte {
	if v6 {
		return l2(etherIPv6, ip6(director6, server6, proto, payload))
	}
	return l2(etherIPv4, ip4(director4, server4, proto, payload))
}

func TestDecapGUEAndGRE(t *testing.T) {
	d := newDecap(t)
	must(t, d.AcceptGUE(guePort))
	for name, shim := range shims() {
		for combination := range 4 {
			outerV6, innerV6 := combination&1 != 0, combination&2 != 0
			for _, tags := range tagsOfFrames {
				for outerECN := range byte(4) {
					what := fmt.Sprintf("%s, outer v6 %t, inner v6 %t, tags %#x, outer ECN %d", name, outerV6, innerV6, tags, outerECN)
					etherType, inner := innerPacket(innerV6)
					setECN(inner, 2)
					proto, payload := shim(innerV6, inner)
					frame := outer(outerV6, proto, payload)
					setECN(frame[14:], outerECN)
					want := l2(etherType, slices.Clone(inner))
					setECN(want[14:], [4]byte{2, 1, 2, 3}[outerECN])
					for _, tpid := range tags {
						frame, want = tagged(tpid, frame), tagged(tpid, want)
					}
					checkDecap(t, d, what, frame, want)
				}
			}
		}
	}
}

func TestDecapGUEAndGREPassUntouched(t *testing.T) {
	d := newDecap(t)
	_, inner := innerPacket(false)
	_, inner6 := innerPacket(true)
	without := outer(false, 17, gue(4, inner))
	if action, out, reason := d.run(t, without); action != xdpPass || reason != DecapPassOther || !bytes.Equal(out, without) {
		t.Errorf("GUE without AcceptGUE: action %d, %s", action, reason)
	}
	must(t, d.AcceptGUE(guePort))
	u := func(payload []byte) []byte { return outer(false, 17, payload) }
	g := func(payload []byte) []byte { return outer(false, 47, payload) }
	good := gue(4, inner)
	for _, c := range []struct {
		name  string
		frame []byte
		want  DecapReason
	}{
		{"another UDP port", u(udpTo(50000, guePort+1, good[8:]...)), DecapPassOther},
		{"GUE from its port, not to it", u(udpTo(guePort, 50000, good[8:]...)), DecapPassOther},
		{"another outer address", l2(etherIPv4, ip4(director4, "10.0.0.12", 17, good)), DecapPassOther},
		{"GUE variant 1", u(withByte(good, 8, 0x45)), DecapPassOther},
		{"GUE control message", u(withByte(good, 8, 0x20)), DecapPassOther},
		{"GUE with fields", u(withByte(good, 8, 1)), DecapPassOther},
		{"GUE with flags", u(withByte(good, 10, 1)), DecapPassOther},
		{"GUE with TCP in it", u(withByte(good, 9, 6)), DecapPassOther},
		{"GUE with v6 as v4", u(gue(4, inner6)), DecapPassMalformed},
		{"GUE for no VIP", u(gue(4, ip4(client4, "192.0.2.1", 6, tcpTo(1, 80)))), DecapPassInner},
		{"GUE fragment", l2(etherIPv4, ip4With(director4, server4, 17, 0x2000, nil, good)), DecapPassFragment},
		{"UDP length beyond the packet", u(withByte(good, 5, byte(len(good)+1))), DecapPassMalformed},
		{"UDP length without GUE", u(withByte(good, 5, 11)), DecapPassMalformed},
		{"UDP length below its header", u(withByte(good, 5, 7)), DecapPassMalformed},
		{"UDP cut", u(good[:7]), DecapPassMalformed},
		{"GUE cut", u(withByte(good[:11], 5, 11)), DecapPassMalformed},
		{"inner beyond UDP's length", u(withByte(good, 5, byte(len(good)-1))), DecapPassMalformed},
		{"GRE key", g(withByte(gre(false, etherIPv4, inner), 0, 0x20)), DecapPassOther},
		{"GRE sequence number", g(withByte(gre(false, etherIPv4, inner), 0, 0x10)), DecapPassOther},
		{"GRE version 1", g(withByte(gre(false, etherIPv4, inner), 1, 1)), DecapPassOther},
		{"GRE with Ethernet", g(gre(false, 0x6558, inner)), DecapPassOther},
		{"GRE with v6 as v4", g(gre(false, etherIPv4, inner6)), DecapPassMalformed},
		{"GRE for no VIP", g(gre(true, etherIPv4, ip4(client4, "192.0.2.1", 6, tcpTo(1, 80)))), DecapPassInner},
		{"GRE cut", g(gre(false, etherIPv4, inner)[:3]), DecapPassMalformed},
		{"GRE with its checksum cut", g(gre(true, etherIPv4, inner)[:7]), DecapPassMalformed},
		{"GRE fragment", l2(etherIPv4, ip4With(director4, server4, 47, 0x2000, nil, gre(false, etherIPv4, inner))), DecapPassFragment},
	} {
		action, out, reason := d.run(t, c.frame)
		if action != xdpPass || reason != c.want || !bytes.Equal(out, c.frame) {
			t.Errorf("%s: action %d, %s, want %s; changed: %t", c.name, action, reason, c.want, !bytes.Equal(out, c.frame))
		}
	}
}

// Damaged frames are stripped to an inner packet for a VIP, or come out as they were.
func TestDecapDamagedFrames(t *testing.T) {
	d := newDecap(t)
	must(t, d.AcceptGUE(guePort))
	var frames [][]byte
	for _, shim := range shims() {
		for combination := range 4 {
			outerV6, innerV6 := combination&1 != 0, combination&2 != 0
			_, inner := innerPacket(innerV6)
			proto, payload := shim(innerV6, inner)
			frames = append(frames, outer(outerV6, proto, payload), tunnelled(outerV6, innerV6, inner))
			frames = append(frames, tagged(etherSVLAN, tagged(etherVLAN, outer(outerV6, proto, payload))))
		}
	}
	rng := rand.New(rand.NewPCG(3, 3))
	stripped := 0
	for range 20000 {
		frame := mutate(rng, frames[rng.IntN(len(frames))])
		if len(frame) <= 14 {
			continue
		}
		action, out, reason := d.run(t, frame)
		switch {
		case reason == DecapDropError:
			t.Fatalf("the frame's start could not be moved:\n% x", frame)
		case reason != DecapStripped:
			if !bytes.Equal(out, frame) {
				t.Fatalf("%s, and changed:\n% x\n% x", reason, frame, out)
			}
		case action != xdpPass || len(out) >= len(frame) || !bytes.HasSuffix(frame, out[max(len(out)-20, 0):]):
			t.Fatalf("action %d:\n% x\n% x", action, frame, out)
		default:
			stripped++
		}
	}
	if stripped < 1000 {
		t.Errorf("only %d damaged frames were stripped: the test is too weak", stripped)
	}
}
