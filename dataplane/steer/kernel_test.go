package steer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

const (
	xdpPass     = 2
	xdpRedirect = 4
)

// newSteerer loads the rules and an instance of the program that is attached to nothing.
func newSteerer(t testing.TB, rules Rules) (*Steerer, *Attachment) {
	t.Helper()
	requireRoot(t)
	s, err := Load()
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	must(t, s.Apply(rules))
	a := &Attachment{steerer: s, name: "test"}
	must(t, s.spec.LoadAndAssign(&a.objects, &ebpf.CollectionOptions{MapReplacements: s.rules.byName()}))
	t.Cleanup(func() { must(t, a.objects.Close()) })
	return s, a
}

// runner runs frames through the program in the kernel and tells reasons by what was counted.
type runner struct {
	t    *testing.T
	a    *Attachment
	last Counters
	out  [4096]byte
}

func (r *runner) run(frame []byte) (action uint32, reason Reason, noSocket bool) {
	r.t.Helper()
	opts := ebpf.RunOptions{Data: frame, DataOut: r.out[:]}
	action, err := r.a.objects.Program.Run(&opts)
	must(r.t, err)
	if !bytes.Equal(opts.DataOut, frame) {
		r.t.Fatalf("the frame was changed\n% x\n% x", frame, opts.DataOut)
	}
	now, err := r.a.Counters()
	must(r.t, err)
	reason = undecided
	for i := range now {
		switch {
		case now[i] == r.last[i]:
		case Reason(i) == NoSocket:
			noSocket = true
		case reason != undecided || now[i] != r.last[i]+1:
			r.t.Fatalf("counted twice: %v after %v", now, r.last)
		default:
			reason = Reason(i)
		}
	}
	r.last = now
	return action, reason, noSocket
}

// mutate changes a few bytes, preferring the values that mean something, or the length.
func mutate(rng *rand.Rand, frame []byte) []byte {
	meaningful := []byte{0, 1, 4, 6, 17, 41, 43, 44, 58, 59, 60, 0x08, 0x81, 0x86, 0x88, 0xa8, 0xdd, 0x40, 0x45, 0x46, 0x60, 0xff}
	f := slices.Clone(frame)
	for range 1 + rng.IntN(4) {
		b := byte(rng.Uint32())
		if rng.IntN(2) == 0 {
			b = meaningful[rng.IntN(len(meaningful))]
		}
		f[rng.IntN(len(f))] = b
	}
	switch rng.IntN(6) {
	case 0:
		f = f[:14+rng.IntN(len(f)-13)]
	case 1:
		f = append(f, make([]byte, rng.IntN(64))...)
	}
	return f
}

func TestKernelDecidesAsDecideDoes(t *testing.T) {
	_, a := newSteerer(t, testRules())
	must(t, a.SetMAC(testMAC[:]))
	rules := testSet(t)
	r := &runner{t: t, a: a}
	check := func(name string, frame []byte) Reason {
		want := Decide(frame, rules)
		action, reason, noSocket := r.run(frame)
		if reason != want.Reason || action != xdpPass || noSocket != want.Director {
			t.Fatalf("%s: the kernel says %s (action %d, no socket %t), Decide says %+v\n% x",
				name, reason, action, noSocket, want, frame)
		}
		return reason
	}
	cases := frameCases()
	for _, c := range cases {
		if len(c.frame) > 14 {
			check(c.name, c.frame)
		}
	}
	const seed = 7
	rng := rand.New(rand.NewPCG(seed, seed))
	reached := map[Reason]int{}
	for range 40000 {
		c := cases[rng.IntN(len(cases))]
		if len(c.frame) > 14 {
			reached[check("mutated "+c.name, mutate(rng, c.frame))]++
		}
	}
	for reason := range NoSocket {
		if reached[reason] < 10 {
			t.Errorf("only %d mutated frames reached %s: the test is too weak", reached[reason], reason)
		}
	}
}

func TestRedirectsToTheQueuesSocket(t *testing.T) {
	_, a := newSteerer(t, testRules())
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW, 0)
	must(t, err)
	defer unix.Close(fd)
	r := &runner{t: t, a: a}
	service, other := v4(client4, vip4, 6, tcpTo(40000, 80)), v4(client4, vip4, 6, tcpTo(40000, 22))

	must(t, a.SetSocket(0, fd))
	if action, reason, noSocket := r.run(service); action != xdpRedirect || reason != Service || noSocket {
		t.Errorf("with a socket: action %d, %s, no socket %t", action, reason, noSocket)
	}
	if action, reason, _ := r.run(other); action != xdpPass || reason != PassVIPOther {
		t.Errorf("another port: action %d, %s", action, reason)
	}
	must(t, a.ClearSocket(0))
	must(t, a.ClearSocket(0))
	if action, reason, noSocket := r.run(service); action != xdpPass || reason != Service || !noSocket {
		t.Errorf("without a socket: action %d, %s, no socket %t", action, reason, noSocket)
	}
	must(t, a.SetSocket(MaxQueues-1, fd))
	for _, queue := range []int{-1, MaxQueues} {
		if a.SetSocket(queue, fd) == nil || a.ClearSocket(queue) == nil {
			t.Errorf("queue %d was accepted", queue)
		}
	}
	if err := a.SetSocket(0, 0); err == nil {
		t.Error("a descriptor that is no AF_XDP socket was accepted")
	}
}

// dump reads a map of roles whole.
func dump[K comparable](t interface{ Fatal(...any) }, m *ebpf.Map) map[K]role {
	got := map[K]role{}
	var k K
	var v role
	entries := m.Iterate()
	for entries.Next(&k, &v) {
		got[k] = v
	}
	if err := entries.Err(); err != nil {
		t.Fatal(err)
	}
	return got
}

func sameMap[K comparable](a, b map[K]role) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			return false
		}
	}
	return true
}

func TestApplyMakesTheMapsWhatIsAsked(t *testing.T) {
	s, _ := newSteerer(t, Rules{})
	addrs := rapid.Custom(func(t *rapid.T) netip.Addr {
		n := byte(rapid.IntRange(1, 6).Draw(t, "host"))
		if rapid.Bool().Draw(t, "v6") {
			return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: n})
		}
		return netip.AddrFrom4([4]byte{10, 0, 0, n})
	})
	keys := rapid.Custom(func(t *rapid.T) Key {
		return Key{addrs.Draw(t, "addr"), rapid.Uint16Range(0, 3).Draw(t, "port"), rapid.SampledFrom([]uint8{6, 17}).Draw(t, "proto")}
	})
	rapid.Check(t, func(t *rapid.T) {
		rules := Rules{
			rapid.SliceOfN(keys, 0, 20).Draw(t, "services"), rapid.SliceOfN(keys, 0, 20).Draw(t, "replies"),
			rapid.SliceOfN(addrs, 0, 8).Draw(t, "locals"),
		}
		want, err := NewRuleSet(rules)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(rules); err != nil {
			t.Fatal(err)
		}
		if !sameMap(dump[address](t, s.rules.Dests), want.dests) || !sameMap(dump[endpoint](t, s.rules.Services), want.services) ||
			!sameMap(dump[address](t, s.rules.Sources), want.sources) || !sameMap(dump[endpoint](t, s.rules.Replies), want.replies) {
			t.Fatalf("the maps do not hold %+v", rules)
		}
	})
}

func TestApplyRepairsWhatSomebodyElseChanged(t *testing.T) {
	s, a := newSteerer(t, testRules())
	must(t, s.rules.Services.Delete(endpoint{Addr: address(netip.MustParseAddr(vip4).As16()), Port: [2]byte{0, 80}, Proto: 6}))
	must(t, s.rules.Dests.Update(address(netip.MustParseAddr(client4).As16()), roleTCPAnyPort, ebpf.UpdateAny))
	must(t, s.Apply(testRules()))
	r := &runner{t: t, a: a}
	if _, reason, _ := r.run(v4(client4, vip4, 6, tcpTo(40000, 80))); reason != Service {
		t.Errorf("service is %s", reason)
	}
	if _, reason, _ := r.run(v4(vip4, client4, 6, tcpTo(40000, 80))); reason != PassOther {
		t.Errorf("no service is %s", reason)
	}
}

// A service that is in both old and new rules must not lose one frame while they change around it.
func TestApplyLeavesNoGap(t *testing.T) {
	s, a := newSteerer(t, Rules{})
	crowd := func(from int) (keys []Key) {
		for port := from; port < from+300; port++ {
			keys = append(keys, key(vip4, uint16(port), 6))
		}
		return append(keys, key(vip4, 80, 6))
	}
	versions := []Rules{
		{Services: crowd(1000), Replies: []Key{key(nat4, 8080, 6)}},
		{Services: []Key{key(vip4, 0, 6)}, Replies: []Key{key(nat4, 0, 6)}},
		{Services: crowd(5000), Replies: crowd(7000)[:3], Locals: testRules().Locals},
	}
	must(t, s.Apply(versions[0]))
	done := make(chan error, 1)
	go func() {
		for i := range 30 {
			if err := s.Apply(versions[i%len(versions)]); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	frame := v4(client4, vip4, 6, tcpTo(40000, 80))
	var runs uint64
	for running := true; running; {
		select {
		case err := <-done:
			must(t, err)
			running = false
		default:
		}
		_, err := a.objects.Program.Run(&ebpf.RunOptions{Data: frame, Repeat: 200})
		must(t, err)
		runs += 200
	}
	c, err := a.Counters()
	must(t, err)
	if c[Service] == 0 || c[ServiceAnyPort] == 0 {
		t.Errorf("the test saw only some versions: %v", c)
	}
	if c[Service]+c[ServiceAnyPort] < runs || c[PassVIPOther]+c[PassOther] != 0 {
		t.Errorf("%d runs, counted %v", runs, c)
	}
}

func TestApplySaysWhatDoesNotFit(t *testing.T) {
	s, _ := newSteerer(t, Rules{})
	small := s.spec.Maps[steerMapServices].Copy()
	small.MaxEntries = 4
	m, err := ebpf.NewMap(small)
	must(t, err)
	defer m.Close()
	fill := func(from, n byte) map[endpoint]role {
		keys := map[endpoint]role{}
		for i := range n {
			keys[endpoint{Proto: 6, Port: [2]byte{0, from + i}}] = roleTCPPorts
		}
		return keys
	}
	must(t, plan("services", m, fill(0, 4)).add())
	// Four others do not fit beside the first four, but instead of them.
	c := plan("services", m, fill(10, 4))
	must(t, errors.Join(c.add(), c.remove()))
	if got := dump[endpoint](t, m); !sameMap(got, fill(10, 4)) {
		t.Errorf("the map holds %v", got)
	}
	if err := plan("services", m, fill(10, 5)).add(); !errors.Is(err, unix.E2BIG) {
		t.Errorf("five in a map of four: %v", err)
	}
}

func TestApplyAtScale(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds: as many services as the limits allow")
	}
	s, _ := newSteerer(t, Rules{})
	var rules Rules
	for i := range uint32(1 << 16) {
		a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x0b000000+i)))
		rules.Services = append(rules.Services, Key{a, 80, 6})
		rules.Replies = append(rules.Replies, Key{a, 8080, 6})
	}
	must(t, s.Apply(rules))
	for i := range rules.Services {
		rules.Services[i].Port = 443
	}
	must(t, s.Apply(rules))
	must(t, s.Apply(Rules{}))
	if n := len(dump[endpoint](t, s.rules.Services)); n != 0 {
		t.Errorf("%d services are left", n)
	}
}

func BenchmarkProgram(b *testing.B) {
	_, a := newSteerer(b, testRules())
	for _, c := range []struct {
		name  string
		frame []byte
	}{
		{"service", v4(client4, vip4, 6, tcpTo(40000, 80))}, {"reply", v4(nat4, client4, 6, tcpTo(8080, 40000))},
		{"other", v4(client4, "192.0.2.1", 6, tcpTo(40000, 80))}, {"service6", v6(client6, vip6, 6, tcpTo(40000, 80))},
	} {
		b.Run(c.name, func(b *testing.B) {
			_, err := a.objects.Program.Run(&ebpf.RunOptions{Data: c.frame, Repeat: uint32(b.N)})
			must(b, err)
		})
	}
}
