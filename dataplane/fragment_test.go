package dataplane_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"xlvs/dataplane"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/memio"
	"xlvs/dataplane/table"
)

// large returns a datagram of 4,000 bytes from a client, in fragments of at most size bytes of data.
func (s svc) large(n, size int) (frametest.Spec, [][]byte) {
	c := s.client(0, n, ack)
	c.DF, c.Payload = false, make([]byte, 4000)
	for i := range c.Payload {
		c.Payload[i] = byte(i * 7 >> 3)
	}
	return c, frametest.Fragments(c.Build(), size, uint32(0x10000*n+n))
}

// whole checks that frames are all the fragments of what a backend, or a client, is to get of c.
func (l *lab) whole(what string, frames [][]byte, c frametest.Spec, dst, src [6]byte) {
	l.Helper()
	got, err := frametest.Reassemble(frames)
	if err != nil {
		l.Fatalf("%s: %d frames: %v; drops %v", what, len(frames), err, l.e.Counters().Drops)
	}
	c.TTL, c.DstMAC, c.SrcMAC = 63, dst, src
	l.same(what, got, c.Build())
}

// Whatever order the fragments of a datagram come in, all of them go to one backend, and are right there.
func TestFragments(t *testing.T) {
	for _, s := range matrix() {
		s.n = 8
		for name, order := range map[string][]int{"in order": {0, 1, 2}, "backwards": {2, 1, 0}, "first last": {1, 2, 0}, "first second": {2, 0, 1}} {
			t.Run(s.String()+"/"+name, func(t *testing.T) {
				l := newLab(t, 1)
				l.e.Publish(snapshot(t, s))
				if !s.udp {
					l.one(0, 0, 1, s.client(0, 1, syn).Build())
				}
				for n := 1; n < 4; n++ { // the second and third datagram are of known flows for TCP alone
					if !s.udp && n > 1 {
						break
					}
					c, parts := s.large(n, 1400)
					b := l.picked(c)
					var sent [][]byte
					for _, k := range order {
						sent = append(sent, l.step(0, 0, parts[k])[1]...)
					}
					want := c
					if s.mode == table.NAT {
						want.Dst = addrPort(b)
					}
					l.whole("fragments", sent, want, [6]byte(b.Eth[:6]), [6]byte(b.Eth[6:]))
					if c := l.e.Counters(); c.FragmentsHeld != 0 {
						t.Errorf("%d fragments still held", c.FragmentsHeld)
					}
				}
			})
		}
	}
}

// The answer of a NAT backend comes in fragments, too.
func TestReplyFragments(t *testing.T) {
	for _, s := range matrix() {
		if s.mode != table.NAT {
			continue
		}
		t.Run(s.String(), func(t *testing.T) {
			l := newLab(t, 2)
			l.e.Publish(snapshot(t, s))
			c, parts := s.large(1, 1400)
			if !s.udp {
				l.one(0, 0, 1, s.client(0, 1, syn).Build())
			}
			l.step(0, 0, parts...)
			in, want := reply(c, l.picked(c), ack)
			in.DF, want.DF = false, false
			in.Payload = bytes.Repeat([]byte("answer"), 600)
			want.Payload = in.Payload
			for worker := range 2 { // the flow is the first worker's
				for _, backwards := range []bool{false, true} {
					parts := frametest.Fragments(in.Build(), 800, 77)
					if backwards {
						slices.Reverse(parts)
					}
					l.whole("answer", l.step(worker, 1, parts...)[0], want, want.DstMAC, want.SrcMAC)
				}
			}
		})
	}
}

// A worker that has fragments only finds the flow in the table of the one that has the rest.
func TestFragmentsOfAnothersFlow(t *testing.T) {
	for _, s := range matrix() {
		t.Run(s.String(), func(t *testing.T) {
			s.n = 8
			l := newLab(t, 2)
			l.e.Publish(snapshot(t, s))
			first := s.client(0, 1, syn)
			b := l.picked(first)
			l.one(0, 0, 1, first.Build())
			without := s // the same, but new flows go elsewhere by now
			without.edit = func(v *table.Service) {
				for i := range v.Slots {
					v.Slots[i] = uint16(b.Ref.Slot()+1) % 8
				}
			}
			l.e.Publish(snapshot(t, without))
			c, parts := s.large(1, 1400)
			want := c
			if s.mode == table.NAT {
				want.Dst = addrPort(b)
			}
			l.whole("fragments", l.step(1, 0, parts...)[1], want, [6]byte(b.Eth[:6]), [6]byte(b.Eth[6:]))
			if n := l.e.FlowTable(1).Used; n != 0 {
				t.Errorf("the second worker opened %d flows", n)
			}
		})
	}
}

// IPv4 packets without DF that are too big for the way are fragmented; a fragment that is too big is so again.
func TestTooBigIsFragmented(t *testing.T) {
	for _, s := range matrix() {
		if s.v6 {
			continue
		}
		for _, mtu := range []uint16{1400, 576, 100} {
			for _, vlan := range []uint16{0, 5} {
				for _, partial := range []bool{false, true} {
					t.Run(fmt.Sprintf("%v/%d/%d/%v", s, mtu, vlan, partial), func(t *testing.T) {
						s.be = func(_ int, b *table.Backend) { b.MTU = mtu }
						l := newLab(t, 1)
						l.e.Publish(snapshot(t, s))
						c := s.client(0, 1, syn)
						c.DF, c.VLAN, c.Unfinished = false, vlan, partial
						c.Payload = bytes.Repeat([]byte("0123456"), 1380/7)
						b := l.picked(c)
						sent := l.step(0, 0, c.Build())[1]
						for _, f := range sent {
							if len(f)-14 > int(mtu)+int(min(vlan, 1)*4) {
								t.Errorf("a frame of %d bytes for an MTU of %d", len(f), mtu)
							}
						}
						want := c
						want.Unfinished = false
						if s.mode == table.NAT {
							want.Dst = addrPort(b)
						}
						l.whole("cut packet", sent, want, [6]byte(b.Eth[:6]), [6]byte(b.Eth[6:]))
						if s.udp {
							c, parts := s.large(2, 1400)
							c.VLAN = 0
							b = l.picked(c)
							want := c
							if s.mode == table.NAT {
								want.Dst = addrPort(b)
							}
							l.whole("cut fragments", l.step(0, 0, parts...)[1], want, [6]byte(b.Eth[:6]), [6]byte(b.Eth[6:]))
						}
					})
				}
			}
		}
	}
}

// A service that forbids it fragments nothing; nor is anything done when the memory has no room for the pieces.
func TestFragmentingRefused(t *testing.T) {
	s := svc{udp: true, be: func(_ int, b *table.Backend) { b.MTU = 600 }}
	c := s.client(0, 1, 0)
	c.DF, c.Payload = false, make([]byte, 1400)
	t.Run("forbidden", func(t *testing.T) {
		s := s
		s.edit = func(v *table.Service) { v.NoFragment = true }
		l := newLab(t, 1)
		l.e.Publish(snapshot(t, s))
		l.one(0, 0, 1, c.Build())
		l.wantDrop(dataplane.DropTooBig)
	})
	t.Run("no memory", func(t *testing.T) {
		l := newLab(t, 1)
		l.e.Publish(snapshot(t, s))
		mem := l.mems[0]
		for mem.Available() > 2 {
			mem.Alloc()
		}
		if !l.ports[0][0].Inject(c.Build()) {
			t.Fatal("frame not taken")
		}
		l.e.Step(0, l.now)
		l.wantDrop(dataplane.DropNoMemory)
		if mem.Available() != 2 || len(l.ports[0][1].Sent()) != 0 {
			t.Errorf("%d chunks are left of 2", mem.Available())
		}
	})
	t.Run("MTU too small for anything", func(t *testing.T) {
		s := s
		s.be = func(_ int, b *table.Backend) { b.MTU = 40 }
		l := newLab(t, 1)
		l.e.Publish(snapshot(t, s))
		l.one(0, 0, 1, c.Build())
		l.wantDrop(dataplane.DropTooBig)
	})
}

// Fragments that must not go on are counted under their reason, and what was held for them is freed.
func TestFragmentDrops(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		s := svc{udp: true, v6: v6}
		c, parts := s.large(1, 1400)
		tiny := frametest.Fragments(s.client(0, 2, 0).Build(), 8, 9)
		tcpTiny := frametest.Fragments(svc{v6: v6}.client(1, 2, syn).Build(), 16, 9)
		big := frametest.Fragments(c.Build(), 1000, uint32(0x10001)) // the same datagram, cut otherwise
		other := frametest.Fragments(svc{udp: true, v6: v6}.client(9, 1, 0).Build(), 8, 5)
		for name, tc := range map[string]struct {
			in   [][]byte
			why  dataplane.Reason
			n    uint64
			sent int
		}{
			"a copy":                    {[][]byte{parts[0], parts[1], parts[1]}, dataplane.DropFragment, 1, 2},
			"a copy of the first":       {[][]byte{parts[0], parts[0]}, dataplane.DropFragment, 1, 1},
			"overlapping":               {[][]byte{parts[0], big[1], parts[1], parts[2]}, dataplane.DropOverlap, 3, 1},
			"overlapping while held":    {[][]byte{parts[1], big[1], parts[0]}, dataplane.DropOverlap, 3, 0},
			"to no service":             {other, dataplane.DropNotOurs, 1, 0},
			"tiny UDP":                  {tiny[:1], dataplane.DropFragment, 0, 1},
			"TCP header in two":         {tcpTiny[:1], dataplane.DropFragment, 1, 0},
			"what follows a tiny first": {tcpTiny[:2], dataplane.DropFragment, 2, 0},
		} {
			t.Run(fmt.Sprintf("%s/v6=%v", name, v6), func(t *testing.T) {
				l := newLab(t, 1)
				l.e.Publish(snapshot(t, s, svc{v6: v6}))
				sent := 0
				for _, f := range tc.in {
					sent += len(l.step(0, 0, f)[1])
				}
				if d := l.delta(); d.Drops[tc.why] != tc.n || sent != tc.sent {
					t.Errorf("%d drops for %v, want %d; %d frames sent, want %d; all drops %v", d.Drops[tc.why], tc.why, tc.n, sent, tc.sent, d.Drops)
				}
			})
		}
	}
}

// Fragments wait a second for their first one, and no more of them than fit the bounds.
func TestHeldFragments(t *testing.T) {
	s := svc{udp: true}
	l := newLab(t, 1)
	l.e.Publish(snapshot(t, s))
	held := labChunks / 8
	for n := range held + 5 {
		_, parts := s.large(n%250, 1400)
		parts[1][18], parts[1][19] = byte(n>>8), byte(n)
		frametest.FixIPv4(parts[1][14:])
		l.step(0, 0, parts[1])
	}
	if d := l.delta(); l.e.Counters().FragmentsHeld != uint64(held) || d.Drops[dataplane.DropFragment] != 5 {
		t.Fatalf("%d held of at most %d, %d dropped", l.e.Counters().FragmentsHeld, held, d.Drops[dataplane.DropFragment])
	}
	l.now += 1000
	l.step(0, 0)
	if d := l.delta(); d.Drops[dataplane.DropFragTimeout] != 0 {
		t.Errorf("%d dropped before their time", d.Drops[dataplane.DropFragTimeout])
	}
	l.now++
	l.step(0, 0)
	if d := l.delta(); d.Drops[dataplane.DropFragTimeout] != uint64(held) || l.e.Counters().FragmentsHeld != 0 {
		t.Errorf("%d of %d dropped in time", d.Drops[dataplane.DropFragTimeout], held)
	}
}

// Closing an engine gives the chunks of held fragments back.
func TestCloseFreesHeldFragments(t *testing.T) {
	s := svc{udp: true}
	mem, err := dataplane.NewMemory(make([]byte, 64*2048), 2048)
	if err != nil {
		t.Fatal(err)
	}
	port := memio.New(mem)
	e, err := dataplane.New(dataplane.Options{Flows: 1024, EventRing: 4, Workers: []dataplane.WorkerOptions{
		{CPU: -1, Memory: mem, Ports: []dataplane.Port{port, memio.New(mem)}}}})
	if err != nil {
		t.Fatal(err)
	}
	e.Publish(snapshot(t, s))
	_, parts := s.large(1, 1400)
	port.Inject(parts[1])
	e.Step(0, 1)
	if mem.Available() != 63 {
		t.Fatalf("%d chunks free while one is held", mem.Available())
	}
	if err := e.Close(); err != nil || mem.Available() != 64 {
		t.Errorf("%v, %d chunks free", err, mem.Available())
	}
}

// An atomic fragment (RFC 6946) is a whole packet, whatever else has its identification.
func TestAtomicFragments(t *testing.T) {
	for _, s := range matrix() {
		if !s.v6 {
			continue
		}
		l := newLab(t, 1)
		l.e.Publish(snapshot(t, s))
		c := s.client(0, 1, syn)
		for range 3 {
			sent := l.step(0, 0, frametest.Fragments(c.Build(), 1400, 7)...)[1]
			b := l.picked(c)
			want := c
			if s.mode == table.NAT {
				want.Dst = addrPort(b)
			}
			l.whole("atomic fragment", sent, want, [6]byte(b.Eth[:6]), [6]byte(b.Eth[6:]))
		}
	}
}

// Many datagrams at once, their fragments in any order, in bursts with other packets.
func TestFragmentsShuffled(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, s := range matrix() {
		if !s.udp {
			continue
		}
		l := newLab(t, 1)
		l.e.Publish(snapshot(t, s))
		want := map[string]frametest.Spec{}
		var frames [][]byte
		for n := 1; n <= 12; n++ {
			c, parts := s.large(n, 1200)
			want[c.Src.String()] = c
			frames = append(frames, parts...)
			frames = append(frames, s.client(0, 100+n, 0).Build())
		}
		r.Shuffle(len(frames), func(i, j int) { frames[i], frames[j] = frames[j], frames[i] })
		sent := l.step(0, 0, frames...)[1]
		if len(sent) != len(frames) {
			t.Fatalf("%v: %d frames of %d; drops %v", s, len(sent), len(frames), l.e.Counters().Drops)
		}
		if d := l.delta(); d.FragmentsHeld != 0 || d.FlowsNew != 24 {
			t.Errorf("%v: %d held, %d flows", s, d.FragmentsHeld, d.FlowsNew)
		}
	}
}

// No fragment costs an allocation, nor does cutting a packet.
func TestFragmentsDoNotAllocate(t *testing.T) {
	for _, s := range matrix() {
		if !s.udp {
			continue
		}
		s.be = func(_ int, b *table.Backend) { b.Out = 0 }
		mem, err := dataplane.NewMemory(make([]byte, 4096*2048), 2048)
		if err != nil {
			t.Fatal(err)
		}
		port, sink := memio.New(mem), memio.New(mem)
		e, err := dataplane.New(dataplane.Options{Flows: 1024, EventRing: 4, Workers: []dataplane.WorkerOptions{
			{CPU: -1, Memory: mem, Ports: []dataplane.Port{port, sink}}}})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		e.Publish(snapshot(t, s))
		_, parts := s.large(1, 1200)
		parts = append(parts, parts[1]) // waits for a first fragment that never comes
		if err := port.Replay(memio.Replay{Frames: parts, Restore: 400}); err != nil {
			t.Fatal(err)
		}
		now := uint32(1)
		step := func() { e.Step(0, now); now += 3 }
		for range 100 {
			step()
		}
		if n := testing.AllocsPerRun(100, step); n != 0 {
			t.Errorf("%v: %v allocations a burst", s, n)
		}
		if c := e.Counters(); c.Forwarded[s.mode] == 0 {
			t.Errorf("%v: nothing was forwarded: %v", s, c.Drops)
		}
	}
}
