package dataplane_test

import (
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"xlvs/dataplane"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/memio"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// replaying is an engine of one worker whose port delivers one service's packets for ever.
type replaying struct {
	e    *dataplane.Engine
	mem  *dataplane.Memory
	port *memio.Port
}

// clients makes of each frame one of 2^order flows by changing the client's address and port, in an order
// that jumps about; TCP frames carry a SYN the first time round.
type clients struct {
	v6, udp bool
	order   uint
	fresh   bool // never the same flow twice: every packet opens one
	vlan    bool // in a VLAN of the director's
}

func (c clients) vary(f []byte, n uint64) {
	id := uint32(n)
	first := true
	if !c.fresh {
		first = n>>c.order == 0
		id = uint32(n*0x9e3779b1) & (1<<c.order - 1)
	}
	if c.vlan {
		f = f[packet.VLANLen:]
	}
	l4 := 34
	if c.v6 {
		l4 = 54
		binary.BigEndian.PutUint32(f[34:], id>>8)
	} else {
		binary.BigEndian.PutUint32(f[26:], 0xc0000000|id>>8)
	}
	binary.BigEndian.PutUint16(f[l4:], 1024+uint16(id&0xff))
	if !c.udp {
		f[l4+13] = frametest.ACK
		if first {
			f[l4+13] = frametest.SYN
		}
	}
}

const (
	replayChunks  = 4096
	replayRestore = 78 // Ethernet, VLAN, IPv6 and TCP headers
	replayVLAN    = 42
)

func replay(t testing.TB, s svc, flows int, c clients) *replaying {
	t.Helper()
	mem, err := dataplane.NewMemory(make([]byte, replayChunks*2048), 2048)
	if err != nil {
		t.Fatal(err)
	}
	r := &replaying{mem: mem, port: memio.New(mem)}
	sink := memio.New(mem)
	r.e, err = dataplane.New(dataplane.Options{Flows: flows, Seed: "bench", Workers: []dataplane.WorkerOptions{
		{CPU: -1, Memory: mem, Ports: []dataplane.Port{r.port, sink}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if n := memio.InHand(mem, r.port); n != 0 {
			t.Errorf("%d chunks leaked", n)
		}
		if err := r.e.Close(); err != nil {
			t.Error(err)
		}
	})
	s.be = func(_ int, b *table.Backend) { b.Out = 0 }
	s.n = 16
	snap := snapshot(t, s)
	spec := s.client(0, 1, ack)
	spec.Payload = nil
	if c.vlan {
		snap = inVLAN(t, snap, replayVLAN)
		spec.VLAN = replayVLAN
	}
	r.e.Publish(snap)
	f := spec.Build()
	for len(f) < 60 {
		f = append(f, 0)
	}
	if err := r.port.Replay(memio.Replay{Frames: [][]byte{f}, Restore: replayRestore, Vary: c.vary}); err != nil {
		t.Fatal(err)
	}
	return r
}

// inVLAN returns a snapshot with a VLAN on the first interface, by which all backends are reached.
func inVLAN(t testing.TB, s *table.Snapshot, id uint16) *table.Snapshot {
	t.Helper()
	in := &table.Snapshot{Generation: s.Generation, Services: slices.Clone(s.Services), Backends: slices.Clone(s.Backends), Ports: slices.Clone(s.Ports), Timeouts: s.Timeouts}
	vlan := in.Ports[0]
	vlan.Tags = packet.Tags(0).Within(packet.EtherVLAN, id)
	in.Ports = append(in.Ports, vlan)
	for i := range in.Backends {
		in.Backends[i].Out = uint8(len(in.Ports) - 1)
	}
	in, err := table.New(in)
	if err != nil {
		t.Fatal(err)
	}
	return in
}

// perPoll is how many frames a worker takes in one poll from a port that always has more.
const perPoll = dataplane.BurstsPerPoll * dataplane.MaxBurst

// No packet, of a known flow or a new one, in any mode or family, costs an allocation.
func TestNoAllocations(t *testing.T) {
	for _, s := range matrix() {
		for _, c := range []clients{{}, {fresh: true}, {vlan: true}, {vlan: true, fresh: true}} {
			fresh := c.fresh
			c.v6, c.udp, c.order = s.v6, s.udp, 10
			t.Run(fmt.Sprintf("%v/new=%v/vlan=%v", s, fresh, c.vlan), func(t *testing.T) {
				r := replay(t, s, 4096, c)
				now := uint32(1)
				step := func() { r.e.Step(0, now); now++ }
				for range 100 {
					step()
				}
				before := r.e.Counters()
				if n := testing.AllocsPerRun(200, step); n != 0 {
					t.Errorf("%v allocations a poll", n)
				}
				c := r.e.Counters()
				if got := c.Forwarded[s.mode] - before.Forwarded[s.mode]; got != 201*perPoll {
					t.Errorf("%d frames forwarded, want %d; drops %v", got, 201*perPoll, c.Drops)
				}
				if got := c.FlowsNew - before.FlowsNew; fresh != (got == 201*perPoll) {
					t.Errorf("%d new flows", got)
				}
			})
		}
	}
}

// The same for what is answered or dropped.
func TestNoAllocationsOffTheMainPath(t *testing.T) {
	s := svc{mode: table.NAT}
	l := newLab(t, 1, func(o *dataplane.Options) { o.FlowSample = 1 })
	l.e.Publish(snapshot(t, s))
	c := s.client(0, 1, syn)
	back, _ := reply(c, l.picked(c), synack)
	lost, noFlow := c, s.client(0, 2, ack)
	lost.TTL = 1
	frames := [][]byte{c.Build(), back.Build(), lost.Build(), noFlow.Build(), c.Echo(false, 1, 1), {1, 2, 3}}
	port := memio.New(l.mems[0])
	e, err := dataplane.New(dataplane.Options{Flows: 1024, Seed: "test", FlowSample: 1, EventRing: 64,
		Workers: []dataplane.WorkerOptions{{CPU: -1, Memory: l.mems[0], Ports: []dataplane.Port{port, memio.New(l.mems[0])}}}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	e.Publish(snapshot(t, svc{mode: table.NAT, be: func(_ int, b *table.Backend) { b.Out = 0 }}))
	if err := port.Replay(memio.Replay{Frames: frames, Restore: 2048}); err != nil {
		t.Fatal(err)
	}
	now := uint32(1)
	if n := testing.AllocsPerRun(100, func() { e.Step(0, now); now += 10 }); n != 0 {
		t.Errorf("%v allocations a poll", n)
	}
	got := e.Counters()
	if got.Echoes == 0 || got.ICMPErrors == 0 || got.Replies == 0 || got.Drops[dataplane.DropNoFlow] == 0 ||
		got.Drops[dataplane.DropMalformed] == 0 || got.Drops[dataplane.DropICMPLimited] == 0 {
		t.Errorf("not every way was taken: %+v", got)
	}
}

func harness(b *testing.B, s svc, order uint) {
	mem, err := dataplane.NewMemory(make([]byte, replayChunks*2048), 2048)
	if err != nil {
		b.Fatal(err)
	}
	p := memio.New(mem)
	c := s.client(0, 1, ack)
	c.Payload = nil
	f := c.Build()
	for len(f) < 60 {
		f = append(f, 0)
	}
	if err := p.Replay(memio.Replay{Frames: [][]byte{f}, Restore: replayRestore, Vary: clients{v6: s.v6, udp: s.udp, order: order}.vary}); err != nil {
		b.Fatal(err)
	}
	var burst [dataplane.MaxBurst]dataplane.Frame
	b.ResetTimer()
	n := 0
	for ; n < b.N; n += dataplane.MaxBurst {
		p.Send(burst[:p.Recv(burst[:])])
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/packet")
}

// BenchmarkHarness is what BenchmarkPipeline costs without the pipeline: memio alone. One operation is a packet.
func BenchmarkHarness(b *testing.B) {
	for _, s := range []svc{{}, {v6: true}} {
		for _, order := range []uint{0, 20} {
			b.Run(fmt.Sprintf("%s/flows=%d", map[bool]string{false: "v4", true: "v6"}[s.v6], 1<<order), func(b *testing.B) { harness(b, s, order) })
		}
	}
}

// step works n packets through and ticks the clock about as fast as a loaded worker's would.
func (r *replaying) run(n int, now *uint32) {
	for k := 0; k < n; k += perPoll {
		if k/perPoll&127 == 0 {
			*now++
		}
		r.e.Step(0, *now)
	}
}

// BenchmarkPipeline is a packet's way from Recv to Send, memio's own cost included (see BenchmarkHarness); one
// operation is a packet. TCP flows are opened before the clock starts; "new" opens one with each packet.
func BenchmarkPipeline(b *testing.B) {
	for _, s := range []svc{{mode: table.DR}, {mode: table.DR, v6: true}, {mode: table.TUN}, {mode: table.TUN, v6: true, outer6: true},
		{mode: table.NAT}, {mode: table.NAT, v6: true}} {
		family := map[bool]string{false: "v4", true: "v6"}[s.v6]
		for _, order := range []uint{0, 10, 16, 20} {
			b.Run(fmt.Sprintf("%v/%s/flows=%d", s.mode, family, 1<<order), func(b *testing.B) {
				benchPipeline(b, s, clients{v6: s.v6, order: order})
			})
		}
		b.Run(fmt.Sprintf("%v/%s/vlan/flows=%d", s.mode, family, 1<<16), func(b *testing.B) {
			benchPipeline(b, s, clients{v6: s.v6, order: 16, vlan: true})
		})
		b.Run(fmt.Sprintf("%v/%s/new", s.mode, family), func(b *testing.B) {
			benchPipeline(b, s, clients{v6: s.v6, fresh: true})
		})
	}
}

func benchPipeline(b *testing.B, s svc, c clients) {
	r := replay(b, s, max(2<<c.order, 65536), c)
	now := uint32(1)
	r.run(max(2<<c.order, 8192), &now)
	before := r.e.Counters()
	b.ReportAllocs()
	b.ResetTimer()
	r.run(b.N, &now)
	b.StopTimer()
	after := r.e.Counters()
	n := after.RxPackets - before.RxPackets
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/packet")
	// In a table that is half full a few flows lose their place to others of their bucket.
	if f := after.Forwarded[s.mode] - before.Forwarded[s.mode]; f < n-n/50 {
		b.Fatalf("%d of %d packets forwarded: %v", f, n, after.Drops)
	}
}
