package table

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"xlvs/dataplane/packet"
)

func addr(v6 bool, n int) packet.Addr {
	if v6 {
		return packet.FromNetip(netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", n)))
	}
	return packet.FromNetip(netip.AddrFrom4([4]byte{203, 0, 113, byte(n)}))
}

// one is a snapshot with a service and two backends, in slots 1 to 3 of each.
func one() *Snapshot {
	s := &Snapshot{Services: make([]Service, 3), Backends: make([]Backend, 4), Ports: make([]Port, 2)}
	s.Services[1] = Service{Live: true, Ref: MakeRef(1, 7), Name: "web", Addr: addr(false, 10), Port: 80, Proto: packet.ProtoTCP,
		Slots: []uint16{0, 1, 0}, Members: []Ref{MakeRef(2, 5), MakeRef(3, 9)}}
	for i, gen := range map[int]uint8{2: 5, 3: 9} {
		s.Backends[i] = Backend{Live: true, Ref: MakeRef(i, gen), Service: s.Services[1].Ref, Name: fmt.Sprint("web", i), Addr: addr(false, 20+i),
			Port: 80, Up: true, Resolved: true, Out: 1, MTU: 1500}
	}
	return s
}

func TestNewRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*Snapshot)
		want string
	}{
		{"member in an empty slot", func(s *Snapshot) { s.Services[1].Members[0] = MakeRef(0, 0) }, "no live backend"},
		{"member of another generation", func(s *Snapshot) { s.Services[1].Members[0] = MakeRef(2, 4) }, "no live backend"},
		{"member past the backends", func(s *Snapshot) { s.Services[1].Members[1] = MakeRef(4, 1) }, "no live backend"},
		{"member of another service", func(s *Snapshot) {
			s.Services[2] = Service{Live: true, Ref: MakeRef(2, 1), Name: "other", Addr: addr(false, 11)}
			s.Backends[2].Service = MakeRef(2, 1)
		}, "another service"},
		{"slot past the members", func(s *Snapshot) { s.Services[1].Slots[2] = 2 }, "points at member 2 of 2"},
		{"service in another slot", func(s *Snapshot) { s.Services[2] = s.Services[1] }, "service web is in slot 2"},
		{"backend in another slot", func(s *Snapshot) { s.Backends[1] = s.Backends[2] }, "backend web2 is in slot 1"},
		{"backend without service", func(s *Snapshot) { s.Services[1].Live = false }, "belongs to no live service"},
		{"backend of a former service", func(s *Snapshot) {
			s.Backends[1] = s.Backends[2]
			s.Backends[1].Ref, s.Backends[1].Service = MakeRef(1, 1), MakeRef(1, 6)
		}, "belongs to no live service"},
		{"port past the ports", func(s *Snapshot) { s.Backends[3].Out = 2 }, "leaves by port 2 of 2"},
		{"two services with one key", func(s *Snapshot) {
			s.Services[2] = s.Services[1]
			s.Services[2].Ref, s.Services[2].Name, s.Services[2].Members, s.Services[2].Slots = MakeRef(2, 1), "twin", nil, nil
		}, "services web and twin have the same"},
		{"backend of another family in DR", func(s *Snapshot) { s.Backends[2].Addr, s.Backends[2].V6 = addr(true, 1), true }, "wrong family"},
		{"backend that lies about its family", func(s *Snapshot) { s.Services[1].Mode, s.Backends[2].V6 = TUN, true }, "wrong family"},
		{"too many services", func(s *Snapshot) { s.Services = make([]Service, MaxServices+1) }, "limits"},
		{"too many backends", func(s *Snapshot) { s.Backends = make([]Backend, MaxBackends+1) }, "limits"},
		{"too many ports", func(s *Snapshot) { s.Ports = make([]Port, MaxPorts+1) }, "limits"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := one()
			tc.edit(s)
			if _, err := New(s); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("New = %v, want …%s…", err, tc.want)
			}
		})
	}
	if _, err := New(one()); err != nil {
		t.Errorf("the snapshot that all these were made of: %v", err)
	}
	s := one()
	s.Backends[3].Out, s.Backends[3].Resolved = 9, false
	if _, err := New(s); err != nil {
		t.Errorf("a backend that is not resolved has no port yet: %v", err)
	}
}

func TestRef(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slot, gen := rapid.IntRange(0, 1<<24-1).Draw(t, "slot"), rapid.Uint8().Draw(t, "generation")
		r := MakeRef(slot, gen)
		if r.Slot() != slot || uint32(r)>>24 != uint32(gen) {
			t.Fatalf("%#x", r)
		}
	})
	if MaxServices > 1<<24 || MaxBackends > 1<<24 {
		t.Error("a Ref cannot name every slot")
	}
}

func TestByRef(t *testing.T) {
	s, err := New(one())
	if err != nil {
		t.Fatal(err)
	}
	if v := s.Service(MakeRef(1, 7)); v != &s.Services[1] {
		t.Errorf("service %v", v)
	}
	if b := s.Backend(MakeRef(3, 9)); b != &s.Backends[3] {
		t.Errorf("backend %v", b)
	}
	for _, r := range []Ref{0, MakeRef(1, 6), MakeRef(3, 7), MakeRef(1<<24-1, 7)} {
		if s.Service(r) != nil {
			t.Errorf("service %#x", r)
		}
	}
	for _, r := range []Ref{0, MakeRef(3, 8), MakeRef(4, 9), MakeRef(1<<24-1, 9)} {
		if s.Backend(r) != nil {
			t.Errorf("backend %#x", r)
		}
	}
}

// What was removed but is remembered for its flows is found as a former one, and by nothing else.
func TestFormer(t *testing.T) {
	s := one()
	s.Services[1].Live, s.Backends[2].Live, s.Backends[3].Live = false, false, false
	if _, err := New(s); err != nil {
		t.Fatal(err)
	}
	if v, b := s.Former(MakeRef(1, 7), MakeRef(3, 9)); v != &s.Services[1] || b != &s.Backends[3] {
		t.Errorf("Former = %v, %v", v, b)
	}
	for _, gone := range []Ref{MakeRef(1, 8), MakeRef(3, 8), MakeRef(4, 9), MakeRef(1<<24-1, 7)} {
		if v, b := s.Former(gone, gone); v != nil || b != nil {
			t.Errorf("Former(%#x) = %v, %v", gone, v, b)
		}
	}
	a := s.Services[1].Addr
	if s.Service(MakeRef(1, 7)) != nil || s.Backend(MakeRef(3, 9)) != nil || s.Lookup(a, 80, packet.ProtoTCP) >= 0 || s.VIP(a) >= 0 ||
		s.Replies(s.Backends[3].Addr, 80, packet.ProtoTCP) {
		t.Error("a removed service still takes packets")
	}
}

// What New derives: a backend in TUN takes what the outer header leaves.
func TestDerived(t *testing.T) {
	for _, tc := range []struct {
		mode             Mode
		v6, up, resolved bool
		mtu, limit       uint16
		ready            bool
	}{
		{DR, false, true, true, 1500, 1500, true}, {NAT, false, true, true, 1500, 1500, true},
		{TUN, false, true, true, 1500, 1480, true}, {TUN, true, true, true, 1500, 1460, true},
		{TUN, true, true, true, 30, 0, true}, {DR, false, false, true, 9000, 9000, false}, {DR, false, true, false, 0, 0, false},
	} {
		s := one()
		s.Services[1].Mode = tc.mode
		b := &s.Backends[2]
		b.V6, b.Up, b.Resolved, b.MTU = tc.v6, tc.up, tc.resolved, tc.mtu
		if tc.v6 {
			b.Addr = addr(true, 2)
		}
		if _, err := New(s); err != nil {
			t.Fatal(err)
		}
		if b.Limit != tc.limit || b.Ready != tc.ready {
			t.Errorf("%+v: limit %d, ready %v", tc, b.Limit, b.Ready)
		}
	}
}

type key struct {
	addr  packet.Addr
	port  uint16
	proto uint8
}

// The indices answer as maps and loops do.
func TestLookupProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, services := drawSnapshot(t)
		if _, err := New(s); err != nil {
			t.Fatal(err)
		}
		for range 50 {
			a, port := drawAddr(t), rapid.SampledFrom([]uint16{0, 80, 443, 8080}).Draw(t, "port")
			proto := rapid.SampledFrom([]uint8{packet.ProtoTCP, packet.ProtoUDP}).Draw(t, "proto")
			want, ok := services[key{a, port, proto}]
			if !ok {
				want, ok = services[key{a, 0, proto}]
			}
			if !ok {
				want = -1
			}
			if got := s.Lookup(a, port, proto); got != want {
				t.Fatalf("Lookup(%v, %d, %d) = %d, want %d", a.Netip(), port, proto, got, want)
			}
			checkVIP(t, s, a)
			replies := false
			for _, b := range s.Backends {
				v := &s.Services[b.Service.Slot()]
				replies = replies || b.Live && v.Mode == NAT && b.Addr == a && v.Proto == proto && (b.Port == port || b.Port == 0)
			}
			if got := s.Replies(a, port, proto); got != replies {
				t.Fatalf("Replies(%v, %d, %d) = %v", a.Netip(), port, proto, got)
			}
		}
	})
}

func checkVIP(t *rapid.T, s *Snapshot, a packet.Addr) {
	vip, alive := false, false
	for _, v := range s.Services {
		if v.Live && v.Addr == a {
			vip, alive = true, alive || len(v.Slots) > 0
		}
	}
	if got := s.Alive(a); got != alive {
		t.Fatalf("Alive(%v) = %v", a.Netip(), got)
	}
	got := s.VIP(a)
	if (got >= 0) != vip || vip && (!s.Services[got].Live || s.Services[got].Addr != a) {
		t.Fatalf("VIP(%v) = %d", a.Netip(), got)
	}
}

func drawAddr(t *rapid.T) packet.Addr {
	return addr(rapid.Bool().Draw(t, "v6"), rapid.IntRange(1, 12).Draw(t, "address"))
}

func drawSnapshot(t *rapid.T) (*Snapshot, map[key]int32) {
	n := rapid.IntRange(0, 30).Draw(t, "services")
	s := &Snapshot{Services: make([]Service, n), Backends: make([]Backend, 2*n), Ports: make([]Port, 1)}
	services := map[key]int32{}
	for i := range n {
		k := key{drawAddr(t), rapid.SampledFrom([]uint16{0, 80, 443}).Draw(t, "port"), rapid.SampledFrom([]uint8{packet.ProtoTCP, packet.ProtoUDP}).Draw(t, "proto")}
		if _, ok := services[k]; ok || rapid.IntRange(0, 9).Draw(t, "empty slot") == 0 {
			continue
		}
		services[k] = int32(i)
		v := &s.Services[i]
		*v = Service{Live: true, Ref: MakeRef(i, uint8(i)), Addr: k.addr, V6: !k.addr.Is4(), Port: k.port, Proto: k.proto, Mode: rapid.SampledFrom([]Mode{DR, TUN, NAT}).Draw(t, "mode")}
		for j := range rapid.IntRange(0, 2).Draw(t, "backends") {
			slot := 2*i + j
			s.Backends[slot] = Backend{Live: true, Ref: MakeRef(slot, 3), Service: v.Ref, V6: v.V6, Addr: addr(v.V6, rapid.IntRange(1, 12).Draw(t, "backend")),
				Port: rapid.SampledFrom([]uint16{0, 80, 8080}).Draw(t, "backend's port")}
			v.Members = append(v.Members, s.Backends[slot].Ref)
		}
		if len(v.Members) > 0 && rapid.Bool().Draw(t, "has slots") {
			v.Slots = []uint16{0, uint16(len(v.Members) - 1), 0}
		}
	}
	return s, services
}

// Pick gives each slot its equal part of the hashes, and every hash a slot.
func TestPick(t *testing.T) {
	s := one()
	v := &s.Services[1]
	if _, err := New(s); err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 2, 3, 251, 65537} {
		v.Slots = make([]uint16, size)
		v.Slots[size-1] = 1
		third := uint64(1) << 32 / uint64(size)
		for i := range uint64(size) {
			for _, h := range []uint64{i*third + i, (i+1)*third - 1} {
				want := MakeRef(2, 5)
				if (h*uint64(size))>>32 == uint64(size-1) {
					want = MakeRef(3, 9)
				}
				if got := s.Pick(v, h<<32|0xffffffff); got.Ref != want {
					t.Fatalf("size %d, hash %#x: backend %#x, want %#x", size, h, got.Ref, want)
				}
			}
		}
		if got := s.Pick(v, 0); size > 1 && got.Ref != MakeRef(2, 5) {
			t.Errorf("size %d: hash 0 picks %#x", size, got.Ref)
		}
		if got := s.Pick(v, ^uint64(0)); got.Ref != MakeRef(3, 9) {
			t.Errorf("size %d: the last hash picks %#x", size, got.Ref)
		}
	}
	v.Slots = nil
	if s.Pick(v, 5) != nil {
		t.Error("a service without slots has a backend")
	}
}

func TestNoAllocations(t *testing.T) {
	s, err := New(one())
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() {
		s.Lookup(addr4, 80, packet.ProtoTCP)
		s.Replies(addr4, 80, packet.ProtoTCP)
		s.Alive(addr4)
		s.Pick(&s.Services[1], 42)
		s.Backend(MakeRef(2, 5))
		s.Service(MakeRef(1, 7))
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

var addr4 = addr(false, 10)

func TestEth(t *testing.T) {
	if got, want := Eth(MAC{1, 2, 3, 4, 5, 6}, MAC{7, 8, 9, 10, 11, 12}), [12]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}; got != want {
		t.Errorf("% x", got)
	}
	if DR.String() != "dr" || TUN.String() != "tun" || NAT.String() != "nat" {
		t.Error("names of modes")
	}
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1, 100, 10000} {
		b.Run(fmt.Sprintf("services=%d", n), func(b *testing.B) {
			s := &Snapshot{Services: make([]Service, n)}
			for i := range s.Services {
				s.Services[i] = Service{Live: true, Ref: MakeRef(i, 0), Addr: addr(true, i), V6: true, Port: 80, Proto: packet.ProtoTCP}
			}
			if _, err := New(s); err != nil {
				b.Fatal(err)
			}
			for i := range b.N {
				if s.Lookup(s.Services[i%n].Addr, 80, packet.ProtoTCP) < 0 {
					b.Fatal("lost")
				}
			}
		})
	}
}

// What a backend that is down leaves behind is spread evenly over those that are up; without any there is none.
func TestPickStandsIn(t *testing.T) {
	const n = 10
	s := &Snapshot{Services: []Service{{Live: true, Ref: MakeRef(0, 1), Name: "web", Addr: addr4, Port: 80, Proto: packet.ProtoTCP, Slots: make([]uint16, 65537)}}}
	v := &s.Services[0]
	for i := range n {
		s.Backends = append(s.Backends, Backend{Live: true, Ref: MakeRef(i, 1), Service: v.Ref, Name: fmt.Sprint(i), Addr: addr4, Up: true})
		v.Members = append(v.Members, MakeRef(i, 1))
	}
	for i := range v.Slots {
		v.Slots[i] = uint16(i % n)
	}
	must := func(want bool, h uint64) *Backend {
		b := s.Pick(v, h)
		if b == nil != !want || b != nil && !b.Up {
			t.Fatalf("hash %#x: picked %+v", h, b)
		}
		return b
	}
	const hashes = 1 << 16
	hash := func(i int) uint64 { return uint64(i+1) * 0xd1342543de82ef95 }
	for down := range n {
		counts := make([]int, n)
		for i := range hashes {
			counts[must(true, hash(i)).Ref.Slot()]++
		}
		for i, c := range counts {
			if want := hashes / (n - down); i >= down && (c < want*9/10 || c > want*11/10) {
				t.Errorf("%d down: backend %d gets %d of %d, want about %d", down, i, c, hashes, want)
			}
		}
		s.Backends[down].Up = false
	}
	for i := range hashes {
		must(false, hash(i))
	}
}
