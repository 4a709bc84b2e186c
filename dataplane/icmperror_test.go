package dataplane_test

import (
	"fmt"
	"net/netip"
	"testing"

	"xlvs/dataplane"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/memio"
	"xlvs/dataplane/table"
)

var routers = map[bool]netip.Addr{false: netip.MustParseAddr("192.0.2.254"), true: netip.MustParseAddr("2001:db8:2::fe")}

// icmpKind is one error, in either family.
type icmpKind struct {
	name         string
	type4, code4 uint8
	type6, code6 uint8
	rest         uint32
	only4, only6 bool
}

func errorKinds() []icmpKind {
	return []icmpKind{
		{name: "port unreachable", type4: 3, code4: 3, type6: 1, code6: 4},
		{name: "host unreachable", type4: 3, code4: 1, type6: 1, code6: 3},
		{name: "too big", type4: 3, code4: 4, type6: 2, rest: 1400},
		{name: "time exceeded", type4: 11, type6: 3},
		{name: "parameter problem", type4: 12, type6: 4, rest: 6},
		{name: "source quench", type4: 4, only4: true},
		{name: "unknown error", type6: 100, only6: true},
	}
}

func (k icmpKind) error(c frametest.Spec, router, dst netip.Addr, quote []byte, most int) []byte {
	if dst.Is6() {
		return c.Error(router, dst, k.type6, k.code6, k.rest, quote, most)
	}
	return c.Error(router, dst, k.type4, k.code4, k.rest, quote, most)
}

// answer is what the server of a flow that c opened sends to the client, as the client sees it.
func answer(c frametest.Spec) frametest.Spec {
	a := c
	a.Src, a.Dst, a.TTL, a.Flags = c.Dst, c.Src, 55, ack
	return a
}

// An error about a server's packet goes to the server whose flow it is, in every mode; so it does when no flow is known
// but the flow's hash names a server.
func TestErrorsReachTheBackend(t *testing.T) {
	for _, s := range matrix() {
		for _, k := range errorKinds() {
			if k.only4 && s.v6 || k.only6 && !s.v6 {
				continue
			}
			for _, known := range []bool{true, false} {
				for _, most := range []int{28, 40, 48, 1000} {
					if s.v6 && most < 48 {
						continue
					}
					t.Run(fmt.Sprintf("%v/%s/known=%v/%d", s, k.name, known, most), func(t *testing.T) {
						s.n = 5
						l := newLab(t, 1)
						l.e.Publish(snapshot(t, s))
						c := s.client(0, 3, syn)
						b := l.picked(c)
						if known {
							l.one(0, 0, 1, c.Build())
						}
						l.delta()
						router := routers[s.v6]
						quoted := answer(c)
						f := k.error(c, router, c.Dst.Addr(), quoted.Packet(), most)
						got := l.one(0, 0, 1, f)
						if got == nil {
							t.Fatalf("not sent; drops %v", l.e.Counters().Drops)
						}
						want := c
						want.TTL, want.DstMAC, want.SrcMAC = 63, [6]byte(b.Eth[:6]), [6]byte(b.Eth[6:])
						to := c.Dst.Addr()
						if s.mode == table.NAT {
							quoted.Src, to = addrPort(b), b.Addr.Netip()
						}
						if s.mode == table.TUN {
							var err error
							if got, err = frametest.Unwrap(got); err != nil {
								t.Fatal(err)
							}
						}
						l.same("error", got, k.error(want, router, to, quoted.Packet(), most))
						if d := l.delta(); d.FlowsNew != 0 {
							t.Error("an error opened a flow")
						}
					})
				}
			}
		}
	}
}

// An error about a NAT client's packet goes to the client, as if the VIP had been all that there is. A router's own
// address stays.
func TestErrorsReachTheClient(t *testing.T) {
	for _, s := range matrix() {
		if s.mode != table.NAT {
			continue
		}
		for _, k := range errorKinds() {
			if k.only4 && s.v6 || k.only6 && !s.v6 {
				continue
			}
			for _, fromRouter := range []bool{true, false} {
				for worker := range 2 {
					t.Run(fmt.Sprintf("%v/%s/router=%v/worker %d", s, k.name, fromRouter, worker), func(t *testing.T) {
						l := newLab(t, 2)
						l.e.Publish(snapshot(t, s))
						c := s.client(0, 3, syn)
						b := l.picked(c)
						l.one(0, 0, 1, c.Build())
						from, want := routers[s.v6], routers[s.v6]
						if !fromRouter {
							from, want = b.Addr.Netip(), c.Dst.Addr()
						}
						quoted := c
						quoted.TTL, quoted.Dst = 62, addrPort(b)
						in := c
						in.DstMAC, in.SrcMAC = portMAC[1], [6]byte(b.Eth[:6])
						got := l.one(worker, 1, 0, k.error(in, from, c.Src.Addr(), quoted.Packet(), 1000))
						if got == nil {
							t.Fatalf("not sent; drops %v", l.e.Counters().Drops)
						}
						quoted.Dst = c.Dst
						in.DstMAC, in.SrcMAC, in.TTL = clientMAC, portMAC[0], 63
						l.same("error", got, k.error(in, want, c.Src.Addr(), quoted.Packet(), 1000))
					})
				}
			}
		}
	}
}

// An error about a tunnel's packet is told to the client, about the client's packet, with the MTU that is left.
func TestErrorsAboutTunnels(t *testing.T) {
	for _, s := range matrix() {
		if s.mode != table.TUN {
			continue
		}
		for _, k := range errorKinds() {
			if k.only4 && s.outer6 || k.only6 && !s.outer6 {
				continue
			}
			t.Run(fmt.Sprintf("%v/%s", s, k.name), func(t *testing.T) {
				l := newLab(t, 1)
				l.e.Publish(snapshot(t, s))
				c := s.client(0, 3, syn)
				b := l.picked(c)
				sent := l.one(0, 0, 1, c.Build())
				at := c
				at.DstMAC, at.SrcMAC = portMAC[1], [6]byte(b.Eth[:6])
				got := l.one(0, 1, 0, k.error(at, routers[s.outer6], b.TunSrc.Netip(), sent[14:], 1000))
				if k.name == "source quench" {
					l.wantDrop2(dataplane.DropICMP)
					return
				}
				f, err := frametest.Decode(got)
				if err != nil {
					t.Fatalf("%v; drops %v", err, l.e.Counters().Drops)
				}
				e, err := f.IP.ICMPError()
				if err != nil {
					t.Fatal(err)
				}
				want := frametest.ICMPError{Type: 3, Code: 1}
				if s.v6 {
					want = frametest.ICMPError{Type: 1, Code: 3}
				}
				if k.name == "too big" {
					want = frametest.ICMPError{Type: 3, Code: 4, MTU: 1400 - 20}
					if s.outer6 {
						want.MTU = 1400 - 40
					}
					if s.v6 {
						want.Type, want.Code = 2, 0
					}
				}
				c.TTL = 63
				if e.Type != want.Type || e.Code != want.Code || e.MTU != want.MTU || string(e.Quote) != string(c.Packet()) {
					t.Errorf("%+v, want %+v about % x", e, want, c.Packet())
				}
				if f.Dst != clientMAC || f.Src != portMAC[0] || f.IP.Dst != c.Src.Addr() || f.IP.Src != map[bool]netip.Addr{false: portV4[0], true: portV6[0]}[s.v6] {
					t.Errorf("from %v %v to %v %v", f.Src, f.IP.Src, f.Dst, f.IP.Dst)
				}
			})
		}
	}
}

// wantDrop2 is wantDrop for a test that has forwarded packets before.
func (l *lab) wantDrop2(why dataplane.Reason) {
	l.Helper()
	if d := l.delta(); d.Drops[why] != 1 {
		l.Errorf("%d drops for %v; all drops %v", d.Drops[why], why, d.Drops)
	}
}

// What is no error about a flow of a service goes nowhere, and is not answered.
func TestErrorsAboutNothing(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		s, nat, tun := svc{v6: v6, n: 1}, svc{mode: table.NAT, v6: v6, n: 1}, svc{mode: table.TUN, v6: v6, outer6: v6, n: 1}
		l := newLab(t, 1)
		snap := snapshot(t, s, nat, tun, svc{v6: v6, off: []int{0, 1, 2}})
		l.e.Publish(snap)
		c := s.client(0, 1, syn)
		toTun := tun.client(2, 1, syn)
		outer := l.one(0, 0, 1, toTun.Build())[14:]
		l.delta()
		k := errorKinds()[0]
		big := errorKinds()[2]
		router := routers[v6]
		a := answer(c)
		head := map[bool]int{false: 20, true: 40}[v6]
		natBE, tunBE := &snap.Backends[perSvc], &snap.Backends[2*perSvc]
		forged := a
		forged.Src = netip.AddrPortFrom(c.Dst.Addr(), 81)
		otherClient := nat.client(1, 9, syn)
		otherClient.Dst = addrPort(natBE)
		small := big
		small.rest = map[bool]uint32{false: 87, true: 1319}[v6]
		unknown := toTun
		unknown.Src = netip.AddrPortFrom(toTun.Src.Addr(), 999)
		wrapped := unknown.Wrap(frametest.Tunnel{Src: tunBE.TunSrc.Netip(), Dst: tunBE.Addr.Netip()})[14:]
		for name, tc := range map[string]struct {
			in  []byte
			why dataplane.Reason
		}{
			"not to the server it is about":     {k.error(c, router, s.vip(3).Addr(), a.Packet(), 99), dataplane.DropICMP},
			"of a port that is no service":      {k.error(c, router, c.Dst.Addr(), forged.Packet(), 99), dataplane.DropICMP},
			"quote without ports":               {k.error(c, router, c.Dst.Addr(), a.Packet(), head+4), dataplane.DropICMP},
			"quote without an IP header":        {k.error(c, router, c.Dst.Addr(), a.Packet(), head-1), dataplane.DropICMP},
			"no quote":                          {k.error(c, router, c.Dst.Addr(), nil, 0), dataplane.DropICMP},
			"quote of the other family":         {k.error(c, router, c.Dst.Addr(), svc{v6: !v6}.client(0, 1, 0).Packet(), 99), dataplane.DropICMP},
			"service without servers":           {k.error(c, router, s.vip(3).Addr(), answer(svc{v6: v6}.client(3, 1, syn)).Packet(), 99), dataplane.DropNoBackend},
			"TTL":                               {k.error(withTTL(c, 1), router, c.Dst.Addr(), a.Packet(), 99), dataplane.DropTTL},
			"client without flow":               {k.error(c, router, otherClient.Src.Addr(), otherClient.Packet(), 99), dataplane.DropICMP},
			"tunnel, inner packet cut off":      {k.error(c, router, tunBE.TunSrc.Netip(), outer, head+8), dataplane.DropICMP},
			"tunnel, no flow":                   {k.error(c, router, tunBE.TunSrc.Netip(), wrapped, 999), dataplane.DropICMP},
			"tunnel, MTU below the least":       {small.error(c, router, tunBE.TunSrc.Netip(), outer, 999), dataplane.DropICMP},
			"tunnel, not to the tunnel's start": {k.error(c, router, portAddr(v6, 0), outer, 999), dataplane.DropICMP},
		} {
			if got := l.one(0, 0, 0, tc.in); got != nil {
				t.Errorf("v6=%v, %s: answered", v6, name)
			}
			if d := l.delta(); d.Drops[tc.why] != 1 {
				t.Errorf("v6=%v, %s: drops %v, want one for %v", v6, name, d.Drops, tc.why)
			}
		}
	}
}

func withTTL(c frametest.Spec, ttl uint8) frametest.Spec {
	c.TTL = ttl
	return c
}

func portAddr(v6 bool, i int) netip.Addr {
	if v6 {
		return portV6[i]
	}
	return portV4[i]
}

// Errors about tunnels are the director's own messages: they share its rate limit.
func TestTunnelErrorsAreLimited(t *testing.T) {
	s := svc{mode: table.TUN}
	l := newLab(t, 1)
	l.e.Publish(snapshot(t, s))
	c := s.client(0, 3, syn)
	b := l.picked(c)
	sent := l.one(0, 0, 1, c.Build())
	f := errorKinds()[2].error(c, routers[false], b.TunSrc.Netip(), sent[14:], 1000)
	l.delta()
	n := 0
	for range 60 {
		n += len(l.step(0, 1, f)[0])
	}
	if d := l.delta(); n != 50 || d.Drops[dataplane.DropICMPLimited] != 10 {
		t.Errorf("%d errors sent, drops %v", n, d.Drops)
	}
}

// A service may forbid that its address answers echo requests; another on the address may allow it.
func TestEchoOff(t *testing.T) {
	off := func(v *table.Service) { v.NoEcho = true }
	for _, both := range []bool{true, false} {
		s := svc{edit: off}
		snap := *snapshot(t, s, svc{udp: true, edit: off})
		snap.Services = append([]table.Service{}, snap.Services...)
		snap.Services[1].Addr, snap.Services[1].NoEcho = snap.Services[0].Addr, both
		next, err := table.New(&table.Snapshot{Services: snap.Services, Backends: snap.Backends, Ports: snap.Ports, Timeouts: snap.Timeouts})
		if err != nil {
			t.Fatal(err)
		}
		l := newLab(t, 1)
		l.e.Publish(next)
		if got := l.one(0, 0, 0, s.client(0, 1, 0).Echo(false, 1, 1)); both == (got != nil) {
			t.Errorf("both services forbid it: %v; answered: %v", both, got != nil)
		}
	}
}

// mss is a SYN's option, with no-operations around it.
func mss(n uint16, before int) []byte {
	o := []byte{1, 1, 1, 1, 1, 1, 1, 1}
	copy(o[before:], []byte{2, 4, byte(n >> 8), byte(n)})
	return o
}

func TestClampMSS(t *testing.T) {
	for _, s := range matrix() {
		if s.udp {
			continue
		}
		for _, tc := range []struct {
			name       string
			clamp      uint16
			flags      uint8
			was, want  uint16
			partial    bool
			wantOffset int
		}{
			{name: "lower", clamp: 1300, flags: syn, was: 1460, want: 1300},
			{name: "odd offset", clamp: 1300, flags: syn, was: 1460, want: 1300, wantOffset: 3},
			{name: "last", clamp: 1300, flags: syn, was: 1460, want: 1300, wantOffset: 4},
			{name: "already lower", clamp: 1300, flags: syn, was: 1200, want: 1200},
			{name: "no clamping", flags: syn, was: 1460, want: 1460},
			{name: "unfinished checksum", clamp: 1300, flags: syn, was: 1460, want: 1300, partial: true},
			{name: "auto", clamp: table.AutoMSS, flags: syn, was: 9000, want: 0},
		} {
			t.Run(s.String()+"/"+tc.name, func(t *testing.T) {
				s.edit = func(v *table.Service) { v.ClampMSS = tc.clamp }
				l := newLab(t, 1)
				l.e.Publish(snapshot(t, s))
				c := s.client(0, 1, tc.flags)
				b := l.picked(c)
				if tc.want == 0 {
					tc.want = b.Limit - 40
					if s.v6 {
						tc.want = b.Limit - 60
					}
				}
				c.RawOptions, c.Unfinished = mss(tc.was, tc.wantOffset), tc.partial
				got := l.one(0, 0, 1, c.Build())
				c.RawOptions = mss(tc.want, tc.wantOffset)
				l.same("SYN", got, s.toBackend(t, c, b, got))
				if s.mode == table.NAT {
					in, want := reply(c, b, synack)
					in.RawOptions, want.RawOptions, want.Unfinished = mss(tc.was, 1), mss(tc.want, 1), false
					l.same("SYN-ACK", l.one(0, 1, 0, in.Build()), want.Build())
				}
				if c.Flags = ack; tc.clamp != 0 {
					c.RawOptions = mss(tc.was, 0)
					got = l.one(0, 0, 1, c.Build())
					l.same("no SYN", got, s.toBackend(t, c, b, got))
				}
			})
		}
	}
}

// An option that a SYN has several times is lowered each time; what is behind the end of the list, or of another length, is none.
func TestClampMSSAllOfThem(t *testing.T) {
	for _, s := range matrix() {
		if s.udp {
			continue
		}
		for name, o := range map[string][2][]byte{
			"twice":          {{2, 4, 5, 180, 2, 4, 35, 40}, {2, 4, 5, 20, 2, 4, 5, 20}},
			"odd":            {{1, 2, 4, 5, 180, 2, 4, 35, 40, 0, 0, 0}, {1, 2, 4, 5, 20, 2, 4, 5, 20, 0, 0, 0}},
			"the second":     {{2, 4, 4, 0, 3, 3, 7, 2, 4, 35, 40, 0}, {2, 4, 4, 0, 3, 3, 7, 2, 4, 5, 20, 0}},
			"behind the end": {{2, 4, 5, 180, 0, 2, 4, 35, 40, 0, 0, 0}, {2, 4, 5, 20, 0, 2, 4, 35, 40, 0, 0, 0}},
			"another length": {{2, 5, 35, 40, 1, 2, 4, 35, 40, 0, 0, 0}, {2, 5, 35, 40, 1, 2, 4, 5, 20, 0, 0, 0}},
		} {
			t.Run(s.String()+"/"+name, func(t *testing.T) {
				s.edit = func(v *table.Service) { v.ClampMSS = 1300 }
				l := newLab(t, 1)
				l.e.Publish(snapshot(t, s))
				c := s.client(0, 1, syn)
				b := l.picked(c)
				c.RawOptions = o[0]
				got := l.one(0, 0, 1, c.Build())
				c.RawOptions = o[1]
				l.same("SYN", got, s.toBackend(t, c, b, got))
			})
		}
	}
}

// No error that is passed on costs an allocation.
func TestErrorsDoNotAllocate(t *testing.T) {
	for _, s := range matrix() {
		s.n, s.be = 1, func(_ int, b *table.Backend) { b.Out = 0 }
		mem, err := dataplane.NewMemory(make([]byte, 1024*2048), 2048)
		if err != nil {
			t.Fatal(err)
		}
		port := memio.New(mem)
		e, err := dataplane.New(dataplane.Options{Flows: 1024, EventRing: 4, Workers: []dataplane.WorkerOptions{
			{CPU: -1, Memory: mem, Ports: []dataplane.Port{port, memio.New(mem)}}}})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		snap := snapshot(t, s)
		e.Publish(snap)
		open, be := s.client(0, 1, syn), &snap.Backends[0]
		quoted, k := answer(open), errorKinds()[2]
		frames := [][]byte{open.Build(), k.error(open, routers[s.v6], open.Dst.Addr(), quoted.Packet(), 99)}
		switch s.mode {
		case table.NAT:
			quoted = open
			quoted.Dst = addrPort(be)
			frames = append(frames, k.error(open, routers[s.v6], open.Src.Addr(), quoted.Packet(), 99))
		case table.TUN:
			wrapped := open.Wrap(frametest.Tunnel{Src: be.TunSrc.Netip(), Dst: be.Addr.Netip()})
			frames = append(frames, k.error(open, routers[s.outer6], be.TunSrc.Netip(), wrapped[14:], 200))
		}
		if err := port.Replay(memio.Replay{Frames: frames, Restore: 300}); err != nil {
			t.Fatal(err)
		}
		now := uint32(1)
		step := func() { e.Step(0, now); now += 100 }
		for range 50 {
			step()
		}
		before := e.Counters().ICMPForwarded
		if n := testing.AllocsPerRun(50, step); n != 0 {
			t.Errorf("%v: %v allocations a burst", s, n)
		}
		if n := e.Counters().ICMPForwarded - before; n < 51*20 {
			t.Errorf("%v: %d errors passed on; drops %v", s, n, e.Counters().Drops)
		}
	}
}
