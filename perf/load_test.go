package perf

import (
	"testing"

	"xlvs/dataplane"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// parsed takes n frames from a source and returns what a director reads in them.
func parsed(t *testing.T, s *source, n int) []packet.Packet {
	t.Helper()
	var frames [dataplane.MaxBurst]dataplane.Frame
	var out []packet.Packet
	for s.budget = n; s.budget > 0; {
		k := s.Recv(frames[:])
		for _, f := range frames[:k] {
			var p packet.Packet
			packet.Parse(s.mem.Bytes(f), &p)
			out = append(out, p)
		}
		s.Send(frames[:k])
	}
	return out
}

// TestSourceFlows: flow n has the addresses that client and vip give it, whatever the order.
func TestSourceFlows(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		s, err := newSource(v6, 100_000)
		if err != nil {
			t.Fatal(err)
		}
		s.template, s.services = tcpFrame(v6, false, packet.FlagACK, 64), 7
		seen, vips := map[packet.Addr]bool{}, map[packet.Addr]bool{}
		for n, p := range parsed(t, s, 100_000) {
			if p.Src != packet.FromNetip(client(v6, uint32(n))) || p.Ports != packet.MakePorts(clientPort(uint32(n)), servicePort) ||
				p.Kind != packet.KindTCP || p.TCPFlags != packet.FlagACK {
				t.Fatalf("v6 %v, flow %d: %+v", v6, n, p)
			}
			seen[p.Src], vips[p.Dst] = true, true
		}
		if len(vips) != 7 || !vips[packet.FromNetip(vip(v6, 0))] || !vips[packet.FromNetip(vip(v6, 6))] {
			t.Errorf("v6 %v: %d services are addressed, want 7", v6, len(vips))
		}
		s.random = true
		random := map[packet.Ports]bool{}
		for _, p := range parsed(t, s, 100_000) {
			if !seen[p.Src] {
				t.Fatalf("v6 %v: %v is no client of the first 100000 flows", v6, p.Src)
			}
			random[p.Ports] = true
		}
		if len(random) < 25_000 {
			t.Errorf("v6 %v: only %d of 32768 ports in a random order", v6, len(random))
		}
	}
}

func TestReplies(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		s, err := newSource(v6, 10)
		if err != nil {
			t.Fatal(err)
		}
		s.template, s.backend = tcpFrame(v6, true, packet.FlagACK, 64), []byte{9, 8, 7, 6, 5, 4, 3, 2, 1, 0}
		for n, p := range parsed(t, s, 10) {
			if p.Src != packet.FromNetip(backendAddr(v6, 9-n)) || p.Dst != packet.FromNetip(client(v6, uint32(n))) ||
				p.Ports != packet.MakePorts(backendPort, clientPort(uint32(n))) {
				t.Errorf("v6 %v, flow %d: %+v", v6, n, p)
			}
		}
	}
}

func TestFrameSizes(t *testing.T) {
	for _, c := range []struct {
		v6         bool
		size, want int
	}{{false, 64, 60}, {false, 512, 508}, {false, 1500, 1496}, {true, 64, 74}, {true, 512, 508}} {
		if got := len(tcpFrame(c.v6, false, 0, c.size)); got != c.want {
			t.Errorf("v6 %v, %d bytes: a frame of %d, want %d", c.v6, c.size, got, c.want)
		}
	}
}

// TestTimingNotices: a figure is refused when the worker did not forward what it was given.
func TestTimingNotices(t *testing.T) {
	o := balanced{mode: table.DR, services: 1, backends: 2, slots: 4093}
	b, err := newBench(o, 100, 1<<10, hotChunks)
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	if err := b.establish(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.timing(1000); err == nil {
		t.Error("flows that were never opened were forwarded: the source goes on behind flow 100")
	}
	b.src.random = true
	figures, err := b.timing(100_000)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range figures {
		if f.Metric == "ns_per_packet" && f.Value <= 0 {
			t.Errorf("%s = %v", f.Metric, f.Value)
		}
	}
	if figures, err := b.open(64, 50); err != nil || len(figures) == 0 {
		t.Errorf("new flows beside the others: %v, %v", figures, err)
	}
	if got := b.engine.FlowTable(0).Used; got != b.flows {
		t.Errorf("%d flows are left of %d", got, b.flows)
	}
}
