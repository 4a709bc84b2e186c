package dataplane_test

import (
	"testing"

	"xlvs/dataplane"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/table"
)

const (
	syn    = frametest.SYN
	ack    = frametest.ACK
	synack = frametest.SYN | frametest.ACK
	fin    = frametest.FIN | frametest.ACK
	rst    = frametest.RST
)

// Every mode, family and protocol: a flow's first packet, its retransmission and a later one go to one backend, as
// frames that gopacket builds just so.
func TestForward(t *testing.T) {
	for _, s := range matrix() {
		for _, vlan := range []uint16{0, 7} {
			for _, unfinished := range []bool{false, true} {
				name := s.String()
				if vlan != 0 {
					name += "/vlan"
				}
				if unfinished {
					name += "/unfinished"
				}
				t.Run(name, func(t *testing.T) { testForward(t, s, vlan, unfinished) })
			}
		}
	}
}

func testForward(t *testing.T, s svc, vlan uint16, unfinished bool) {
	l := newLab(t, 1)
	l.e.Publish(snapshot(t, s))
	for n := range 8 {
		for k, flags := range []uint8{syn, syn, ack, ack | frametest.PSH} {
			c := s.client(0, n, flags)
			c.VLAN, c.Unfinished, c.Pad = vlan, unfinished, 0
			b := l.picked(c)
			got := l.one(0, 0, 1, c.Build())
			l.same(s.String(), got, s.toBackend(t, c, b, got))
			l.now += 10
			if d := l.delta(); d.FlowsNew != map[bool]uint64{true: 1}[k == 0] || d.Forwarded[s.mode] != 1 {
				t.Fatalf("packet %d of flow %d: %d new flows, forwarded %v", k, n, d.FlowsNew, d.Forwarded)
			}
		}
	}
	if ft := l.e.FlowTable(0); ft.Used != 8 {
		t.Errorf("%d flows in the table, want 8", ft.Used)
	}
	var sum dataplane.BackendCounters
	for slot := range perSvc {
		c := l.e.Backend(slot)
		sum.Add(&c)
	}
	if sum.Packets != 32 || sum.Flows != 8 || sum.Active+sum.Inactive != 8 {
		t.Errorf("backends' counters %+v", sum)
	}
	if want := map[bool]int64{true: 0, false: 8}[s.udp]; sum.Active != want {
		t.Errorf("%d active flows, want %d", sum.Active, want)
	}
}

// A burst with the same flow several times, its first packet included, opens it once.
func TestForwardBurst(t *testing.T) {
	for _, s := range matrix() {
		t.Run(s.String(), func(t *testing.T) {
			l := newLab(t, 1)
			l.e.Publish(snapshot(t, s))
			var in [][]byte
			for n := range 60 {
				in = append(in, s.client(0, n%6, syn).Build())
			}
			sent := l.step(0, 0, in...)
			if len(sent[1]) != 60 {
				t.Fatalf("%d of 60 frames came out", len(sent[1]))
			}
			for n, got := range sent[1] {
				c := s.client(0, n%6, syn)
				l.same("burst", got, s.toBackend(t, c, l.picked(c), got))
			}
			if d := l.delta(); d.FlowsNew != 6 {
				t.Errorf("%d new flows, want 6", d.FlowsNew)
			}
		})
	}
}

// reply returns what backend b answers to c, as it arrives, and as the client must see it.
func reply(c frametest.Spec, b *table.Backend, flags uint8) (in, want frametest.Spec) {
	in = c
	in.Src, in.Dst = addrPort(b), c.Src
	in.SrcMAC, in.DstMAC = [6]byte(b.Eth[:6]), [6]byte(b.Eth[6:])
	in.Flags, in.Payload = flags, []byte("the answer")
	want = in
	want.Src, want.TTL = c.Dst, 63
	want.SrcMAC, want.DstMAC = portMAC[0], c.SrcMAC
	return in, want
}

func TestNATReply(t *testing.T) {
	for _, s := range matrix() {
		if s.mode != table.NAT {
			continue
		}
		for _, tc := range []struct {
			name          string
			workers, back int // worker that the replies come to
			unfinished    bool
		}{{"same worker", 1, 0, false}, {"other worker", 2, 1, false}, {"unfinished", 1, 0, true}, {"other, unfinished", 2, 1, true}} {
			t.Run(s.String()+"/"+tc.name, func(t *testing.T) {
				l := newLab(t, tc.workers)
				l.e.Publish(snapshot(t, s))
				l.e.Step(tc.back, l.now) // takes the snapshot up
				c := s.client(0, 1, syn)
				b := l.picked(c)
				got := l.one(0, 0, 1, c.Build())
				l.same("request", got, s.toBackend(t, c, b, got))
				in, want := reply(c, b, synack)
				in.Unfinished = tc.unfinished
				l.same("reply", l.one(tc.back, 1, 0, in.Build()), want.Build())
				if d := l.delta(); d.Replies != 1 || d.FlowsNew != 1 {
					t.Errorf("replies %d, new flows %d", d.Replies, d.FlowsNew)
				}
				if bc := l.e.Backend(b.Ref.Slot()); bc.ReplyPackets != 1 || bc.Packets != 1 {
					t.Errorf("backend counters %+v", bc)
				}
			})
		}
	}
}

// What comes from a NAT backend without being an answer is dropped, and so are answers of flows that are over.
func TestNATReplyUnknown(t *testing.T) {
	s := svc{mode: table.NAT}
	l := newLab(t, 2)
	l.e.Publish(snapshot(t, s))
	c := s.client(0, 1, syn)
	b := l.picked(c)
	in, want := reply(c, b, synack)
	if l.one(0, 1, 0, in.Build()) != nil {
		t.Error("an answer to nothing was sent on")
	}
	l.wantDrop(dataplane.DropReplyNoFlow)
	other := in
	other.Src = addrPortOn(b, 9999)
	if l.one(0, 1, 0, other.Build()) != nil {
		t.Error("another port of a backend was taken for an answer")
	}
	l.wantDrop(dataplane.DropNotOurs)

	l.one(0, 0, 1, c.Build())
	l.same("reply", l.one(0, 1, 0, in.Build()), want.Build())
	l.delta()
	l.now += 901_000
	for range 1000 {
		l.now += 1000
		l.e.Step(0, l.now)
	}
	if l.one(0, 1, 0, in.Build()) != nil {
		t.Error("an answer to a flow that is over was sent on")
	}
	if d := l.delta(); d.Drops[dataplane.DropReplyNoFlow] != 1 || d.FlowsEnded != 1 {
		t.Errorf("drops %v, ended %d", d.Drops, d.FlowsEnded)
	}
}

// A reply goes back where the request came from: another port and another MAC address after a change of route.
func TestNATReplyFollowsTheClient(t *testing.T) {
	s := svc{mode: table.NAT, udp: true}
	l := newLab(t, 1)
	l.e.Publish(snapshot(t, s))
	c := s.client(0, 1, 0)
	b := l.picked(c)
	l.one(0, 0, 1, c.Build())
	c.SrcMAC, c.DstMAC = [6]byte{2, 9, 9, 9, 9, 9}, portMAC[1]
	got := l.one(0, 1, 1, c.Build())
	l.same("second request", got, s.toBackend(t, c, b, got))
	in, want := reply(c, b, 0)
	want.SrcMAC = portMAC[1]
	l.same("reply", l.one(0, 1, 1, in.Build()), want.Build())
}
