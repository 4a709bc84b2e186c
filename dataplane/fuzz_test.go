package dataplane_test

import (
	"bytes"
	"testing"

	"xlvs/dataplane/frametest"
	"xlvs/dataplane/memio"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// FuzzPipeline gives the pipeline any bytes as three frames: a client's, another or the same again, and one from
// the backends' side. Nothing may panic, no chunk may leak, and what was right when it came in must be
// right when it leaves.
func FuzzPipeline(f *testing.F) {
	for i, s := range matrix() {
		c := s.client(i, 1, syn)
		again := c
		again.Flags = ack
		in := again // a client's packet on the wrong side, or a backend's answer
		if s.mode == table.NAT {
			in, _ = reply(c, &everything(f).Backends[i*perSvc], synack)
		}
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
		be := &everything(f).Backends[i*perSvc]
		open := s.client(i, 1, syn)
		quoted := answer(open)
		f.Add(open.Build(), errorKinds()[2].error(open, routers[s.v6], open.Dst.Addr(), quoted.Packet(), 100), parts[1])
		quoted = open
		if s.mode == table.NAT {
			quoted.Dst = addrPort(be)
		}
		back := errorKinds()[0].error(open, routers[s.v6], open.Src.Addr(), quoted.Packet(), 100)
		if s.mode == table.TUN {
			wrapped := open.Wrap(frametest.Tunnel{Src: be.TunSrc.Netip(), Dst: be.Addr.Netip()})
			back = errorKinds()[2].error(open, routers[s.outer6], be.TunSrc.Netip(), wrapped[14:], 200)
		}
		f.Add(open.Build(), open.Build(), back)
		big := open
		big.DF, big.Payload = false, make([]byte, 1470)
		f.Add(big.Build(), big.Build(), back)
	}
	fuzz(f, everything(f))
}

// fuzz gives frames to a lab with the snapshot and judges what comes out.
func fuzz(f *testing.F, snap *table.Snapshot) {
	l := newLab(f, 1)
	l.e.Publish(snap)
	f.Fuzz(func(t *testing.T, first, second, back []byte) {
		defer l.forget(t)
		for k, in := range [][]byte{first, second, back} {
			port := k / 2
			if !l.ports[0][port].Inject(in) {
				continue
			}
			l.e.Step(0, l.now)
			held := l.e.Worker(0).FragmentsHeld
			if n := memio.InHand(l.mems[0], l.ports[0]...); n != int(held) {
				t.Fatalf("%d chunks in hand, %d held", n, held)
			}
			sent := append(l.ports[0][0].Sent(), l.ports[0][1].Sent()...)
			c := l.delta()
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
			for _, out := range sent {
				switch {
				case isFragment(out) || isFragment(in) || c.Fragmented > 0:
					judgeFragment(t, in, out)
				case told > 0:
					judge(t, in, out, true)
				case c.ICMPForwarded > 0:
					judgeError(t, in, out)
				default:
					judge(t, in, out, c.ICMPErrors == 1)
				}
			}
		}
	})
}

// isFragment reports whether f is a fragment in the sense of packet.KindFragment, or a tunnel's packet with one.
func isFragment(f []byte) bool {
	var p packet.Packet
	packet.Parse(f, &p)
	if p.Kind == packet.KindOther && (p.Proto == packet.ProtoIPIP || p.Proto == packet.ProtoIPv6) {
		return isFragment(append(frameOf(p.Proto == packet.ProtoIPv6), f[p.L4:p.End]...))
	}
	return p.Kind == packet.KindFragment
}

func frameOf(v6 bool) []byte {
	f := make([]byte, 14)
	f[12], f[13] = 8, 0
	if v6 {
		f[12], f[13] = 0x86, 0xdd
	}
	return f
}

// judgeFragment checks what can be known of a fragment alone: it is a packet of the right length with a right header.
func judgeFragment(t *testing.T, in, out []byte) {
	t.Helper()
	var p packet.Packet
	packet.Parse(out, &p)
	if p.Kind >= packet.KindMalformed || !p.V6 && okSum(in) && frametest.Sum(out[p.L3:p.L4]) != 0xffff {
		t.Fatalf("no packet: kind %d\n in % x\nout % x", p.Kind, in, out)
	}
}

// okSum reports whether the IPv4 header of f came with a right checksum.
func okSum(f []byte) bool {
	var p packet.Packet
	packet.Parse(f, &p)
	return p.V6 || p.Kind < packet.KindMalformed && frametest.Sum(f[p.L3:p.L4]) == 0xffff
}

// judgeError checks an ICMP error that was passed on: if its checksums were right, they are, and nothing but addresses and
// ports has changed in what it quotes.
func judgeError(t *testing.T, in, out []byte) {
	t.Helper()
	was, err := frametest.Decode(in)
	is, outErr := frametest.Decode(out)
	if err != nil {
		return
	}
	if outErr != nil {
		t.Fatalf("%v\n in % x\nout % x", outErr, in, out)
	}
	ip := &is.IP
	if ip.Inner != nil {
		ip = ip.Inner
	}
	if len(ip.Body) != len(was.IP.Body) || !bytes.Equal(ip.Body[:2], was.IP.Body[:2]) || !bytes.Equal(ip.Body[4:16], was.IP.Body[4:16]) || ip.TTL != was.IP.TTL-1 {
		t.Fatalf("the error changed:\n in % x\nout % x", in, out)
	}
}

// forget lets every flow expire. None may be left over.
func (l *lab) forget(t *testing.T) {
	l.now += 1_000_000
	for range 16 {
		l.now += 1000
		l.e.Step(0, l.now)
	}
	if n := l.e.FlowTable(0).Used; n != 0 {
		t.Fatalf("%d flows never end", n)
	}
	l.delta()
}

var everythingOnce *table.Snapshot

func everything(t testing.TB) *table.Snapshot {
	if everythingOnce == nil {
		everythingOnce = snapshot(t, matrix()...)
	}
	return everythingOnce
}

// judge checks what the director made of frame in.
func judge(t *testing.T, in, out []byte, ownError bool) {
	t.Helper()
	was, err := frametest.Decode(in)
	is, outErr := frametest.Decode(out)
	if outErr != nil && (err == nil || ownError) {
		t.Fatalf("%v\n in % x\nout % x", outErr, in, out)
	}
	if err != nil || ownError {
		return
	}
	ip := &is.IP
	if ip.Inner != nil {
		if ip.TTL != ip.Inner.TTL || ip.TOS != ip.Inner.TOS {
			t.Fatalf("outer TTL %d TOS %#x, inner %d %#x", ip.TTL, ip.TOS, ip.Inner.TTL, ip.Inner.TOS)
		}
		ip = ip.Inner
	}
	if was.VLAN != is.VLAN || len(ip.Body) != len(was.IP.Body) || len(ip.Header) != len(was.IP.Header) {
		t.Fatalf("the packet's shape changed:\n in % x\nout % x", in, out)
	}
	if ip.Proto == 6 || ip.Proto == 17 {
		sum := map[uint8]int{6: 16, 17: 6}[ip.Proto]
		if ip.TTL != was.IP.TTL-1 || ip.TOS != was.IP.TOS || !bytes.Equal(ip.Body[4:sum], was.IP.Body[4:sum]) ||
			!bytes.Equal(ip.Body[sum+2:], was.IP.Body[sum+2:]) {
			t.Fatalf("the packet changed:\n in % x\nout % x", in, out)
		}
	}
}

// FuzzShapes does as FuzzPipeline, with services of all shapes.
func FuzzShapes(f *testing.F) {
	for k, s := range shapes() {
		c := s.client(k, 1, syn)
		again := c
		again.Flags, again.Payload = ack, shortHeader(2, 2, 1)
		f.Add(c.Build(), again.Build(), again.Build())
		again.DF, again.Payload = false, make([]byte, 1440)
		f.Add(again.Build(), c.Build(), toAddress(c, 5).Build())
	}
	fuzz(f, snapshot(f, shapes()...))
}

// shapes are services of each kind that goes beyond the matrix; a tunnel's port is the one that frametest decodes.
func shapes() []svc {
	tunnel := func(e table.Encap, sum bool) func(int, *table.Backend) {
		return func(_ int, b *table.Backend) { b.Encap, b.EncapSum, b.EncapTo = e, sum, frametest.GUEPort }
	}
	persist := func(v *table.Service) { v.Persist, v.Mask = 360_000, table.MaskBits(120) }
	return []svc{
		{mode: table.TUN, be: tunnel(table.GUE, false)}, {mode: table.TUN, outer6: true, be: tunnel(table.GUE, true)},
		{mode: table.TUN, v6: true, udp: true, outer6: true, be: tunnel(table.GUE, false)}, {mode: table.TUN, udp: true, be: tunnel(table.GUE, true)},
		{mode: table.TUN, v6: true, be: tunnel(table.GRE, false)}, {mode: table.TUN, outer6: true, udp: true, be: tunnel(table.GRE, true)},
		{mode: table.NAT, edit: persist}, {mode: table.DR, v6: true, udp: true, edit: persist},
		{mode: table.DR, udp: true, edit: func(v *table.Service) { v.OnePacket = true }},
		{mode: table.NAT, udp: true, edit: quicService(2)}, {mode: table.TUN, v6: true, udp: true, edit: quicService(2)},
		{mode: table.DR, edit: func(v *table.Service) { v.BySource, v.Mask = true, table.MaskBits(128) }},
		{mode: table.NAT, v6: true, edit: func(v *table.Service) { onPrefix(v); v.Addr.A ^= 1 << 63 }},
		{mode: table.NAT, udp: true, edit: func(v *table.Service) { onPrefix(v); v.Addr.B ^= 1 << 40 }},
	}
}
