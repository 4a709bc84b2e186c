package dataplane_test

import (
	"bytes"
	"slices"
	"testing"

	"xlvs/dataplane/frametest"
	"xlvs/dataplane/memio"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

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

// judgeFragment checks what can be known of a fragment alone: it is a packet of the right length with a right header, and
// what it carries behind ports and checksum came in with some frame.
func judgeFragment(t *testing.T, ins [][]byte, out []byte) {
	t.Helper()
	in := ins[len(ins)-1]
	var p packet.Packet
	packet.Parse(out, &p)
	if p.Kind >= packet.KindMalformed || !p.V6 && okSums(ins) && frametest.Sum(out[p.L3:p.L4]) != 0xffff {
		t.Fatalf("no packet: kind %d\n in % x\nout % x", p.Kind, in, out)
	}
	out = innermost(out)
	packet.Parse(out, &p)
	if p.Proto == packet.ProtoICMP || p.Proto == packet.ProtoICMPv6 {
		return
	}
	at := 0
	if p.Kind == packet.KindFragment {
		f, _ := p.Fragment(out)
		at = f.Offset
	}
	data := out[p.L4:p.End]
	data = data[min(len(data), max(0, 60-at)):] // a TCP header with options, which a clamp may change
	for _, in := range ins {
		if bytes.Contains(in, data) {
			return
		}
	}
	t.Fatalf("a fragment's data came in with no frame:\n in % x\nout % x", in, out)
}

// judgeCut checks that frames are all the fragments of what became of in.
func judgeCut(t *testing.T, in []byte, frames [][]byte) {
	t.Helper()
	var inner [][]byte
	for _, f := range frames {
		inner = append(inner, innermost(f))
	}
	whole, err := frametest.Reassemble(inner)
	if err != nil {
		t.Fatalf("%v\n in % x\nout % x", err, in, frames)
	}
	judge(t, in, whole, false)
}

// innermost takes the packet out of its tunnel, if it is in one, and any padding off.
func innermost(f []byte) []byte {
	var p packet.Packet
	packet.Parse(f, &p)
	if p.Kind >= packet.KindMalformed {
		return f
	}
	body := f[p.L4:p.End]
	switch {
	case p.Kind == packet.KindOther && (p.Proto == packet.ProtoIPIP || p.Proto == packet.ProtoIPv6):
	case p.Kind == packet.KindOther && p.Proto == protoGRE && len(body) >= 8 && body[0] == 0x80:
		body = body[8:]
	case p.Kind == packet.KindOther && p.Proto == protoGRE && len(body) >= 4:
		body = body[4:]
	case p.Kind == packet.KindUDP && p.Ports.Dst() == frametest.GUEPort && len(body) >= 12:
		body = body[12:]
	default:
		return f[:p.End]
	}
	if len(body) == 0 {
		return f[:p.End]
	}
	head := append(bytes.Clone(f[:p.L3-2]), 8, 0)
	if body[0]>>4 == 6 {
		head[p.L3-2], head[p.L3-1] = 0x86, 0xdd
	}
	return append(head, body...)
}

const protoGRE = 47

// apart is burst with the last frame at the second worker, whose output it returns. None of them may lose a chunk.
func (l *lab) apart(t *testing.T, ins [][]byte) [][]byte {
	t.Helper()
	last := len(ins) - 1
	for k, in := range ins[:last] {
		l.ports[0][k/2].Inject(in)
	}
	l.e.Step(0, l.now)
	l.ports[1][1].Inject(ins[last])
	l.e.Step(1, l.now)
	l.e.Step(0, l.now) // takes the news
	for w := range 2 {
		if n, held := memio.InHand(l.mems[w], l.ports[w]...), l.e.Worker(w).FragmentsHeld; n != int(held) {
			t.Fatalf("worker %d: %d chunks in hand, %d held", w, n, held)
		}
	}
	for _, p := range l.ports[0] {
		p.Sent()
	}
	return slices.Concat(l.ports[1][0].Sent(), l.ports[1][1].Sent())
}

// burst gives the frames to the worker at once, those of the first port as one burst, and returns what it sent.
func (l *lab) burst(ins [][]byte) [2][][]byte {
	for k, in := range ins {
		l.ports[0][k/2].Inject(in)
	}
	l.e.Step(0, l.now)
	return [2][][]byte{l.ports[0][0].Sent(), l.ports[0][1].Sent()}
}

// okSums reports whether all frames came with right checksums of their IPv4 headers: what leaves may have been held before.
func okSums(frames [][]byte) bool {
	return !slices.ContainsFunc(frames, func(f []byte) bool {
		var p packet.Packet
		packet.Parse(f, &p)
		return !p.V6 && (p.Kind >= packet.KindMalformed || frametest.Sum(f[p.L3:p.L4]) != 0xffff)
	})
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
	for w := range l.e.Workers() {
		for k := range uint32(16) { // the clock turns over now and then: l.now may be larger than what comes after it
			l.e.Step(w, l.now+k*1000)
		}
		if n := l.e.FlowTable(w).Used; n != 0 {
			t.Fatalf("%d flows of worker %d never end", n, w)
		}
	}
	l.now += 16_000
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
	if was.VLAN != is.VLAN || was.Inner != is.Inner || len(ip.Body) != len(was.IP.Body) || len(ip.Header) != len(was.IP.Header) {
		t.Fatalf("the packet's shape changed:\n in % x\nout % x", in, out)
	}
	if ip.Proto == 6 || ip.Proto == 17 {
		sum := map[uint8]int{6: 16, 17: 6}[ip.Proto]
		after := sum + 2
		if ip.Proto == 6 && ip.Body[13]&frametest.SYN != 0 {
			after = int(ip.Body[12]>>4) * 4 // a clamp changes an option
		}
		if ip.TTL != was.IP.TTL-1 || ip.TOS != was.IP.TOS || !bytes.Equal(ip.Body[4:sum], was.IP.Body[4:sum]) ||
			!bytes.Equal(ip.Body[after:], was.IP.Body[after:]) {
			t.Fatalf("the packet changed:\n in % x\nout % x", in, out)
		}
	}
}
