package steer

import (
	"net/netip"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// TestRemembersServices takes a VIP from under the program, and sees that it asked the rules once, and asks again when told to.
func TestRemembersServices(t *testing.T) {
	s, a := newSteerer(t, testRules())
	must(t, a.SetMAC(testMAC[:]))
	r := pinned(t, a)
	frames := map[string][]byte{
		"ipv4":     v4(client4, vip4, 6, tcpTo(40000, 80)),
		"ipv6":     v6(client6, vip6, 6, tcpTo(40000, 80)),
		"any port": v4(client4, anyVIP4, 6, tcpTo(40000, 22)),
		"prefix":   v4(client4, "203.0.114.1", 6, tcpTo(40000, 80)),
	}
	for name, f := range frames {
		must(t, s.Apply(testRules()))
		expect := func(when string, director bool) {
			t.Helper()
			if _, reason, _ := r.run(f); reason.Director() != director {
				t.Errorf("%s, %s: %s", name, when, reason)
			}
		}
		expect("at first", true)
		must(t, plan("dests", s.rules.Dests, map[address]role{}).remove())
		must(t, plan("prefixes", s.rules.Prefixes, map[prefix]role{}).remove())
		expect("remembered", true)
		// What has not been asked before is not remembered: another port of the same VIP, and the same port over UDP.
		for _, other := range [][]byte{v4(client4, vip4, 6, tcpTo(40000, 443)), v4(client4, vip4, 17, udpTo(40000, 80, 0, 0, 0, 0))} {
			if _, reason, _ := r.run(other); reason.Director() {
				t.Errorf("% x: %s", other[30:38], reason)
			}
		}
		must(t, s.forget())
		expect("forgotten", false)
	}
}

// pinned has the test's thread stay on one CPU, since each has a memory of its own. The thread ends with the test.
func pinned(t *testing.T, a *Attachment) *runner {
	t.Helper()
	runtime.LockOSThread()
	var all, one unix.CPUSet
	must(t, unix.SchedGetaffinity(0, &all))
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	must(t, unix.SchedSetaffinity(0, &one))
	return &runner{t: t, a: a}
}

// TestForgetsOldRules changes rules at random, and holds each decision against the rules of the moment.
func TestForgetsOldRules(t *testing.T) {
	s, a := newSteerer(t, Rules{})
	must(t, a.SetMAC(testMAC[:]))
	r := pinned(t, a)
	addr := func(v6 bool, n int) netip.Addr {
		if v6 {
			return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(n)})
		}
		return netip.AddrFrom4([4]byte{10, 0, 0, byte(n)})
	}
	key := rapid.Custom(func(t *rapid.T) Key {
		return Key{Addr: addr(rapid.Bool().Draw(t, "v6"), rapid.IntRange(1, 3).Draw(t, "host")),
			Port: rapid.Uint16Range(0, 3).Draw(t, "port"), Proto: rapid.SampledFrom([]uint8{6, 17}).Draw(t, "proto")}
	})
	services := rapid.Custom(func(rt *rapid.T) Key {
		k := key.Draw(rt, "key")
		if rapid.IntRange(0, 3).Draw(rt, "prefix") == 0 {
			p, err := k.Addr.Prefix(k.Addr.BitLen() - 2)
			must(t, err)
			k.Addr, k.Bits = p.Addr(), uint8(p.Bits())
		}
		return k
	})
	remembered := 0
	rapid.Check(t, func(rt *rapid.T) {
		for range rapid.IntRange(1, 4).Draw(rt, "changes") {
			rules := Rules{Services: rapid.SliceOfN(services, 0, 6).Draw(rt, "services"), Replies: rapid.SliceOfN(key, 0, 3).Draw(rt, "replies")}
			set, err := NewRuleSet(rules)
			must(t, err)
			set = set.WithMAC(testMAC)
			must(t, s.Apply(rules))
			for i, k := range rapid.SliceOfN(key, 1, 12).Draw(rt, "packets") {
				frame := packetTo(k)
				want := Decide(frame, set)
				for range 2 {
					if _, reason, _ := r.run(frame); reason != want.Reason {
						rt.Fatalf("packet %d to %v: the kernel says %s, the rules %s", i, k, reason, want.Reason)
					}
				}
				if want.Reason == Service || want.Reason == ServiceAnyPort {
					remembered++
				}
			}
		}
	})
	if remembered < 100 {
		t.Errorf("only %d packets were a service's: the test is too weak", remembered)
	}
}

func packetTo(k Key) []byte {
	upper := tcpTo(40000, k.Port)
	if k.Proto == unix.IPPROTO_UDP {
		upper = udpTo(40000, k.Port, 0, 0, 0, 0)
	}
	if k.Addr.Is4() {
		return v4(client4, k.Addr.String(), k.Proto, upper)
	}
	return v6(client6, k.Addr.String(), k.Proto, upper)
}
