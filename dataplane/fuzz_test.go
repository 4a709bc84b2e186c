package dataplane_test

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"xlvs/dataplane"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/memio"
	"xlvs/dataplane/table"
)

// FuzzPipeline gives the pipeline any bytes as three frames: a client's, another or the same again, and one from
// the backends' side. Nothing may panic, no chunk may leak, and what was right when it came in must be
// right when it leaves.
func FuzzPipeline(f *testing.F) {
	known := newLab(f, 1) // to ask it who gets a flow
	known.e.Publish(everything(f))
	for i, s := range matrix() {
		c := s.client(i, 1, syn)
		again, reset := c, c
		again.Flags, reset.Flags = ack, frametest.RST
		in := again // a client's packet on the wrong side, or a backend's answer
		if s.mode == table.NAT {
			in, _ = reply(c, known.picked(c), synack)
			long := in
			long.DF, long.Flags, long.Payload = false, ack, make([]byte, 2000)
			parts := frametest.Fragments(long.Build(), 800, 77)
			f.Add(c.Build(), parts[0], parts[1])
			f.Add(c.Build(), parts[2], parts[0])
		}
		f.Add(c.Build(), reset.Build(), c.Build())
		f.Add(c.Build(), again.Build(), in.Build())
		c.TTL, again.TTL = 1, 0
		f.Add(c.Build(), c.Echo(false, 1, 2), c.Build()[:50])
		c.TTL, c.VLAN, c.Unfinished, c.Pad = 9, 5, true, 11
		f.Add(c.Build(), c.Build(), in.Build())
		c.Payload, c.VLAN, c.IPOptions, c.TCPOptions = make([]byte, 1460), 0, []byte{7, 4, 1, 2}, []byte{1, 1, 1, 1}
		f.Add(c.Build(), c.Build(), again.Build())
		c.Unfinished, c.NoSum = false, true
		f.Add(c.Build(), mapped(s.client(i, 1, syn).Build()), []byte{})
	}
	for i, s := range matrix() {
		c, parts := s.large(1, 1400)
		f.Add(parts[0], parts[1], c.Build()[:1500])
		f.Add(parts[2], parts[0], parts[1])
		open := s.client(i, 1, syn)
		be := known.picked(open)
		quoted := answer(open)
		f.Add(open.Build(), errorKinds()[2].error(open, routers[s.v6], open.Dst.Addr(), quoted.Packet(), 100), parts[1])
		quoted = open
		if s.mode == table.NAT {
			quoted.Dst = addrPort(be)
		}
		back := errorKinds()[0].error(open, routers[s.v6], open.Src.Addr(), quoted.Packet(), 100)
		if s.mode == table.TUN {
			wrapped := open.Wrap(frametest.Tunnel{Src: be.TunSrc.Netip(), Dst: be.Addr.Netip()})
			for _, k := range errorKinds() {
				f.Add(open.Build(), open.Build(), k.error(open, routers[s.outer6], be.TunSrc.Netip(), wrapped[14:], 200))
			}
		}
		f.Add(open.Build(), open.Build(), back)
		big := open
		big.DF, big.Payload = false, make([]byte, 1470)
		f.Add(big.Build(), big.Build(), back)
	}
	fuzz(f, everything(f))
}

// fuzz gives frames to a lab with the snapshot and judges what comes out. Two others get the same frames another way. One
// gets the first two in one burst, and takes all past the short way: it must send the same. The other one's last frame comes to a
// second worker, which must send the same if it is a reply.
func fuzz(f *testing.F, snap *table.Snapshot) {
	l, twin, pair := newLab(f, 1), newLab(f, 1), newLab(f, 2)
	for _, l := range []*lab{l, twin, pair} {
		l.e.Publish(snap)
	}
	f.Fuzz(func(t *testing.T, first, second, back []byte) {
		defer l.forget(t)
		defer twin.forget(t)
		defer pair.forget(t)
		twin.e.Trace(0, &dataplane.Verdict{})
		var replied [][]byte
		var all [2][][]byte
		ins := [][]byte{first, second, back}
		for k, in := range ins {
			port := k / 2
			if !l.ports[0][port].Inject(in) {
				continue
			}
			l.e.Step(0, l.now)
			held := l.e.Worker(0).FragmentsHeld
			if n := memio.InHand(l.mems[0], l.ports[0]...); n != int(held) {
				t.Fatalf("%d chunks in hand, %d held", n, held)
			}
			left, right := l.ports[0][0].Sent(), l.ports[0][1].Sent()
			all[0], all[1] = append(all[0], left...), append(all[1], right...)
			sent := slices.Concat(left, right)
			c := l.delta()
			if k == 2 && c.Replies == 1 && !isFragment(in) {
				replied = sent
			}
			var dropped, forwarded uint64
			for _, n := range c.Drops {
				dropped += n
			}
			for _, n := range c.Forwarded {
				forwarded += n
			}
			told := c.ICMPForwarded - min(c.ICMPForwarded, forwarded+c.Replies) // about a tunnel's packet
			done := dropped + forwarded + c.Replies + c.Echoes + told
			if uint64(len(sent)) != forwarded+c.Replies+c.Echoes+told+c.ICMPErrors {
				t.Fatalf("%d forwarded, %d replies, %d echoes, %d errors, %d sent", forwarded, c.Replies, c.Echoes, c.ICMPErrors, len(sent))
			}
			switch { // a frame may be held, then released or dropped with others, or be cut into many
			case isFragment(in):
				if done+held == 0 {
					t.Fatal("a fragment was neither sent, nor dropped, nor held")
				}
			case done != 1 && c.Fragmented == 0:
				t.Fatalf("one frame: %d dropped, %d forwarded, %d replies, %d echoes", dropped, forwarded, c.Replies, c.Echoes)
			}
			if c.Fragmented > 0 && !isFragment(in) && c.ICMPErrors == 0 && dropped == 0 {
				judgeCut(t, in, sent)
			}
			for _, out := range sent {
				switch {
				case isFragment(out) || isFragment(in) || c.Fragmented > 0:
					judgeFragment(t, ins[:k+1], out)
				case told > 0:
					judge(t, in, out, true)
				case c.ICMPForwarded > 0:
					judgeError(t, in, out)
				default:
					judge(t, in, out, c.ICMPErrors == 1)
				}
			}
		}
		if got := pair.apart(t, ins); replied != nil && !slices.EqualFunc(got, replied, bytes.Equal) {
			t.Fatalf("a reply left as % x\nfrom another worker as % x", replied, got)
		}
		again := twin.burst(ins)
		for port, want := range all {
			if got := again[port]; !slices.EqualFunc(got, want, bytes.Equal) {
				t.Fatalf("port %d sent % x\nin a burst, the long way, % x", port, want, got)
			}
		}
	})
}

// FuzzShapes does as FuzzPipeline, with services of all shapes.
func FuzzShapes(f *testing.F) {
	snap := snapshot(f, shapes()...)
	known := newLab(f, 1)
	known.e.Publish(snap)
	for k, s := range shapes() {
		vip := netip.AddrPortFrom(snap.Services[k].Addr.Netip(), vport) // a prefix has moved
		c, other := s.client(k, 1, syn), s.client(k, 251, syn)          // of the same client
		c.Dst, other.Dst = vip, vip
		again := c
		again.Flags, again.Payload = ack, shortHeader(2, 2, 1)
		f.Add(c.Build(), again.Build(), again.Build())
		if s.udp {
			first, second := c, c
			first.Payload, second.Payload = shortHeader(2, 2, k*perSvc), longHeader(shortHeader(2, 2, k*perSvc+1)[1:])
			f.Add(first.Build(), second.Build(), first.Build())
			f.Add(c.Build(), second.Build(), first.Build())
		}
		again.DF, again.Payload = false, make([]byte, 1440)
		f.Add(again.Build(), c.Build(), toAddress(c, 5).Build())
		c.RawOptions = []byte{2, 4, 0x5, 0xb4} // RFC 9293: maximum segment size 1460
		back := c
		if s.mode == table.NAT && len(s.off) == 0 {
			back, _ = reply(c, known.picked(c), synack)
		}
		f.Add(c.Build(), other.Build(), back.Build())
	}
	fuzz(f, snap)
}

// shapes are services of each kind that goes beyond the matrix; a tunnel's port is the one that frametest decodes.
func shapes() []svc {
	tunnel := func(e table.Encap, sum bool) func(int, *table.Backend) {
		return func(_ int, b *table.Backend) { b.Encap, b.EncapSum, b.EncapTo = e, sum, frametest.GUEPort }
	}
	clamped := func(v *table.Service) { v.ClampMSS = table.AutoMSS }
	whole := func(v *table.Service) { v.NoFragment = true }
	persist := func(v *table.Service) { v.Persist, v.Mask = 360_000, table.MaskBits(120) }
	return []svc{
		{mode: table.TUN, be: tunnel(table.GUE, false), edit: clamped}, {mode: table.TUN, outer6: true, be: tunnel(table.GUE, true)},
		{mode: table.TUN, v6: true, udp: true, outer6: true, be: tunnel(table.GUE, false)}, {mode: table.TUN, udp: true, be: tunnel(table.GUE, true), edit: whole},
		{mode: table.TUN, v6: true, be: tunnel(table.GRE, false)}, {mode: table.TUN, outer6: true, udp: true, be: tunnel(table.GRE, true)},
		{mode: table.NAT, edit: persist}, {mode: table.DR, v6: true, udp: true, edit: persist},
		{mode: table.DR, udp: true, edit: func(v *table.Service) { v.OnePacket = true }},
		{mode: table.NAT, udp: true, edit: quicService(2)}, {mode: table.TUN, v6: true, udp: true, edit: quicService(2)},
		{mode: table.DR, edit: func(v *table.Service) { v.BySource, v.Mask = true, table.MaskBits(128) }},
		{mode: table.NAT, v6: true, edit: func(v *table.Service) { onPrefix(v); v.Addr.A ^= 1 << 63; v.ClampMSS = 600 }},
		{mode: table.NAT, udp: true, edit: func(v *table.Service) { onPrefix(v); v.Addr.B ^= 1 << 40 }},
		{mode: table.DR, off: []int{0, 1, 2}, edit: func(v *table.Service) { v.Reject = true }},
	}
}
