package dataplane_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"xlvs/dataplane"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/table"
)

// A packet that is not forwarded is counted under its reason, and answered with the right ICMP error or with nothing.
func TestDrops(t *testing.T) {
	type icmp struct{ type4, code4, type6, code6 uint8 }
	timeExceeded := &icmp{11, 0, 3, 0}
	unreachable := &icmp{3, 3, 1, 4}
	for _, tc := range []struct {
		name string
		on   func(*svc)
		c    func(*frametest.Spec)
		raw  func(f []byte) []byte
		only func(svc) bool
		why  dataplane.Reason
		icmp *icmp
	}{
		{name: "mid-stream without flow", c: func(c *frametest.Spec) { c.Flags = ack }, only: tcp, why: dataplane.DropNoFlow},
		{name: "SYN-ACK without flow", c: func(c *frametest.Spec) { c.Flags = synack }, only: tcp, why: dataplane.DropNoFlow},
		{name: "RST without flow", c: func(c *frametest.Spec) { c.Flags = rst }, only: tcp, why: dataplane.DropNoFlow},
		{name: "SYN with RST", c: func(c *frametest.Spec) { c.Flags = syn | rst }, only: tcp, why: dataplane.DropNoFlow},
		{name: "no flags", c: func(c *frametest.Spec) { c.Flags = 0 }, only: tcp, why: dataplane.DropNoFlow},
		{name: "sloppy RST", on: func(s *svc) { s.edit = func(v *table.Service) { v.SloppyTCP = true } }, c: func(c *frametest.Spec) { c.Flags = rst }, only: tcp, why: dataplane.DropNoFlow},
		{name: "no backend", on: func(s *svc) { s.off = []int{0, 1, 2} }, why: dataplane.DropNoBackend},
		{name: "no backend, reject", on: func(s *svc) {
			s.off = []int{0, 1, 2}
			s.edit = func(v *table.Service) { v.Reject = true }
		}, why: dataplane.DropNoBackend, icmp: unreachable},
		{name: "no flow on a service that rejects", on: func(s *svc) { s.edit = func(v *table.Service) { v.Reject = true } },
			c: func(c *frametest.Spec) { c.Flags = ack }, only: tcp, why: dataplane.DropNoFlow},
		{name: "unresolved neighbour", on: func(s *svc) { s.be = func(_ int, b *table.Backend) { b.Resolved = false } }, why: dataplane.DropNoNeighbour},
		{name: "TTL 1", c: func(c *frametest.Spec) { c.TTL = 1 }, why: dataplane.DropTTL, icmp: timeExceeded},
		{name: "TTL 0", raw: setTTL0, why: dataplane.DropTTL, icmp: timeExceeded},
		{name: "TTL 1 from nowhere", c: func(c *frametest.Spec) {
			c.TTL = 1
			c.Src = netip.AddrPortFrom(zero(c.V6()), 5)
		}, why: dataplane.DropTTL},
		{name: "TTL 1 from a group", c: func(c *frametest.Spec) {
			c.TTL = 1
			c.Src = netip.AddrPortFrom(pick(c.V6(), "224.0.0.%d", "ff02::%x", 5), 5)
		}, why: dataplane.DropTTL},
		{name: "TTL 1 to a multicast MAC", c: func(c *frametest.Spec) { c.TTL, c.DstMAC = 1, [6]byte{1, 0, 0x5e} }, why: dataplane.DropTTL},
		{name: "another port of the VIP", c: func(c *frametest.Spec) { c.Dst = netip.AddrPortFrom(c.Dst.Addr(), 81) }, why: dataplane.DropNotOurs},
		{name: "another protocol", c: func(c *frametest.Spec) { c.UDP = !c.UDP }, why: dataplane.DropNotOurs},
		{name: "another address", c: func(c *frametest.Spec) { c.Dst = netip.AddrPortFrom(c.Dst.Addr().Next(), vport) }, why: dataplane.DropNotOurs},
		{name: "cut off", raw: func(f []byte) []byte { return f[:len(f)-9] }, why: dataplane.DropMalformed},
		{name: "no frame", raw: func([]byte) []byte { return []byte{1} }, why: dataplane.DropMalformed},
		{name: "ARP", raw: func(f []byte) []byte { f[12], f[13] = 8, 6; return f }, why: dataplane.DropNotOurs},
		{name: "mapped addresses", raw: mapped, only: func(s svc) bool { return !s.v6 }, why: dataplane.DropMalformed},
	} {
		for _, s := range matrix() {
			if tc.only != nil && !tc.only(s) {
				continue
			}
			t.Run(tc.name+"/"+s.String(), func(t *testing.T) {
				if tc.on != nil {
					tc.on(&s)
				}
				l := newLab(t, 1)
				l.e.Publish(snapshot(t, s))
				c := s.client(0, 1, syn)
				if tc.c != nil {
					tc.c(&c)
				}
				f := c.Build()
				if tc.raw != nil {
					f = tc.raw(f)
				}
				got := l.one(0, 0, 0, f)
				l.wantDrop(tc.why)
				if tc.icmp == nil {
					if got != nil {
						t.Fatalf("sent % x", got)
					}
					return
				}
				want := frametest.ICMPError{Type: tc.icmp.type4, Code: tc.icmp.code4}
				if s.v6 {
					want = frametest.ICMPError{Type: tc.icmp.type6, Code: tc.icmp.code6}
				}
				l.icmpError(got, f, want)
			})
		}
	}
}

func tcp(s svc) bool { return !s.udp }

func zero(v6 bool) netip.Addr {
	if v6 {
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}

func setTTL0(f []byte) []byte {
	if f[12] == 0x86 {
		f[14+7] = 0
		return f
	}
	f[14+8] = 0
	binary.BigEndian.PutUint16(f[24:], 0)
	binary.BigEndian.PutUint16(f[24:], ^frametest.Sum(f[14:34]))
	return f
}

// mapped makes an IPv6 packet of an IPv4 one, with addresses from ::ffff:0:0/96, which no wire may carry (RFC 4942, 2.2).
func mapped(f []byte) []byte {
	g := append([]byte{}, f[:12]...)
	g = append(g, 0x86, 0xdd, 0x60, 0, 0, 0)
	g = binary.BigEndian.AppendUint16(g, uint16(len(f)-34))
	g = append(g, f[23], f[22])
	prefix := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}
	g = append(append(g, prefix...), f[26:30]...)
	g = append(append(g, prefix...), f[30:34]...)
	return append(g, f[34:]...)
}

func TestSloppyTCP(t *testing.T) {
	for _, s := range matrix() {
		if s.udp {
			continue
		}
		t.Run(s.String(), func(t *testing.T) {
			s.edit = func(v *table.Service) { v.SloppyTCP = true }
			l := newLab(t, 1)
			l.e.Publish(snapshot(t, s))
			c := s.client(0, 1, ack)
			got := l.one(0, 0, 1, c.Build())
			l.same("mid-stream", got, s.toBackend(t, c, l.picked(c), got))
			if d := l.delta(); d.FlowsNew != 1 {
				t.Errorf("%d new flows", d.FlowsNew)
			}
		})
	}
}

// No room in the transmit ring is a counted drop and no leak.
func TestTxFull(t *testing.T) {
	s := svc{}
	l := newLab(t, 1)
	l.e.Publish(snapshot(t, s))
	l.ports[0][1].SetRoom(2)
	var in [][]byte
	for n := range 5 {
		in = append(in, s.client(0, n, syn).Build())
	}
	if sent := l.step(0, 0, in...); len(sent[1]) != 2 {
		t.Errorf("%d sent", len(sent[1]))
	}
	if d := l.delta(); d.Drops[dataplane.DropTx] != 3 {
		t.Errorf("drops %v", d.Drops)
	}
}

// Before anything is published, and with a service on every port, frames find their way too.
func TestAnyPortAndEmptySnapshot(t *testing.T) {
	s := svc{mode: table.NAT}
	l := newLab(t, 1)
	c := s.client(0, 1, syn)
	if l.one(0, 0, 0, c.Build()) != nil {
		t.Error("something was sent without a configuration")
	}
	l.wantDrop(dataplane.DropNotOurs)
	s.edit = func(v *table.Service) { v.Port = 0 }
	s.be = func(_ int, b *table.Backend) { b.Port = 0 }
	l.e.Publish(snapshot(t, s))
	c.Dst = netip.AddrPortFrom(c.Dst.Addr(), 4711)
	b := *l.picked(c)
	b.Port = 4711
	got := l.one(0, 0, 1, c.Build())
	l.same("port 0", got, s.toBackend(t, c, &b, got))
	in, want := reply(c, &b, synack)
	l.same("reply", l.one(0, 1, 0, in.Build()), want.Build())
}

// cramped is a port that delivers its frames without headroom.
type cramped struct{ dataplane.Port }

func (c cramped) Recv(b []dataplane.Frame) int {
	n := c.Port.Recv(b)
	for i := range b[:n] {
		b[i].Len += b[i].Off
		b[i].Off = 0
	}
	return n
}

// Without room for the outer header a packet is dropped, under that reason alone.
func TestNoHeadroom(t *testing.T) {
	for _, s := range matrix() {
		if s.mode != table.TUN {
			continue
		}
		l := newLab(t, 1, func(o *dataplane.Options) { o.Workers[0].Ports[0] = cramped{o.Workers[0].Ports[0]} })
		l.e.Publish(snapshot(t, s))
		// memio puts 256 bytes in front of what is injected; as the frame starts with them now, they carry it.
		f := s.client(0, 1, syn).Build()
		copy(l.mems[0].Chunk(0), f)
		got := l.one(0, 0, 1, make([]byte, 200))
		l.wantDrop(dataplane.DropNoHeadroom)
		if got != nil {
			t.Errorf("sent % x", got)
		}
	}
}

// A service that leaves the snapshot takes no more packets, whatever came before.
func TestServiceRemoved(t *testing.T) {
	for _, s := range matrix() {
		l := newLab(t, 1)
		l.e.Publish(snapshot(t, s))
		l.establish(s, 1)
		l.goesTo(s, s.client(0, 1, ack))
		l.e.Publish(snapshot(t, svc{mode: s.mode, v6: s.v6, udp: !s.udp, outer6: s.outer6}))
		l.delta()
		if l.one(0, 0, 1, s.client(0, 1, ack).Build()) != nil {
			t.Errorf("%v: still served", s)
		}
		l.wantDrop(dataplane.DropNotOurs)
	}
}

// A worker's ports may be in another order than the snapshot's interfaces.
func TestInterfaceOrder(t *testing.T) {
	s := svc{mode: table.NAT}
	l := newLab(t, 1, func(o *dataplane.Options) {
		w := &o.Workers[0]
		w.Interfaces = []int{1, 0}
		w.Ports = []dataplane.Port{w.Ports[1], w.Ports[0]}
	})
	l.e.Publish(snapshot(t, s))
	c := s.client(0, 1, syn)
	b := l.picked(c)
	got := l.one(0, 0, 1, c.Build())
	l.same("request", got, s.toBackend(t, c, b, got))
	in, want := reply(c, b, synack)
	l.same("reply", l.one(0, 1, 0, in.Build()), want.Build())
}
