package dataplane_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"

	"xlvs/dataplane"
	"xlvs/dataplane/flow"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/memio"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

var (
	clientMAC = table.MAC{2, 0, 0, 0, 0xc, 1}
	portMAC   = [2]table.MAC{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}}
	portV4    = [2]netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.1.0.1")}
	portV6    = [2]netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:1::1")}
)

// a svc describes one service of a test's snapshot. Its backends are reached through port 1.
type svc struct {
	mode   table.Mode
	v6     bool
	udp    bool
	outer6 bool // TUN: family of the backends
	n      int  // backends; 0 stands for 3
	off    []int
	gone   []int
	edit   func(*table.Service)
	be     func(i int, b *table.Backend)
}

func (s svc) String() string {
	name := s.mode.String() + map[bool]string{false: "/v4", true: "/v6"}[s.v6]
	if s.mode == table.TUN {
		name += map[bool]string{false: "-in-v4", true: "-in-v6"}[s.outer6]
	}
	return name + map[bool]string{false: "/tcp", true: "/udp"}[s.udp]
}

// matrix is every combination of mode, family and protocol.
func matrix() (all []svc) {
	for _, udp := range []bool{false, true} {
		for _, v6 := range []bool{false, true} {
			all = append(all, svc{mode: table.DR, v6: v6, udp: udp}, svc{mode: table.NAT, v6: v6, udp: udp},
				svc{mode: table.TUN, v6: v6, udp: udp}, svc{mode: table.TUN, v6: v6, udp: udp, outer6: true})
		}
	}
	return all
}

const (
	vport  = 80
	natRS  = 8080 // a NAT backend's port
	perSvc = 16   // backend slots of each service
)

func pick(v6 bool, v4addr, v6addr string, n int) netip.Addr {
	if v6 {
		return netip.MustParseAddr(fmt.Sprintf(v6addr, n))
	}
	return netip.MustParseAddr(fmt.Sprintf(v4addr, n))
}

func (s svc) vip(i int) netip.AddrPort {
	return netip.AddrPortFrom(pick(s.v6, "203.0.113.%d", "2001:db8:f::%x", 10+i), vport)
}

func (s svc) beV6() bool { return s.v6 && s.mode != table.TUN || s.mode == table.TUN && s.outer6 }

// snapshot builds one with the services given, backends of service i in the slots from i*perSvc.
func snapshot(t testing.TB, services ...svc) *table.Snapshot {
	t.Helper()
	s := &table.Snapshot{Generation: 1, Timeouts: flow.DefaultTimeouts(),
		Services: make([]table.Service, len(services)), Backends: make([]table.Backend, perSvc*len(services))}
	for i := range portMAC {
		s.Ports = append(s.Ports, table.Port{Name: fmt.Sprint("p", i), MAC: portMAC[i], MTU: 1500,
			V4: packet.FromNetip(portV4[i]), V6: packet.FromNetip(portV6[i])})
	}
	for i, d := range services {
		addService(s, i, d)
	}
	snap, err := table.New(s)
	if err != nil {
		t.Fatal(err)
	}
	return snap
}

func addService(s *table.Snapshot, i int, d svc) {
	v := &s.Services[i]
	*v = table.Service{Live: true, Ref: table.MakeRef(i, 1), Name: d.String(), Addr: packet.FromNetip(d.vip(i).Addr()), V6: d.v6,
		Port: vport, Proto: packet.ProtoTCP, Mode: d.mode}
	if d.udp {
		v.Proto = packet.ProtoUDP
	}
	if d.n == 0 {
		d.n = 3
	}
	has := func(l []int, x int) bool {
		for _, y := range l {
			if x == y {
				return true
			}
		}
		return false
	}
	for k := range d.n {
		slot := i*perSvc + k
		b := &s.Backends[slot]
		if has(d.gone, k) {
			continue
		}
		*b = table.Backend{Live: true, Ref: table.MakeRef(slot, 1), Service: v.Ref, Name: fmt.Sprintf("%s-%d", d, k),
			Addr: packet.FromNetip(pick(d.beV6(), "10.1.0.%d", "2001:db8:1::%x", 10+slot)), V6: d.beV6(), Port: vport,
			Up: !has(d.off, k), Resolved: true, Out: 1, MTU: 1500,
			Eth: table.Eth(table.MAC{2, 0, 0, 0, 0xb, byte(slot)}, portMAC[1])}
		if d.mode == table.NAT {
			b.Port = natRS
		}
		b.TunSrc = packet.FromNetip(portV4[1])
		if d.beV6() {
			b.TunSrc = packet.FromNetip(portV6[1])
		}
		if d.be != nil {
			d.be(k, b)
		}
		if b.Up {
			v.Members = append(v.Members, b.Ref)
		}
	}
	for k := range 251 {
		if len(v.Members) > 0 {
			v.Slots = append(v.Slots, uint16(k%len(v.Members)))
		}
	}
	if d.edit != nil {
		d.edit(v)
	}
}

// A lab is an engine on memory ports, stepped by the test.
type lab struct {
	testing.TB
	e     *dataplane.Engine
	mems  []*dataplane.Memory
	ports [][]*memio.Port
	now   uint32
	last  dataplane.Counters
}

const labChunks = 256

func newLab(t testing.TB, workers int, edit ...func(*dataplane.Options)) *lab {
	t.Helper()
	l := &lab{TB: t, now: 1000}
	o := dataplane.Options{Flows: 1024, Seed: "test", EventRing: 4096}
	for range workers {
		mem, err := dataplane.NewMemory(make([]byte, labChunks*2048), 2048)
		if err != nil {
			t.Fatal(err)
		}
		ports := []*memio.Port{memio.New(mem), memio.New(mem)}
		l.mems, l.ports = append(l.mems, mem), append(l.ports, ports)
		o.Workers = append(o.Workers, dataplane.WorkerOptions{CPU: -1, Memory: mem, Ports: []dataplane.Port{ports[0], ports[1]}})
	}
	for _, f := range edit {
		f(&o)
	}
	e, err := dataplane.New(o)
	if err != nil {
		t.Fatal(err)
	}
	l.e = e
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// step gives frames to a worker's port, lets the worker work and returns what it sent on each port. No chunk
// may be missing afterwards.
func (l *lab) step(worker, port int, frames ...[]byte) [2][][]byte {
	l.Helper()
	for _, f := range frames {
		if !l.ports[worker][port].Inject(f) {
			l.Fatal("frame not taken")
		}
	}
	l.e.Step(worker, l.now)
	if n, held := memio.InHand(l.mems[worker], l.ports[worker]...), l.e.Worker(worker).FragmentsHeld; n != int(held) {
		l.Fatalf("%d chunks in hand, %d held", n, held)
	}
	return [2][][]byte{l.ports[worker][0].Sent(), l.ports[worker][1].Sent()}
}

// one steps a single frame and returns the single frame sent on port out, or nil if none left at all.
func (l *lab) one(worker, in, out int, f []byte) []byte {
	l.Helper()
	sent := l.step(worker, in, f)
	if len(sent[1-out]) != 0 {
		l.Fatalf("%d frames left by port %d", len(sent[1-out]), 1-out)
	}
	switch len(sent[out]) {
	case 0:
		return nil
	case 1:
		return sent[out][0]
	}
	l.Fatalf("%d frames sent for one", len(sent[out]))
	return nil
}

// delta returns what the counters grew by since the last call.
func (l *lab) delta() dataplane.Counters {
	now := l.e.Counters()
	d := now
	d.FlowsNew -= l.last.FlowsNew
	d.FlowsEnded -= l.last.FlowsEnded
	d.FlowsEvicted -= l.last.FlowsEvicted
	d.ICMPErrors -= l.last.ICMPErrors
	d.Echoes -= l.last.Echoes
	d.Replies -= l.last.Replies
	d.ICMPForwarded -= l.last.ICMPForwarded
	d.Fragmented -= l.last.Fragmented
	d.RxPackets -= l.last.RxPackets
	for i := range d.Forwarded {
		d.Forwarded[i] -= l.last.Forwarded[i]
	}
	for i := range d.Drops {
		d.Drops[i] -= l.last.Drops[i]
	}
	l.last = now
	return d
}

// wantDrop fails unless the counters grew by exactly one drop, for that reason, and nothing was forwarded.
func (l *lab) wantDrop(why dataplane.Reason) {
	l.Helper()
	d := l.delta()
	for i, n := range d.Drops {
		if want := uint64(0); dataplane.Reason(i) == why {
			want = 1
			if n != want {
				l.Errorf("%d drops for %v, want 1", n, why)
			}
		} else if n != want {
			l.Errorf("%d drops for %v, want 1 for %v", n, dataplane.Reason(i), why)
		}
	}
	if n := d.Forwarded[0] + d.Forwarded[1] + d.Forwarded[2]; n != 0 {
		l.Errorf("%d dropped frames count as forwarded", n)
	}
}

// client returns what client number n sends to service i.
func (s svc) client(i, n int, flags uint8) frametest.Spec {
	src := pick(s.v6, "198.51.100.%d", "2001:db8:c::%x", 1+n%250)
	return frametest.Spec{DstMAC: portMAC[0], SrcMAC: clientMAC, Src: netip.AddrPortFrom(src, uint16(30000+n)), Dst: s.vip(i),
		UDP: s.udp, Flags: flags, DF: true, ID: uint16(n), TOS: 0x28, Payload: []byte("payload!")}
}

// toBackend returns the frame that must arrive at b; out is the frame that came, for the fields an outer header may choose.
func (s svc) toBackend(t testing.TB, c frametest.Spec, b *table.Backend, out []byte) []byte {
	t.Helper()
	c.TTL, c.Unfinished = c.Build()[s.ttlAt(c)]-1, false
	c.DstMAC, c.SrcMAC = [6]byte(b.Eth[:6]), [6]byte(b.Eth[6:])
	switch s.mode {
	case table.NAT:
		c.Dst = netip.AddrPortFrom(b.Addr.Netip(), b.Port)
	case table.TUN:
		f, err := frametest.Decode(out)
		if err != nil {
			t.Fatal(err)
		}
		return c.Wrap(frametest.Tunnel{DstMAC: c.DstMAC, SrcMAC: c.SrcMAC, Src: b.TunSrc.Netip(), Dst: b.Addr.Netip(),
			ID: f.IP.ID, Label: f.IP.Label, DF: !s.v6 && c.DF})
	}
	return c.Build()
}

func (s svc) ttlAt(c frametest.Spec) int {
	l3 := 14
	if c.VLAN != 0 {
		l3 = 18
	}
	if s.v6 {
		return l3 + 7
	}
	return l3 + 8
}

// picked returns the backend that a new flow of c would get.
func (l *lab) picked(c frametest.Spec) *table.Backend {
	l.Helper()
	proto := uint8(packet.ProtoTCP)
	if c.UDP {
		proto = packet.ProtoUDP
	}
	_, b, err := l.e.Explain(packet.FromNetip(c.Src.Addr()), packet.FromNetip(c.Dst.Addr()), packet.MakePorts(c.Src.Port(), c.Dst.Port()), proto)
	if err != nil || b == nil {
		l.Fatalf("no backend for %v: %v", c.Dst, err)
	}
	return b
}

func (l *lab) same(what string, got, want []byte) {
	l.Helper()
	if got == nil {
		l.Fatalf("%s: nothing was sent; drops %v", what, l.e.Counters().Drops)
	}
	if !bytes.Equal(got, want) {
		l.Fatalf("%s:\n got % x\nwant % x", what, got, want)
	}
	if _, err := frametest.Decode(got); err != nil {
		l.Fatalf("%s: %v", what, err)
	}
}

func addrPort(b *table.Backend) netip.AddrPort { return netip.AddrPortFrom(b.Addr.Netip(), b.Port) }

func addrPortOn(b *table.Backend, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(b.Addr.Netip(), port)
}
