package dataplane_test

import (
	"bytes"
	"testing"

	"xlvs/dataplane/frametest"
	"xlvs/dataplane/memio"
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
	l := newLab(f, 1)
	l.e.Publish(everything(f))
	f.Fuzz(func(t *testing.T, first, second, back []byte) {
		defer l.forget(t)
		for k, in := range [][]byte{first, second, back} {
			port := k / 2
			if !l.ports[0][port].Inject(in) {
				continue
			}
			l.e.Step(0, l.now)
			if n := memio.InHand(l.mems[0], l.ports[0]...); n != 0 {
				t.Fatalf("%d chunks leaked", n)
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
			if dropped+forwarded+c.Replies+c.Echoes != 1 || uint64(len(sent)) != forwarded+c.Replies+c.Echoes+c.ICMPErrors {
				t.Fatalf("one frame: %d dropped, %d forwarded, %d replies, %d echoes, %d errors, %d sent", dropped, forwarded, c.Replies, c.Echoes, c.ICMPErrors, len(sent))
			}
			for _, out := range sent {
				judge(t, in, out, c.ICMPErrors == 1)
			}
		}
	})
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
