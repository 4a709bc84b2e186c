package flow

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// testService i of testSnapshot: 0 DR/TCP/v4, 1 NAT/TCP/v4, 2 NAT/UDP/v6, 3 TUN/UDP/v4.
var testModes = []struct {
	mode  table.Mode
	v6    bool
	proto uint8
}{{table.DR, false, packet.ProtoTCP}, {table.NAT, false, packet.ProtoTCP}, {table.NAT, true, packet.ProtoUDP}, {table.TUN, false, packet.ProtoUDP}}

const perService = 3

func testAddr(v6 bool, kind, n int) packet.Addr {
	if v6 {
		return packet.FromNetip(netip.MustParseAddr(fmt.Sprintf("2001:db8:%x::%x", kind, n+1)))
	}
	return packet.FromNetip(netip.AddrFrom4([4]byte{10, byte(kind), byte(n >> 8), byte(n)}))
}

// removed, added to a generation, makes a service or backend that is gone but remembered for its flows.
const removed = 0x80

// Service hasty has timeouts of its own, some longer and some shorter than the others', unless its slot is empty.
const hasty = 1

func hastyTimeouts() table.Timeouts {
	own := DefaultTimeouts()
	own[StateEstablished], own[StateSynRecv], own[StateUDP], own[StateClose] = 5_000, 100_000, 2_000, 300_000
	return own
}

// timeout is what a flow's state and service give it.
func (m *model) timeout(f *modelFlow) int32 {
	t := DefaultTimeouts()
	if f.svc == hasty && m.services[hasty] != 0 {
		t = hastyTimeouts()
	}
	return int32(t[f.state])
}

// testSnapshot has each service and backend in the generation given; 0 leaves it out.
func testSnapshot(t interface{ Fatal(...any) }, services, backends []uint8) *table.Snapshot {
	s := &table.Snapshot{Timeouts: DefaultTimeouts(), Services: make([]table.Service, len(testModes)),
		Backends: make([]table.Backend, perService*len(testModes))}
	for i, m := range testModes {
		if services[i] == 0 {
			continue
		}
		s.Services[i] = table.Service{Live: services[i] < removed, Ref: table.MakeRef(i, services[i]&^removed), Addr: testAddr(m.v6, 1, i), V6: m.v6, Port: 80, Proto: m.proto, Mode: m.mode}
		if i == hasty {
			own := hastyTimeouts()
			s.Services[i].Timeouts = &own
		}
		for k := range perService {
			slot := i*perService + k
			if backends[slot] != 0 {
				s.Backends[slot] = table.Backend{Live: s.Services[i].Live && backends[slot] < removed, Ref: table.MakeRef(slot, backends[slot]&^removed), Service: s.Services[i].Ref,
					Addr: testAddr(m.v6, 2, slot), V6: m.v6, Port: 8080, Up: true}
			}
		}
	}
	snap, err := table.New(s)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func ones(n int) []uint8 {
	l := make([]uint8, n)
	for i := range l {
		l[i] = 1
	}
	return l
}

// a modelFlow is what the table must know of a flow.
type modelFlow struct {
	hash  uint64
	svc   int
	be    table.Ref
	state State
	seen  uint32
	reply packet.Packet // of a NAT flow
	nat   bool
}

// A model runs a Table and a map side by side.
type model struct {
	*rapid.T
	table    *Table
	hasher   packet.Hasher
	snap     *table.Snapshot
	services []uint8
	backends []uint8
	now      uint32
	live     map[Key]*modelFlow
	removed  bool // something left the snapshot: dead entries may wait for a sweep
}

func (m *model) key(svc, client int) (Key, uint64) {
	v := &m.snap.Services[svc]
	k := Key{Client: testAddr(testModes[svc].v6, 3, client), Service: v.Ref, Ports: packet.MakePorts(uint16(1024+client), v.Port)}
	return k, m.hasher.Tuple(k.Client, v.Addr, k.Ports, v.Proto)
}

// insert opens the flow of a client, unless it is open. It checks whom that evicts.
func (m *model) insert(svc, client, backend int, s State) {
	if !m.snap.Services[svc].Live {
		return
	}
	be := &m.snap.Backends[svc*perService+backend]
	k, h := m.key(svc, client)
	if !be.Live || m.live[k] != nil {
		return
	}
	f := &modelFlow{hash: h, svc: svc, be: be.Ref, state: s, seen: m.now}
	i := m.table.Insert(h, &k, be.Ref, s, uint8(client), m.now)
	if i == 0 {
		if !m.removed {
			m.Fatal("no room, though any flow could have been evicted")
		}
		m.reap(true)
		return
	}
	if testModes[svc].mode == table.NAT {
		f.nat = true
		f.reply = packet.Packet{Src: be.Addr, Dst: k.Client, Ports: packet.MakePorts(be.Port, k.Ports.Src()), Proto: testModes[svc].proto}
		m.table.LinkReply(i, be, m.now)
	}
	if got := m.table.Find(h, &k); got != i {
		m.Fatalf("a flow just inserted at %d is found at %d", i, got)
	}
	m.reap(true)
	m.live[k] = f
}

// reap takes the ended flows out of the map: each must have been in it, and have had a reason to end.
func (m *model) reap(evicted bool) {
	for _, e := range m.table.Ended() {
		k := Key{e.Client, e.Service, e.Ports, e.VIP()}
		f := m.live[k]
		if f == nil {
			m.Fatalf("a flow ended that was not open: %+v", e)
		}
		m.same(f, &e)
		expired := int32(m.now-f.seen) > m.timeout(f)
		if !expired && !evicted {
			m.Fatalf("a flow in state %v ended after %d ms", f.state, m.now-f.seen)
		}
		if e.Evicted() == expired {
			m.Fatalf("a flow that ended with expired=%v says evicted=%v", expired, e.Evicted())
		}
		delete(m.live, k)
	}
}

func (m *model) same(f *modelFlow, e *Entry) {
	if e.Backend != f.be || e.State() != f.state || e.LastSeen != f.seen {
		m.Fatalf("the table has backend %#x, %v, seen %d; should be %#x, %v, %d", e.Backend, e.State(), e.LastSeen, f.be, f.state, f.seen)
	}
}

// check compares everything.
func (m *model) check() {
	if n := m.table.Len(); n < len(m.live) || n > len(m.live) && !m.removed {
		m.Fatalf("the table counts %d flows, there are %d", n, len(m.live))
	}
	for k, f := range m.live {
		i := m.table.Find(f.hash, &k)
		if i == 0 {
			m.Fatalf("flow %+v %+v is lost", k, f)
		}
		m.same(f, m.table.At(i))
		var e Entry
		if !m.table.Peek(i, &e) {
			m.Fatal("Peek does not see a flow that nobody changes")
		}
		m.same(f, &e)
		if f.nat {
			m.checkReply(i, k.Service, f)
		}
	}
}

// checkReply looks a flow's reply up. A flow whose service or backend is gone has none; a younger flow of the same
// client may be found in its stead.
func (m *model) checkReply(i uint32, svc table.Ref, f *modelFlow) {
	p := f.reply
	h := m.hasher.Flow(&p)
	known := m.snap.Backend(f.be) != nil && m.snap.Service(svc) != nil
	if got := m.table.FindReply(h, &p); (got == i) != known {
		m.Fatalf("the reply of flow %d finds %d (backend known: %v)", i, got, known)
	}
	var e Entry
	at := m.table.PeekReply(h, &p, m.snap, &e)
	if ok := at != 0 && e.Service == svc && e.Backend == f.be; ok != known || ok && e.Client != p.Dst {
		m.Fatalf("PeekReply = %d, %+v (backend known: %v)", at, e, known)
	}
	if known && (at != i || !m.table.Lives(i, e.Life())) || at == 0 && m.table.Lives(i, e.Life()+1) {
		m.Fatalf("flow %d is read at %d, and it lives: %v", i, at, m.table.Lives(i, e.Life()))
	}
}

// some returns an open flow, the one with the smallest key at or after a drawn one, so that a run can be repeated; nil
// if there is none. Actions do nothing then: a fuzzer's bytes can choose them for ever, and where all are skipped, rapid gives up.
func (m *model) some(t *rapid.T) (Key, *modelFlow) {
	if len(m.live) == 0 {
		return Key{}, nil
	}
	svc, client := rapid.IntRange(0, 3).Draw(t, "svc"), rapid.IntRange(0, 2999).Draw(t, "client")
	var best Key
	var dist uint64
	for k, f := range m.live {
		d := uint64(k.Ports.Src()-1024-uint16(client))<<40 | uint64((f.svc-svc)&3)<<32 | uint64(k.Service)
		if best == (Key{}) || d < dist {
			best, dist = k, d
		}
	}
	return best, m.live[best]
}

var tcpStates = []State{StateEstablished, StateSynRecv, StateFinWait, StateTimeWait, StateClose, StateCloseWait, StateLastAck, StateSynAck}

func drawState(t *rapid.T, svc int) State {
	if testModes[svc].proto == packet.ProtoUDP {
		return StateUDP
	}
	return rapid.SampledFrom(tcpStates).Draw(t, "state")
}

func modelProperty(t *rapid.T) {
	h := packet.NewHasher("model")
	tab, err := New(MinEntries, h)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := tab.Close(); err != nil {
			t.Fatal(err)
		}
	}()
	m := &model{T: t, table: tab, hasher: h, services: ones(4), backends: ones(12), live: map[Key]*modelFlow{},
		now: rapid.SampledFrom([]uint32{1, 1 << 31, 0xffffffff - 100_000}).Draw(t, "start")}
	m.use()
	t.Repeat(map[string]func(*rapid.T){
		"insert": func(t *rapid.T) {
			svc := rapid.IntRange(0, 3).Draw(t, "svc")
			m.insert(svc, rapid.IntRange(0, 2999).Draw(t, "client"), rapid.IntRange(0, perService-1).Draw(t, "backend"), drawState(t, svc))
		},
		"insert many": func(t *rapid.T) {
			svc := rapid.IntRange(0, 3).Draw(t, "svc")
			s, first := drawState(t, svc), rapid.IntRange(0, 2999).Draw(t, "first")
			for n := range rapid.IntRange(1, 700).Draw(t, "n") {
				m.insert(svc, (first+n)%3000, n%perService, s)
				m.now++
			}
		},
		"touch": func(t *rapid.T) {
			k, f := m.some(t)
			if f == nil {
				return
			}
			i := tab.Find(f.hash, &k)
			f.seen = m.now
			tab.At(i).LastSeen = m.now
			if f.state != StateUDP {
				f.state = rapid.SampledFrom(tcpStates).Draw(t, "state")
				tab.SetState(i, f.state)
			}
		},
		"delete": func(t *rapid.T) {
			k, f := m.some(t)
			if f == nil {
				return
			}
			tab.Delete(tab.Find(f.hash, &k))
			ended := tab.Ended()
			if len(ended) != 1 || ended[0].Client != k.Client || ended[0].Evicted() {
				t.Fatalf("a deletion ended %d flows", len(ended))
			}
			delete(m.live, k)
			if i := tab.Find(f.hash, &k); i != 0 {
				t.Fatalf("a deleted flow is found at %d", i)
			}
		},
		"wait and sweep": func(t *rapid.T) {
			m.now += uint32(rapid.SampledFrom([]int{1, 1000, 11_000, 61_000, 121_000, 901_000}).Draw(t, "ms"))
			tab.Sweep(m.now)
			m.reap(false)
		},
		"sweep all": func(t *rapid.T) { m.sweepAll() },
		"change the snapshot": func(t *rapid.T) {
			if rapid.Bool().Draw(t, "service") {
				m.services[rapid.IntRange(0, 3).Draw(t, "which")] = rapid.SampledFrom([]uint8{0, 1, 2, 3, 1 | removed, 2 | removed}).Draw(t, "generation")
			} else {
				m.backends[rapid.IntRange(0, 11).Draw(t, "which")] = rapid.SampledFrom([]uint8{0, 1, 2, 3, 1 | removed, 2 | removed}).Draw(t, "generation")
			}
			m.removed = true
			m.use()
		},
		"": func(*rapid.T) { m.check() },
	})
	m.now += 901_000
	m.sweepAll()
	if tab.Len() != 0 || len(m.live) != 0 {
		t.Fatalf("after everything expired the table counts %d flows, the model %d", tab.Len(), len(m.live))
	}
	m.services, m.backends = ones(4), ones(12)
	m.use()
	m.allFree()
}

func (m *model) use() {
	m.snap = testSnapshot(m, m.services, m.backends)
	m.table.Use(m.snap)
}

// sweepAll leaves no expired flow and no dead entry.
func (m *model) sweepAll() {
	for range 3 { // an entry with two lanes may need its second one swept as well
		for !m.table.SweepAll(m.now) {
			m.reap(false)
		}
		m.reap(false)
	}
	if n := m.table.Len(); n != len(m.live) {
		m.Fatalf("after a sweep the table counts %d flows, there are %d", n, len(m.live))
	}
	for k, f := range m.live {
		if int32(m.now-f.seen) > m.timeout(f) {
			m.Fatalf("flow %+v %+v outlived its timeout", k, f)
		}
	}
}

// allFree checks that no entry and no lane was lost: the empty table takes as many flows as it has entries.
func (m *model) allFree() {
	for n := range m.table.buckets {
		if b := &m.table.buckets[n]; !b.empty() || b.away() != 0 || b.guests() != 0 {
			m.Fatalf("bucket %d of an empty table: % x", n, b.fp)
		}
	}
	seen := map[uint32]bool{}
	for range m.table.Cap() {
		i := m.table.alloc()
		if i == 0 || int(i) > m.table.Cap() || seen[i] {
			m.Fatalf("entry %d was handed out after %d others", i, len(seen))
		}
		seen[i] = true
	}
	if i := m.table.alloc(); i != 0 {
		m.Fatalf("entry %d is one too many", i)
	}
}

func TestTableModel(t *testing.T) { rapid.Check(t, modelProperty) }

func FuzzTableModel(f *testing.F) { f.Fuzz(rapid.MakeFuzz(modelProperty)) }
