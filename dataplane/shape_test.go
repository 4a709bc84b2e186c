package dataplane_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"xlvs/dataplane"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// onPrefix puts a service on the prefix of 16 addresses around its own, and c's destination on its n-th address.
func onPrefix(v *table.Service) {
	v.Bits = 124
	v.Addr = v.Addr.And(table.MaskBits(124))
}

func toAddress(c frametest.Spec, n int) frametest.Spec {
	b := c.Dst.Addr().As16()
	b[15] = b[15]&0xf0 | byte(n)
	c.Dst = netip.AddrPortFrom(netip.AddrFrom16(b).Unmap(), c.Dst.Port())
	return c
}

// All addresses of a prefix are VIPs of one service; flows that differ in nothing else are different flows, and
// NAT's replies come from the address that was asked.
func TestPrefix(t *testing.T) {
	for _, s := range matrix() {
		t.Run(s.String(), func(t *testing.T) {
			s.edit = onPrefix
			l := newLab(t, 1)
			l.e.Publish(snapshot(t, s))
			chosen := map[*table.Backend]bool{}
			for n := range 16 {
				c := toAddress(s.client(0, 1, syn), n)
				b := l.picked(c)
				chosen[b] = true
				for _, flags := range []uint8{syn, ack, ack} {
					c.Flags = flags
					got := l.one(0, 0, 1, c.Build())
					l.same("to the prefix", got, s.toBackend(t, c, b, got))
				}
				if s.mode == table.NAT {
					in, want := reply(c, b, synack)
					l.same("reply", l.one(0, 1, 0, in.Build()), want.Build())
					c.Flags = rst
					l.one(0, 0, 1, c.Build()) // over, or the backend could not tell the next from it: see docs/limits.md
					l.now += 1_000_000
					for range 10 {
						l.now += 1000
						l.e.Step(0, l.now)
					}
				}
			}
			if d := l.delta(); d.FlowsNew != 16 {
				t.Errorf("%d new flows, want one for each address", d.FlowsNew)
			}
			if len(chosen) < 2 {
				t.Error("all addresses of the prefix have one backend")
			}
			outside := toAddress(s.client(0, 1, syn), 15)
			outside.Dst = netip.AddrPortFrom(outside.Dst.Addr().Next(), outside.Dst.Port())
			if l.one(0, 0, 0, outside.Build()) != nil {
				t.Error("an address beyond the prefix was served")
			}
			l.wantDrop(dataplane.DropNotOurs)
		})
	}
}

// Flows of a prefix end like others: their buckets are found again.
func TestPrefixFlowsEnd(t *testing.T) {
	s := svc{udp: true, edit: onPrefix}
	l := newLab(t, 1)
	l.e.Publish(snapshot(t, s))
	for n := range 160 {
		l.one(0, 0, 1, toAddress(s.client(0, n/16, 0), n%16).Build())
	}
	if n := l.e.FlowTable(0).Used; n != 160 {
		t.Fatalf("%d flows, want 160", n)
	}
	l.forget(t)
}

// With hash: source, and with persistence, all flows of a client have one backend, and clients are spread.
func TestOneBackendForAClient(t *testing.T) {
	for _, s := range matrix() {
		for name, edit := range map[string]func(*table.Service){
			"source":         func(v *table.Service) { v.BySource, v.Mask = true, table.MaskBits(128) },
			"persistence":    func(v *table.Service) { v.Persist, v.Mask = 360_000, table.MaskBits(128) },
			"on every port":  func(v *table.Service) { v.Port, v.BySource, v.Mask = 0, true, table.MaskBits(128) },
			"with both":      func(v *table.Service) { v.BySource, v.Persist, v.Mask = true, 1000, table.MaskBits(128) },
			"and prefix":     func(v *table.Service) { onPrefix(v); v.BySource, v.Mask = true, table.MaskBits(128) },
			"persist prefix": func(v *table.Service) { onPrefix(v); v.Persist, v.Mask = 360_000, table.MaskBits(128) },
		} {
			t.Run(s.String()+"/"+name, func(t *testing.T) {
				s.edit, s.be = edit, func(_ int, b *table.Backend) { b.Port = vport }
				l := newLab(t, 1)
				l.e.Publish(snapshot(t, s))
				used := map[int]bool{}
				for client := range 12 {
					first := -1
					for port := range 6 {
						c := s.client(0, client, syn)
						c.Src = netip.AddrPortFrom(c.Src.Addr(), uint16(40000+port))
						be := l.goesTo(s, c)
						if first < 0 {
							first = be
							if want := l.picked(c).Ref.Slot(); be != want {
								t.Fatalf("Explain says backend %d, and it went to %d", want, be)
							}
						}
						if be != first {
							t.Fatalf("client %d goes to backends %d and %d", client, first, be)
						}
					}
					used[first] = true
				}
				if len(used) < 2 {
					t.Errorf("12 clients are at %d backend", len(used))
				}
			})
		}
	}
}

// A masked client address keeps a network together.
func TestMask(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		s := svc{v6: v6, edit: func(v *table.Service) { v.Persist, v.Mask = 1000, table.MaskBits(112+8) }}
		l := newLab(t, 1)
		l.e.Publish(snapshot(t, s))
		be := l.goesTo(s, s.client(0, 1, syn))
		for n := 2; n < 40; n++ {
			if got := l.goesTo(s, s.client(0, n, syn)); got != be {
				t.Fatalf("v6 %v: client %d goes to %d, its network to %d", v6, n, got, be)
			}
		}
	}
}

// reshuffled is a snapshot in which every slot has moved to the next member.
func reshuffled(t testing.TB, s svc) *table.Snapshot {
	edit := s.edit
	s.edit = func(v *table.Service) {
		if edit != nil {
			edit(v)
		}
		slots := make([]uint16, len(v.Slots))
		for i, m := range v.Slots {
			slots[i] = (m + 1) % uint16(len(v.Members))
		}
		v.Slots = slots
	}
	return snapshot(t, s)
}

// Persistence holds against a change of the table for its time after the last new flow, whichever worker gets the
// flows, and not against the death of the backend.
func TestPersistenceOutlivesTables(t *testing.T) {
	for _, s := range matrix() {
		t.Run(s.String(), func(t *testing.T) {
			s.edit = func(v *table.Service) { v.Persist, v.Mask = 60_000, table.MaskBits(128) }
			l := newLab(t, 2)
			l.e.Publish(snapshot(t, s))
			l.e.Step(1, l.now)
			port := uint16(40000)
			flow := func(worker int) int {
				port++
				c := s.client(0, 1, syn)
				c.Src = netip.AddrPortFrom(c.Src.Addr(), port)
				sent := l.step(worker, 0, c.Build())
				if len(sent[1]) != 1 {
					t.Fatalf("%d frames were sent; drops %v", len(sent[1]), l.e.Counters().Drops)
				}
				return int(sent[1][0][5]) // the last byte of the backend's MAC address is its slot
			}
			home := flow(0)
			l.e.Publish(reshuffled(t, s))
			l.e.Step(1, l.now)
			for k, worker := range []int{0, 1, 1, 0} {
				l.now += 50_000
				if got := flow(worker); got != home {
					t.Fatalf("flow %d on worker %d went to %d, the client's others to %d", k, worker, got, home)
				}
			}
			l.now += 61_000
			if got := flow(1); got == home {
				t.Error("persistence goes on after its time")
			}
			moved := flow(1)
			s.off = []int{moved}
			l.e.Publish(snapshot(t, s))
			l.e.Step(1, l.now)
			if got := flow(1); got == moved {
				t.Error("persistence holds on to a backend that is down")
			}
			if c := l.e.Counters(); c.FlowsNew != 8 {
				t.Errorf("%d new flows are counted, want 8: templates are none", c.FlowsNew)
			}
		})
	}
}

// One-packet scheduling keeps nothing, and follows each change of the table.
func TestOnePacket(t *testing.T) {
	for _, s := range matrix() {
		if !s.udp || s.mode == table.NAT {
			continue
		}
		t.Run(s.String(), func(t *testing.T) {
			s.edit = func(v *table.Service) { v.OnePacket = true }
			l := newLab(t, 1)
			l.e.Publish(snapshot(t, s))
			moved := 0
			for n := range 20 {
				c := s.client(0, n, 0)
				was := l.goesTo(s, c)
				if want := l.picked(c).Ref.Slot(); was != want {
					t.Fatalf("went to %d, hashes to %d", was, want)
				}
				l.e.Publish(reshuffled(t, s))
				if got := l.goesTo(s, c); got == was {
					t.Fatalf("client %d stayed at %d although its slot moved", n, got)
				}
				moved++
				l.e.Publish(snapshot(t, s))
			}
			if d := l.delta(); d.FlowsNew != 0 || d.Stateless != 0 || l.e.FlowTable(0).Used != 0 || d.Forwarded[s.mode] != uint64(2*moved) {
				t.Errorf("%d new flows, %d in the table, forwarded %v", d.FlowsNew, l.e.FlowTable(0).Used, d.Forwarded)
			}
			s.off = []int{0, 1, 2}
			l.e.Publish(snapshot(t, s))
			if l.one(0, 0, 0, s.client(0, 1, 0).Build()) != nil {
				t.Error("something was sent without a backend")
			}
			l.wantDrop(dataplane.DropNoBackend)
		})
	}
}

// A dead backend's UDP flows move with their next packet, in every mode.
func TestUDPMovesAtOnce(t *testing.T) {
	for _, s := range matrix() {
		if !s.udp {
			continue
		}
		l := newLab(t, 1)
		l.e.Publish(snapshot(t, s))
		c := s.client(0, 3, 0)
		home := l.goesTo(s, c)
		dead := s
		dead.off = []int{home}
		l.e.Publish(snapshot(t, dead))
		away := l.goesTo(s, c)
		if away == home {
			t.Errorf("%v: the flow stays at a dead backend", s)
		}
		l.e.Publish(snapshot(t, s))
		if got := l.goesTo(s, c); got != away {
			t.Errorf("%v: the flow moved on to %d when its first backend came back", s, got)
		}
	}
}

func quicService(length int) func(v *table.Service) {
	return func(v *table.Service) {
		q := &table.QUIC{Config: 2, Len: uint8(length)}
		for _, r := range v.Members {
			server := table.QUICServer{Backend: r}
			server.ID[length-1] = byte(0xa0 + r.Slot())
			q.Servers = append(q.Servers, server)
		}
		v.QUIC = q
	}
}

// shortHeader is a QUIC packet of a connection at the backend in slot be (RFC 9000, 17.3; the draft's figure 1).
func shortHeader(config byte, length, be int) []byte {
	b := []byte{0x41, config<<5 | 17}
	id := make([]byte, length)
	id[length-1] = byte(0xa0 + be)
	b = append(b, id...)
	return binary.BigEndian.AppendUint64(b, 0x0123456789abcdef)
}

// longHeader is a Handshake packet with this destination connection ID (RFC 9000, 17.2.4), an empty source one, and no more.
func longHeader(id []byte) []byte {
	return append(append([]byte{0xe0, 0, 0, 0, 1, byte(len(id))}, id...), 0)
}

// A client whose port two servers serve loses neither when the one that its flow led to dies; nor does a packet that names
// another server, with replies or without, change where the client's other packets go.
func TestQUICServersOfOnePort(t *testing.T) {
	for _, s := range matrix() {
		if !s.udp {
			continue
		}
		t.Run(s.String(), func(t *testing.T) {
			s.edit = quicService(2)
			l := newLab(t, 2)
			l.e.Publish(snapshot(t, s))
			c := s.client(0, 5, 0)
			home := l.goesTo(s, c)
			other, third := (home+1)%3, (home+2)%3
			l.delta()
			for _, be := range []int{other, other, home, third, other} {
				c.Payload = shortHeader(2, 2, be)
				if got := l.goesTo(s, c); got != be {
					t.Fatalf("a packet for server %d went to %d", be, got)
				}
			}
			want := uint64(0)
			if s.mode == table.NAT {
				want = 2
			}
			if d := l.delta(); d.FlowsNew != want || d.FlowsEnded != 0 {
				t.Errorf("%d flows began and %d ended, want %d and none", d.FlowsNew, d.FlowsEnded, want)
			}
			if s.mode == table.NAT {
				for worker := range 2 { // of which the second owns none of the flows
					for be := range 3 {
						in, want := reply(c, &l.e.Snapshot().Backends[be], 0)
						l.same("reply", l.one(worker, 1, 0, in.Build()), want.Build())
					}
				}
			}
			dead := s
			dead.off = []int{home}
			l.e.Publish(snapshot(t, dead))
			c.Payload = shortHeader(2, 2, other)
			if got := l.goesTo(s, c); got != other {
				t.Errorf("server %d is dead, and a packet for %d went to %d", home, other, got)
			}
			c.Payload = nil
			if got := l.goesTo(s, c); got < 0 || got == home || s.mode != table.NAT && got != other {
				t.Errorf("server %d is dead, and a packet that names none went to %d", home, got)
			}
		})
	}
}

// A QUIC connection stays at the server that its connection ID names, whatever the client's address; what names
// none belongs to its flow.
func TestQUIC(t *testing.T) {
	for _, s := range matrix() {
		if !s.udp {
			continue
		}
		for _, length := range []int{1, 2, 8, 15} {
			s.edit = quicService(length)
			l := newLab(t, 1)
			l.e.Publish(snapshot(t, s))
			c := s.client(0, 5, 0)
			c.Payload = []byte{0xc0, 0, 0, 0, 1, 8, 7 << 5, 1, 2, 3, 4, 5, 6, 7} // an Initial packet
			home := l.goesTo(s, c)
			if want := l.picked(c).Ref.Slot(); home != want {
				t.Fatalf("%v: an Initial packet went to %d instead of %d", s, home, want)
			}
			for n := range 12 {
				for be := range 3 {
					for _, long := range []bool{false, true} {
						c := s.client(0, n, 0)
						c.Payload = shortHeader(2, length, be)
						if long {
							c.Payload = longHeader(c.Payload[1:])
						}
						if got := l.goesTo(s, c); got != be {
							t.Fatalf("%v, server IDs of %d bytes: client %d of server %d was sent to %d", s, length, n, be, got)
						}
					}
				}
			}
			if got := l.goesTo(s, c); got != home {
				t.Errorf("%v: another connection took the client's flow from %d to %d", s, home, got)
			}
			for name, payload := range map[string][]byte{
				"another config": shortHeader(3, length, (home+1)%3), "unroutable": shortHeader(7, length, (home+1)%3),
				"unknown server": shortHeader(2, length, 9), "cut off": shortHeader(2, length, (home+1)%3)[:length+1], "empty": nil,
				"short nonce": shortHeader(2, length, (home+1)%3)[:2+length+3], "short nonce, long header": longHeader(shortHeader(2, length, (home+1)%3)[1:][:1+length+3]),
			} {
				c := s.client(0, 300, 0)
				want := l.picked(c).Ref.Slot()
				c.Payload = payload
				if got := l.goesTo(s, c); got != want {
					t.Errorf("%v: %s: sent to %d, its flow is at %d", s, name, got, want)
				}
			}
			dead := s
			dead.off = []int{1}
			edit := quicService(length)
			dead.edit = func(v *table.Service) { // its ID is still known
				edit(v)
				server := table.QUICServer{Backend: table.MakeRef(1, 1)}
				server.ID[length-1] = 0xa1
				v.QUIC.Servers = append(v.QUIC.Servers, server)
			}
			l.e.Publish(snapshot(t, dead))
			c = s.client(0, 6, 0)
			c.Payload = shortHeader(2, length, 1)
			if got := l.goesTo(s, c); got == 1 || got < 0 {
				t.Errorf("%v: a packet for a dead server went to %d", s, got)
			}
		}
	}
}

// Services of one address, and one backend in several of them, do not meet.
func TestServicesSideBySide(t *testing.T) {
	all := matrix()
	shared := map[bool]packet.Addr{}
	vip := map[bool]packet.Addr{}
	for i := range all {
		s := &all[i]
		s.n = 1
		s.be = func(_ int, b *table.Backend) {
			if shared[b.V6] == (packet.Addr{}) {
				shared[b.V6] = b.Addr
			}
			b.Addr = shared[b.V6]
		}
		port := uint16(1000 + i)
		s.edit = func(v *table.Service) {
			if vip[v.V6] == (packet.Addr{}) {
				vip[v.V6] = v.Addr
			}
			v.Addr, v.Port = vip[v.V6], port
		}
	}
	l := newLab(t, 1)
	snap := snapshot(t, all...)
	l.e.Publish(snap)
	for i, s := range all {
		for _, flags := range []uint8{syn, ack} {
			c := s.client(i, 1, flags)
			c.Dst = netip.AddrPortFrom(snap.Services[i].Addr.Netip(), uint16(1000+i))
			b := &snap.Backends[i*perSvc]
			got := l.one(0, 0, 1, c.Build())
			l.same(s.String(), got, s.toBackend(t, c, b, got))
			if s.mode == table.NAT && flags == ack {
				in, want := reply(c, b, ack)
				l.same("reply "+s.String(), l.one(0, 1, 0, in.Build()), want.Build())
			}
		}
	}
}
