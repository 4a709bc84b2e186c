package dataplane_test

import (
	"bytes"
	"net/netip"
	"testing"

	"xlvs/dataplane"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/table"
)

// icmpError checks an error about frame f that went back where f came from.
func (l *lab) icmpError(got, f []byte, want frametest.ICMPError) {
	l.Helper()
	if got == nil {
		l.Fatal("no ICMP error was sent")
	}
	d, err := frametest.Decode(got)
	if err != nil {
		l.Fatal(err)
	}
	from, err := frametest.Decode(f)
	if err != nil && from == nil {
		l.Fatal(err)
	}
	src := portV4[0]
	limit := 576
	if d.IP.V6 {
		src, limit = portV6[0], 1280
	}
	if d.Dst != from.Src || d.Src != from.Dst || d.VLAN != from.VLAN || d.IP.Src != src || d.IP.Dst != from.IP.Src || d.IP.TTL < 64 {
		l.Errorf("error goes from %v %v to %v %v", d.Src, d.IP.Src, d.Dst, d.IP.Dst)
	}
	e, err := d.IP.ICMPError()
	if err != nil {
		l.Fatal(err)
	}
	ip := append(append([]byte{}, from.IP.Header...), from.IP.Body...)
	if e.Type != want.Type || e.Code != want.Code || e.MTU != want.MTU {
		l.Errorf("type %d code %d MTU %d, want %d %d %d", e.Type, e.Code, e.MTU, want.Type, want.Code, want.MTU)
	}
	if size := len(d.IP.Header) + len(d.IP.Body); size > limit || len(e.Quote) < min(len(ip), limit-60) || !bytes.HasPrefix(ip, e.Quote) {
		l.Errorf("error of %d bytes quotes %d of %d bytes", size, len(e.Quote), len(ip))
	}
}

// A packet for the largest size passes; one byte more is dropped, and its sender told the size that fits.
func TestTooBig(t *testing.T) {
	const mtu = 1400
	for _, s := range matrix() {
		for _, df := range []bool{true, false} {
			t.Run(s.String(), func(t *testing.T) {
				s.be = func(_ int, b *table.Backend) { b.MTU = mtu }
				s.edit = func(v *table.Service) { v.NoFragment = true }
				l := newLab(t, 1)
				l.e.Publish(snapshot(t, s))
				limit := mtu
				if s.mode == table.TUN {
					limit -= map[bool]int{false: 20, true: 40}[s.outer6]
				}
				c := s.client(0, 1, syn)
				c.DF, c.Payload = df, nil
				head := len(c.Build()) - 14
				c.Payload = bytes.Repeat([]byte{5}, limit-head)
				got := l.one(0, 0, 1, c.Build())
				l.same("largest", got, s.toBackend(t, c, l.picked(c), got))
				l.delta()
				c.Payload = append(c.Payload, 6)
				f := c.Build()
				got = l.one(0, 0, 0, f)
				l.wantDrop(dataplane.DropTooBig)
				switch {
				case s.v6:
					l.icmpError(got, f, frametest.ICMPError{Type: 2, MTU: limit})
				case df:
					l.icmpError(got, f, frametest.ICMPError{Type: 3, Code: 4, MTU: limit})
				case got != nil:
					t.Error("a sender that allows fragments was told not to send any")
				}
			})
		}
	}
}

// A NAT reply that is too big for the way to the client is answered to the backend.
func TestReplyTooBigAndTTL(t *testing.T) {
	s := svc{mode: table.NAT}
	l := newLab(t, 1)
	snap := *snapshot(t, s)
	snap.Ports[0].MTU = 600
	l.e.Publish(&snap)
	c := s.client(0, 1, syn)
	b := l.picked(c)
	l.one(0, 0, 1, c.Build())
	l.delta()
	in, _ := reply(c, b, ack)
	in.Payload = make([]byte, 561)
	back := l.one(0, 1, 1, in.Build())
	l.wantDrop(dataplane.DropTooBig)
	e := decodeError(t, back)
	if e.Type != 3 || e.Code != 4 || e.MTU != 600 {
		t.Errorf("type %d code %d MTU %d", e.Type, e.Code, e.MTU)
	}
	in.Payload, in.TTL = in.Payload[:560], 1
	back = l.one(0, 1, 1, in.Build())
	l.wantDrop(dataplane.DropTTL)
	if e := decodeError(t, back); e.Type != 11 {
		t.Errorf("type %d", e.Type)
	}
	in.TTL = 2
	if l.one(0, 1, 0, in.Build()) == nil {
		t.Error("the largest reply did not pass")
	}
}

func decodeError(t *testing.T, f []byte) *frametest.ICMPError {
	t.Helper()
	d, err := frametest.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	e, err := d.IP.ICMPError()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEcho(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, vlan := range []uint16{0, 9} {
			s := svc{v6: v6}
			l := newLab(t, 1)
			l.e.Publish(snapshot(t, s, svc{v6: v6, off: []int{0, 1, 2}}))
			c := s.client(0, 1, 0)
			c.VLAN = vlan
			for _, payload := range [][]byte{nil, {1}, make([]byte, 56), bytes.Repeat([]byte{0xff}, 1000)} {
				for _, id := range []uint16{0, 1, 0xf7ff, 0xfffe, 0xffff} {
					c.Payload = payload
					want := c
					want.DstMAC, want.SrcMAC, want.Src, want.Dst = c.SrcMAC, c.DstMAC, c.Dst, c.Src
					got := l.one(0, 0, 0, c.Echo(false, id, 0))
					l.same("echo", got, want.Echo(true, id, 0))
					l.now += 10
				}
			}
			if d := l.delta(); d.Echoes != 20 {
				t.Errorf("%d echoes, want 20", d.Echoes)
			}
			for name, edit := range map[string]func(*frametest.Spec){
				"no such VIP":       func(c *frametest.Spec) { c.Dst = netip.AddrPortFrom(c.Dst.Addr().Prev(), 0) },
				"VIP without hosts": func(c *frametest.Spec) { c.Dst = netip.AddrPortFrom(c.Dst.Addr().Next(), 0) },
				"to a group MAC":    func(c *frametest.Spec) { c.DstMAC = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff} },
			} {
				c := s.client(0, 1, 0)
				edit(&c)
				if got := l.one(0, 0, 0, c.Echo(false, 1, 1)); got != nil {
					t.Errorf("%s: answered % x", name, got)
				}
				l.wantDrop(dataplane.DropICMP)
			}
			for _, from := range []netip.Addr{pick(v6, "224.0.0.%d", "ff02::%x", 1), zero(v6), c.Dst.Addr(), pick(v6, "127.0.0.%d", "::%x", 1)} {
				c := s.client(0, 1, 0)
				c.Src = netip.AddrPortFrom(from, 0)
				if got := l.one(0, 0, 0, c.Echo(false, 1, 1)); got != nil {
					t.Errorf("%s was answered % x", from, got)
				}
				l.wantDrop(dataplane.DropMartian)
			}
			if got := l.one(0, 0, 0, c.Echo(true, 1, 1)); got != nil {
				t.Error("an echo reply was answered")
			}
			l.wantDrop(dataplane.DropICMP)
		}
	}
}

// The director's own messages come out at no more than 50 at once and 1000 a second.
func TestICMPRateLimit(t *testing.T) {
	s := svc{}
	l := newLab(t, 1)
	l.e.Publish(snapshot(t, s))
	lost := s.client(0, 1, syn)
	lost.TTL = 1
	many := func(f []byte, n int) (sent int) {
		for ; n > 0; n -= min(n, 64) {
			var in [][]byte
			for range min(n, 64) {
				in = append(in, f)
			}
			sent += len(l.step(0, 0, in...)[0])
		}
		return sent
	}
	if n := many(lost.Build(), 200); n != 50 {
		t.Errorf("%d errors at once, want 50", n)
	}
	if n := many(lost.Echo(false, 1, 1), 100); n != 0 {
		t.Errorf("%d echoes beyond the limit", n)
	}
	if d := l.delta(); d.Drops[dataplane.DropTTL] != 200 || d.Drops[dataplane.DropICMPLimited] != 100 || d.ICMPErrors != 50 {
		t.Errorf("drops %v, errors %d", d.Drops, d.ICMPErrors)
	}
	total := 0
	for range 1000 {
		l.now++
		total += many(lost.Build(), 5)
	}
	if total != 1000 {
		t.Errorf("%d errors in a second, want 1000", total)
	}
	l.now += 0x7fffffff
	if n := many(lost.Build(), 200); n != 50 {
		t.Errorf("%d errors after a long silence, want 50", n)
	}
}

// What is not answered, because of whom it claims to come from, takes nothing of what the others may be answered with.
func TestForgedPacketsUseNoMessagesUp(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		s := svc{v6: v6}
		l := newLab(t, 1)
		l.e.Publish(snapshot(t, s))
		lost := s.client(0, 1, syn)
		lost.TTL = 1
		for _, src := range []netip.Addr{pick(v6, "127.0.0.%d", "ff02::%x", 1), s.vip(0).Addr()} {
			forged := lost
			forged.Src = netip.AddrPortFrom(src, 1)
			for range 100 {
				if l.one(0, 0, 0, forged.Build()) != nil {
					t.Fatalf("%v is answered", src)
				}
			}
		}
		group := lost
		group.DstMAC[0] |= 1
		for range 100 {
			if l.one(0, 0, 0, group.Build()) != nil {
				t.Fatal("what was sent to a group is answered")
			}
		}
		for n := range 50 {
			if l.one(0, 0, 0, lost.Build()) == nil {
				t.Fatalf("v6 %v: no answer after %d", v6, n)
			}
		}
	}
}
