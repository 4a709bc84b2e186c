package steer

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// withFlags returns a frame whose 20 last bytes are a TCP header with other flags.
func withFlags(frame []byte, flags byte) []byte { return withByte(frame, len(frame)-7, flags) }

// sheddingCases are frames for queues whose worker wants no new flows.
func sheddingCases() []frameCase {
	syn4, syn6 := v4(client4, vip4, 6, tcpTo(40000, 80)), v6(client6, vip6, 6, tcpTo(40000, 80))
	const fin, syn, rst, psh, ack, urg, ece, cwr = 1, 2, 4, 8, 16, 32, 64, 128
	return []frameCase{
		{"syn", syn4, Shed},
		{"syn v6", syn6, Shed},
		{"syn to any port", v4(client4, anyVIP4, 6, tcpTo(40000, 22)), Shed},
		{"syn to a prefix", v4(client4, "203.0.114.1", 6, tcpTo(40000, 80)), Shed},
		{"syn behind a tag", tagged(etherVLAN, syn4), Shed},
		{"syn behind options", l2(etherIPv4, ip4With(client4, vip4, 6, 0, make([]byte, 40), tcpTo(40000, 80))), Shed},
		{"syn behind an extension header", v6(client6, vip6, protoHopByHop, ext(6, 0, tcpTo(40000, 80))), Shed},
		{"syn with data", v4(client4, vip4, 6, append(tcpTo(40000, 80), "GET /"...)), Shed},
		{"syn for ecn", withFlags(syn4, syn|ece|cwr), Shed},
		{"syn with everything that does not matter", withFlags(syn6, syn|fin|psh|urg|ece|cwr), Shed},
		{"ack", withFlags(syn4, ack), Service},
		{"ack v6", withFlags(syn6, ack|psh), Service},
		{"syn-ack", withFlags(syn4, syn|ack), Service},
		{"fin", withFlags(syn4, fin|ack), Service},
		{"rst", withFlags(syn4, rst), Service},
		{"syn and rst open nothing", withFlags(syn4, syn|rst), Service},
		{"no flags", withFlags(syn4, 0), Service},
		{"udp", v4(client4, vip4, 17, udpTo(40000, 53, 0, 0, 0, 0, 0, syn, 0, 0)), Service},
		{"first fragment of a syn", l2(etherIPv4, ip4With(client4, vip4, 6, 0x2000, nil, tcpTo(40000, 80))), Fragment},
		{"ping", v4(client4, vip4, 1, icmp(8)), ICMP},
		{"backend's syn", v4(nat4, client4, 6, tcpTo(8080, 40000)), Reply},
		{"syn to a vip's other port", v4(client4, vip4, 6, tcpTo(40000, 22)), PassVIPOther},
		{"syn to the director", v4(client4, local4, 6, tcpTo(40000, 80)), PassLocal},
		{"syn to nobody we know", v4(client4, "192.0.2.1", 6, tcpTo(40000, 80)), PassOther},
		{"another host's syn", withDst(syn4, 2, 0, 0, 0, 0, 2), PassL2},
		{"truncated syn", syn4[:len(syn4)-1], PassMalformed},
	}
}

func TestDecideShedding(t *testing.T) {
	rules := testSet(t)
	for _, c := range sheddingCases() {
		if got := Decide(c.frame, rules.Shedding()); got.Reason != c.want || got.Director != c.want.Director() {
			t.Errorf("%s: %+v, want %s", c.name, got, c.want)
		}
		got := Decide(c.frame, rules)
		if want := c.want; want == Shed && !got.Director || want != Shed && got.Reason != want {
			t.Errorf("%s, level 0: %+v", c.name, got)
		}
	}
	if Shed.Director() {
		t.Error("shed frames are the director's")
	}
}

// meters maps a program's meters, whose layout xsk knows.
func meters(t *testing.T, a *Attachment) []byte {
	t.Helper()
	if n := binary.Size(steerMeter{}); n != MeterSize || int(a.objects.Meters.ValueSize()) != n || a.objects.Meters.MaxEntries() != MaxQueues {
		t.Fatalf("%d meters of %d bytes, want %d of %d", a.objects.Meters.MaxEntries(), n, MaxQueues, MeterSize)
	}
	mem, err := a.Meters()
	must(t, err)
	t.Cleanup(func() { must(t, unix.Munmap(mem)) })
	return mem
}

// setLevel writes the shed level of queue 0, which test runs come in on.
func setLevel(meters []byte, level uint32) { binary.NativeEndian.PutUint32(meters, level) }

// counted are the frames of queue 0, and those that would open flows.
func counted(meters []byte) (frames, opening uint32) {
	return binary.NativeEndian.Uint32(meters[4:]), binary.NativeEndian.Uint32(meters[8:])
}

func TestKernelShedsAsDecideDoes(t *testing.T) {
	_, a := newSteerer(t, testRules())
	must(t, a.SetMAC(testMAC[:]))
	mem := meters(t, a)
	r := &runner{t: t, a: a}
	check := func(name string, frame []byte, rules *RuleSet) {
		t.Helper()
		want := Decide(frame, rules)
		action := uint32(xdpPass)
		if want.Reason == Shed {
			action = xdpDrop
		}
		got, reason, noSocket := r.run(frame)
		if reason != want.Reason || got != action || noSocket != want.Director {
			t.Fatalf("%s: the kernel says %s (action %d, no socket %t), Decide says %+v\n% x", name, reason, got, noSocket, want, frame)
		}
	}
	rules := testSet(t)
	cases := append(sheddingCases(), frameCases()...)
	const seed = 11
	rng := rand.New(rand.NewPCG(seed, seed))
	for _, level := range []uint32{0, 256, 1 << 31, 0} {
		setLevel(mem, level)
		rules := rules
		if level > 0 {
			rules = rules.Shedding()
		}
		for _, c := range cases {
			if len(c.frame) <= 14 {
				continue
			}
			check(c.name, c.frame, rules)
			for range 20 {
				check("mutated "+c.name, mutate(rng, c.frame), rules)
			}
		}
	}
	if r.last[Shed] < 300 {
		t.Errorf("only %d frames were shed: the test is too weak", r.last[Shed])
	}
}

// TestShedLevel: of 256 SYNs so many are dropped as the level says, and the meter counts what there was.
func TestShedLevel(t *testing.T) {
	_, a := newSteerer(t, testRules())
	mem := meters(t, a)
	r := &runner{t: t, a: a}
	syn := v4(client4, vip4, 6, tcpTo(40000, 80))
	const n = 4000
	for _, level := range []uint32{64, 128, 192} {
		setLevel(mem, level)
		before := r.last[Shed]
		for range n {
			r.run(syn)
		}
		// Six standard deviations either way: a right program fails once in 500 million runs.
		p := float64(level) / 256
		if got, want := float64(r.last[Shed]-before), n*p; (got-want)*(got-want) > 36*n*p*(1-p) {
			t.Errorf("level %d: %v of %d were shed", level, got, n)
		}
	}
	setLevel(mem, 256)
	for _, frame := range [][]byte{withFlags(syn, 16), v4(client4, vip4, 17, udpTo(40000, 53)), v4(client4, local4, 6, tcpTo(40000, 80))} {
		r.run(frame)
	}
	if frames, opening := counted(mem); frames != 3*n+3 || opening != 3*n {
		t.Errorf("the meter counted %d frames, %d SYNs", frames, opening)
	}
}
