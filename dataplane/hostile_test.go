package dataplane_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"xlvs/dataplane"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// spoofed is a packet from an address and port that nobody has.
func spoofed(s svc, rng *rand.Rand, flags uint8) frametest.Spec {
	c := s.client(0, 0, flags)
	if s.v6 {
		var a [16]byte
		copy(a[:], []byte{0x20, 1, 0xd, 0xb8, 0xba, 0xd})
		binary.BigEndian.PutUint64(a[8:], rng.Uint64())
		c.Src = netip.AddrPortFrom(netip.AddrFrom16(a), uint16(rng.Uint32()|1))
		return c
	}
	c.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, byte(rng.Uint32()), byte(rng.Uint32())}), uint16(rng.Uint32()|1))
	return c
}

// flood gives the lab n frames in bursts, a millisecond apart.
func (l *lab) flood(n int, frame func() []byte) {
	l.Helper()
	var burst [][]byte
	for k := range n {
		burst = append(burst, frame())
		if len(burst) == dataplane.MaxBurst || k == n-1 {
			l.now++
			l.step(0, 0, burst...)
			burst = burst[:0]
		}
	}
}

// alive counts the flows of clients 0 to n-1 that are still at their backends.
func (l *lab) alive(s svc, home []int) (n int) {
	l.Helper()
	// A flow that was lost would find its backend again by its hash.
	l.e.Publish(reshuffled(l, s))
	for k, be := range home {
		if got := l.one(0, 0, 1, s.client(0, k, ack).Build()); got != nil && int(got[5]) == be {
			n++
		}
	}
	return n
}

// Floods of what anybody can send, many times the flow table's size, end no flow that its server has answered, and
// leave room for new ones throughout.
func TestFloods(t *testing.T) {
	const flows, table4 = 200, 1024
	persist := func(v *table.Service) { v.Persist, v.Mask = 360_000, table.MaskBits(128) }
	for _, s := range matrix() {
		for _, how := range []string{"new flows", "new flows of a persistent service", "no flows", "every flag"} {
			t.Run(s.String()+"/"+how, func(t *testing.T) {
				if how == "new flows of a persistent service" {
					s.edit = persist
				}
				l := newLab(t, 1)
				l.e.Publish(snapshot(t, s))
				var home []int
				for n := range flows {
					home = append(home, l.establish(s, n))
				}
				if s.udp { // a second datagram: the client got an answer and goes on
					l.alive(s, home)
				}
				l.delta()
				rng := rand.New(rand.NewPCG(1, 2))
				l.flood(6*table4, func() []byte {
					flags := uint8(syn)
					switch how {
					case "no flows":
						flags = ack
					case "every flag":
						flags = uint8(rng.Uint32()) & 0x3f
					}
					return spoofed(s, rng, flags).Build()
				})
				d := l.delta()
				if got := l.alive(s, home); got != flows {
					t.Errorf("%d of %d flows are left", got, flows)
				}
				if stateless := l.e.Counters().Stateless; stateless != 0 {
					t.Errorf("%d packets found no room for a flow", stateless)
				}
				if new := l.establish(s, flows+1); new < 0 {
					t.Error("a new client is not served")
				}
				if opens := how != "no flows" || s.udp; opens && d.FlowsEvicted == 0 {
					t.Error("the flood evicted nothing: it does not test what it should")
				}
				if ft := l.e.FlowTable(0); ft.Used > table4 {
					t.Errorf("%d entries in a table of %d", ft.Used, table4)
				}
			})
		}
	}
}

// A flood beside connections that fill nine tenths of the table lives in the last tenth: it finds its own flows, however far they lie apart.
func TestFloodOverAnAlmostFullTable(t *testing.T) {
	for _, s := range []svc{{}, {mode: table.TUN}, {v6: true}} {
		t.Run(s.String(), func(t *testing.T) {
			l := newLab(t, 1)
			l.e.Publish(snapshot(t, s))
			var home []int
			for n := range 1024 * 9 / 10 {
				home = append(home, l.establish(s, n))
			}
			rng := rand.New(rand.NewPCG(1, 2))
			l.flood(6*1024, func() []byte { return spoofed(s, rng, syn).Build() })
			if got := l.alive(s, home); got != len(home) {
				t.Errorf("%d of %d connections are left", got, len(home))
			}
		})
	}
}

// More real flows than there are entries: the table never refuses one, and the flows that were not seen for longest go.
func TestMoreFlowsThanEntries(t *testing.T) {
	for _, s := range matrix() {
		t.Run(s.String(), func(t *testing.T) {
			l := newLab(t, 1)
			l.e.Publish(snapshot(t, s))
			const n = 2500
			var home []int
			for k := range n {
				l.now++
				c := s.client(0, k, syn)
				for _, flags := range []uint8{syn, ack, ack} {
					c.Flags = flags
					got := l.one(0, 0, 1, c.Build())
					if got == nil {
						t.Fatalf("flow %d is refused", k)
					}
					if flags == syn {
						home = append(home, int(got[5]))
					}
				}
			}
			recent := 0
			for k := n - 100; k < n; k++ {
				if got := l.one(0, 0, 1, s.client(0, k, ack).Build()); got != nil && int(got[5]) == home[k] {
					recent++
				}
			}
			if recent < 95 { // a bucket may be full of even later ones
				t.Errorf("only %d of the latest 100 flows are left", recent)
			}
			if c := l.e.Counters(); c.FlowsEvicted == 0 || c.Stateless != 0 {
				t.Errorf("%d evicted, %d without an entry", c.FlowsEvicted, c.Stateless)
			}
		})
	}
}

// A storm of ICMP about connections that do not exist is answered at most as often as the limit allows, moves no flow, and
// what the director sends itself stays within its budget.
func TestICMPStorm(t *testing.T) {
	for _, s := range matrix() {
		t.Run(s.String(), func(t *testing.T) {
			l := newLab(t, 1)
			l.e.Publish(snapshot(t, s))
			var home []int
			for n := range 50 {
				home = append(home, l.establish(s, n))
			}
			rng := rand.New(rand.NewPCG(3, 4))
			before := l.e.Counters()
			start := l.now
			l.flood(10000, func() []byte {
				c := spoofed(s, rng, syn)
				switch rng.IntN(3) {
				case 0:
					return c.Echo(false, uint16(rng.Uint32()), 1)
				case 1:
					c.TTL = 1
					return c.Build()
				}
				return icmpAbout(s, c, rng)
			})
			after := l.e.Counters()
			sent := after.Echoes + after.ICMPErrors - before.Echoes - before.ICMPErrors
			if budget := uint64(50 + (l.now-start)*1); sent > budget {
				t.Errorf("%d messages in %d ms; the limit is %d", sent, l.now-start, budget)
			}
			if sent == 0 {
				t.Error("nothing was answered: the storm does not test the limit")
			}
			if after.FlowsNew != before.FlowsNew || after.FlowsEnded != before.FlowsEnded {
				t.Errorf("ICMP opened %d flows and ended %d", after.FlowsNew-before.FlowsNew, after.FlowsEnded-before.FlowsEnded)
			}
			if got := l.alive(s, home); got != len(home) {
				t.Errorf("%d of %d flows are left", got, len(home))
			}
		})
	}
}

// icmpAbout is an ICMP error, right in itself, about a packet that the VIP is said to have sent to a client.
func icmpAbout(s svc, c frametest.Spec, rng *rand.Rand) []byte {
	quoted := c
	quoted.Src, quoted.Dst = c.Dst, c.Src
	l3 := 14
	quote := quoted.Build()[l3:]
	quote = quote[:len(quote)-4]
	f := c.Echo(false, 0, 0)
	head := f[:l3+map[bool]int{false: 20, true: 40}[s.v6]]
	body := append([]byte{[]byte{3, 11, 12}[rng.IntN(3)], byte(rng.IntN(6)), 0, 0, 0, 0, 5, 0x14}, quote...)
	if s.v6 {
		body[0] = byte(1 + rng.IntN(4))
	}
	f = append(append([]byte{}, head...), body...)
	ip := f[l3:]
	if s.v6 {
		binary.BigEndian.PutUint16(ip[4:], uint16(len(body)))
		pseudo := append(append([]byte{}, ip[8:40]...), 0, 0, byte(len(body)>>8), byte(len(body)), 0, 0, 0, 58)
		binary.BigEndian.PutUint16(ip[42:], ^frametest.Sum(append(pseudo, body...)))
		return f
	}
	binary.BigEndian.PutUint16(ip[2:], uint16(20+len(body)))
	ip[10], ip[11] = 0, 0
	binary.BigEndian.PutUint16(ip[10:], ^frametest.Sum(ip[:20]))
	binary.BigEndian.PutUint16(ip[22:], ^frametest.Sum(body))
	return f
}

// Flows that meet in one bucket under one seed do not under another, so whoever does not know the seed cannot
// aim; and one who does harms the flows of that bucket and its neighbours, and no others.
func TestHashCollisions(t *testing.T) {
	s := svc{}
	snap := snapshot(t, s)
	aimed := aim(s, snap, "known", 120)
	for _, seed := range []string{"known", "another"} {
		t.Run(seed, func(t *testing.T) {
			l := newLab(t, 1, func(o *dataplane.Options) { o.Seed = seed })
			l.e.Publish(snap)
			var home []int
			for n := range 150 {
				home = append(home, l.establish(s, n))
			}
			l.delta()
			for _, c := range aimed {
				if l.one(0, 0, 1, c.Build()) == nil {
					t.Fatal("a flow is refused")
				}
			}
			d := l.delta()
			if seed == "another" && d.FlowsEvicted != 0 {
				t.Errorf("%d flows were evicted by flows that were aimed with another seed", d.FlowsEvicted)
			}
			if seed == "known" && d.FlowsEvicted < 90 {
				t.Errorf("only %d flows were evicted: they were not aimed well, and the other half of this test shows nothing", d.FlowsEvicted)
			}
			if got := l.alive(s, home); got != len(home) {
				t.Errorf("%d of %d established flows are left", got, len(home))
			}
		})
	}
}

// aim finds flows that have both their buckets in common under a seed, as an attacker would who knows it and the table's
// layout: the first is the hash's upper bits, the second follows from that and the lowest 16.
func aim(s svc, snap *table.Snapshot, seed string, n int) (out []frametest.Spec) {
	vip := snap.Services[0].Addr
	h := packet.NewHasher(seed)
	const want = 8 // bits: the table of 1024 flows has 256 buckets
	for k := 0; len(out) < n; k++ {
		src := netip.AddrFrom4([4]byte{192, byte(k >> 24), byte(k >> 16), byte(k >> 8)})
		port := uint16(1024 + k&0xff)
		v := h.Tuple(packet.FromNetip(src), vip, packet.MakePorts(port, vport), packet.ProtoTCP)
		if v>>(64-want) == 7 && ((v&0xffff)*0x9e3779b1>>8|1)&(1<<want-1) == 0x55 {
			c := s.client(0, 0, syn)
			c.Src = netip.AddrPortFrom(src, port)
			out = append(out, c)
		}
	}
	return out
}

// The seed decides: two of them agree on hardly any flow's place.
func TestSeedsDiffer(t *testing.T) {
	a, b := packet.NewHasher("a"), packet.NewHasher("b")
	same := 0
	for n := range 10000 {
		src := packet.FromNetip(netip.MustParseAddr(fmt.Sprintf("10.%d.%d.1", n>>8, n&0xff)))
		x := a.Tuple(src, src, packet.MakePorts(uint16(n), 80), 6)
		if y := b.Tuple(src, src, packet.MakePorts(uint16(n), 80), 6); x>>54 == y>>54 {
			same++
		}
	}
	if same > 40 { // 10000/1024, and a lot
		t.Errorf("%d of 10000 flows are in the same one of 1024 places", same)
	}
}
