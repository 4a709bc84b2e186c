package steer

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

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
		return Key{Addr: addrs.Draw(t, "addr"), Port: rapid.Uint16Range(0, 3).Draw(t, "port"), Proto: rapid.SampledFrom([]uint8{6, 17}).Draw(t, "proto")}
	})
	services := rapid.Custom(func(t *rapid.T) Key {
		k := keys.Draw(t, "key")
		if rapid.Bool().Draw(t, "prefix") {
			p, err := k.Addr.Prefix(k.Addr.BitLen() - rapid.IntRange(0, 3).Draw(t, "host bits"))
			if err != nil {
				t.Fatal(err)
			}
			k.Addr, k.Bits = p.Addr(), uint8(p.Bits())
		}
		return k
	})
	rapid.Check(t, func(t *rapid.T) {
		rules := Rules{
			rapid.SliceOfN(services, 0, 20).Draw(t, "services"), rapid.SliceOfN(keys, 0, 20).Draw(t, "replies"),
			rapid.SliceOfN(addrs, 0, 8).Draw(t, "locals"), rapid.SliceOfN(addrs, 0, 8).Draw(t, "tunnels"),
		}
		want, err := NewRuleSet(rules)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Apply(rules); err != nil {
			t.Fatal(err)
		}
		if !sameMap(dump[prefix](t, s.rules.Prefixes), want.prefixes) || !sameMap(dump[prefixEndpoint](t, s.rules.PrefixServices), want.prefixServices) ||
			!sameMap(dump[address](t, s.rules.Dests), want.dests) || !sameMap(dump[endpoint](t, s.rules.Services), want.services) ||
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
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- applyInTurn(s, versions, stop) }()
	frame := v4(client4, vip4, 6, tcpTo(40000, 80))
	var c Counters
	// Long runs, because the kernel prepares one in tens of milliseconds; each sees several changes.
	eventually(t, "the program sees all versions", func() bool {
		_, err := a.objects.Program.Run(&ebpf.RunOptions{Data: frame, Repeat: 100000})
		must(t, err)
		c, err = a.Counters()
		must(t, err)
		return c[Service] > 300000 && c[ServiceAnyPort] > 300000
	})
	close(stop)
	must(t, <-done)
	if c[PassVIPOther]+c[PassOther] != 0 {
		t.Errorf("frames were lost: %v", c)
	}
}

// applyInTurn goes round the versions until it is stopped.
func applyInTurn(s *Steerer, versions []Rules, stop <-chan struct{}) error {
	for i := 0; ; i++ {
		select {
		case <-stop:
			return nil
		default:
		}
		if err := s.Apply(versions[i%len(versions)]); err != nil {
			return err
		}
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
		rules.Services = append(rules.Services, Key{Addr: a, Port: 80, Proto: 6})
		rules.Replies = append(rules.Replies, Key{Addr: a, Port: 8080, Proto: 6})
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
