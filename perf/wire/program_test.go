package wire

import (
	"encoding/binary"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"xlvs/dataplane/packet"
)

var (
	macA = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	macB = net.HardwareAddr{2, 0, 0, 0, 0, 2}
)

// A writer makes the frames that the generator should.
type writer struct {
	*stamper
	flow uint32
}

// write makes frame number seq, due at t, in f, which has the template's length.
func (w *writer) write(f []byte, seq, t uint32) {
	copy(f, w.template)
	binary.BigEndian.PutUint32(f[offSrcIP:], 198<<24|18<<16+w.flow>>flowPortBits)
	binary.BigEndian.PutUint16(f[offSrcPort:], uint16(firstPort+w.flow%(1<<flowPortBits)))
	w.flow = (w.flow + w.step) % w.flows
	binary.BigEndian.PutUint32(f[offSeq:], seq)
	binary.BigEndian.PutUint32(f[offTime:], t)
	packet.SetIPv4Sum(f[14:34])
	binary.BigEndian.PutUint16(f[offSum:], 0)
	binary.BigEndian.PutUint16(f[offSum:], ^tcpSum(f))
}

// tcpSum is the sum over pseudo header and segment: all ones for a right checksum.
func tcpSum(f []byte) uint16 {
	n := sum(f[26:]) + packet.ProtoTCP + uint64(len(f)-34)
	for n>>16 != 0 {
		n = n&0xffff + n>>16
	}
	return uint16(n)
}

// checked fails the test unless a frame's checksums are right, and returns its client, number and time.
func checked(t *testing.T, f []byte) (client string, seq, due uint32) {
	t.Helper()
	if packet.Fold(packet.Sum(f[14:34], 0)) != 0xffff {
		t.Errorf("the IPv4 checksum of % x is wrong", f[14:34])
	}
	if got := tcpSum(f); got != 0xffff {
		t.Errorf("the TCP checksum of % x is off by %#x", f[34:], ^got)
	}
	if n := int(binary.BigEndian.Uint16(f[16:])); n != len(f)-14 {
		t.Errorf("the packet says it has %d bytes; it has %d", n, len(f)-14)
	}
	client = fmt.Sprintf("%s:%d", net.IP(f[26:30]), binary.BigEndian.Uint16(f[34:]))
	return client, binary.BigEndian.Uint32(f[offSeq:]), binary.BigEndian.Uint32(f[offTime:])
}

// TestFlows visits every flow once before any again.
func TestFlows(t *testing.T) {
	for _, flows := range []int{1, 2, 3, 1000, 65536, 100_000} {
		s := &writer{stamper: newStamper(macA, macB, flows, minFrame, flagACK)}
		seen := map[string]bool{}
		f := make([]byte, minFrame)
		for range flows {
			s.write(f, 0, 0)
			seen[fmt.Sprint(f[offSrcIP:offSrcIP+4], f[offSrcPort:offSrcPort+2])] = true
		}
		if len(seen) != flows || s.flow != 0 {
			t.Errorf("%d frames of %d flows had %d clients, and flow %d is next", flows, flows, len(seen), s.flow)
		}
	}
}

// TestGenerator compares the frames that the program in the kernel makes with those that Go makes.
func TestGenerator(t *testing.T) {
	needRoot(t)
	const size, flows, frames = 100, 70_000, 50
	g, err := newGenerator(1, macA, macB, size)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	want := &writer{stamper: newStamper(macA, macB, flows, size, flagSYN)}
	tr := trial{stamp: want.stamper, frames: frames}
	state := tr.state()
	state.Trial = 0xabcd
	binary.BigEndian.PutUint16(want.template[offTrial:], 0xabcd)
	if err := g.set(state); err != nil {
		t.Fatal(err)
	}
	const xdpRedirect = 4
	template := slices.Clone(want.template)
	for i := range uint32(frames) {
		verdict, f, err := g.prog.Test(template)
		if err != nil {
			t.Fatal(err)
		}
		_, _, due := checked(t, f)
		w := make([]byte, size)
		want.write(w, i, due)
		if verdict != xdpRedirect || !slices.Equal(f, w) {
			t.Fatalf("frame %d: verdict %d\n% x, want %d\n% x", i, verdict, f, xdpRedirect, w)
		}
	}
	if verdict, _, err := g.prog.Test(template); verdict != xdpDrop || err != nil {
		t.Errorf("one frame too many: verdict %d, %v", verdict, err)
	}
	if s := g.get(); s.Seq != frames {
		t.Errorf("the program counts %d frames of %d", s.Seq, frames)
	}
}

// TestGeneratorMixes: of each three frames, two are SYNs of clients that are never seen twice, not even in the next trial.
func TestGeneratorMixes(t *testing.T) {
	needRoot(t)
	g, err := newGenerator(1, macA, macB, minFrame)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s := newStamper(macA, macB, 4, minFrame, flagACK)
	clients := map[string]int{}
	for range 2 {
		tr := trial{stamp: s, frames: 12, mix: mix{syns: 2, cycle: 3}}
		if err := g.set(tr.state()); err != nil {
			t.Fatal(err)
		}
		for i := range tr.frames {
			_, f, err := g.prog.Test(s.template)
			if err != nil {
				t.Fatal(err)
			}
			client, _, _ := checked(t, f)
			want := byte(flagACK)
			if i%3 < 2 {
				want = flagSYN
			}
			if f[offFlags] != want {
				t.Errorf("frame %d has flags %#x, want %#x", i, f[offFlags], want)
			}
			clients[client]++
		}
	}
	known := 0
	for _, n := range clients {
		if n == 2 {
			known++
		}
	}
	if len(clients) != 4+16 || known != 4 {
		t.Errorf("the clients were %v, want 4 twice and 16 once", clients)
	}
}

// TestGeneratorPaces runs the program at a rate at which hardly any frame is due, and counts on the state that says when.
func TestGeneratorPaces(t *testing.T) {
	needRoot(t)
	g, err := newGenerator(1, macA, macB, minFrame)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	s := newStamper(macA, macB, 10, minFrame, flagACK)
	for _, c := range []struct {
		name   string
		late   time.Duration // how long ago the first frame was due
		strict bool
		want   uint64 // frames due now
		put    bool   // the schedule is put off
	}{
		{"on time", 25 * time.Millisecond, false, 3, false},
		{"late", 2005 * time.Millisecond, false, maxBehind + 1, true},
		{"late and strict", 2005 * time.Millisecond, true, 201, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			const rate = 100
			tr := trial{rate: rate, length: time.Hour, stamp: s, strict: c.strict}
			st := tr.state()
			st.Epoch = monotonic() - uint64(c.late)
			st.Begun = st.Epoch
			if err := g.set(st); err != nil {
				t.Fatal(err)
			}
			made, begin := uint64(0), time.Now()
			for range 300 {
				verdict, f, err := g.prog.Test(s.template)
				if err != nil {
					t.Fatal(err)
				}
				if verdict == xdpDrop {
					continue
				}
				made++
				_, _, due := checked(t, f)
				if wait := int32(due - uint32(monotonic())); wait > 0 {
					t.Errorf("frame %d was made %v before it was due", made, time.Duration(wait))
				}
			}
			got := g.get()
			if most := c.want + 1 + uint64(rate*time.Since(begin).Seconds()); made != got.Seq || made < c.want || made > most {
				t.Errorf("%d frames were made and %d counted, want %d", made, got.Seq, c.want)
			}
			if (got.Late > 0) != c.put {
				t.Errorf("the schedule was put off by %v", time.Duration(got.Late))
			}
		})
	}
}

// TestSink gives the sink frames that were due some time ago.
func TestSink(t *testing.T) {
	needRoot(t)
	s, err := loadSink()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	frames := &writer{stamper: newStamper(macA, macB, 1, minFrame, flagACK)}
	f := make([]byte, minFrame)
	give := func(ago time.Duration) {
		t.Helper()
		binary.BigEndian.PutUint16(frames.template[offTrial:], s.trial)
		frames.write(f, 0, uint32(monotonic()-uint64(ago)))
		if verdict, _, err := s.prog.Test(f); verdict != xdpDrop || err != nil {
			t.Fatalf("verdict %d, %v", verdict, err)
		}
	}
	for _, ago := range []time.Duration{-time.Second, 100 * time.Microsecond, 3 * time.Millisecond, 50 * time.Millisecond, time.Second} {
		if err := s.start(timeAll); err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		give(ago)
		slack := time.Since(begin)
		h, err := s.latency()
		if err != nil {
			t.Fatal(err)
		}
		low := max(ago, 0)
		got := time.Duration(h.ValueAtQuantile(50))
		// A bucket is a sixteenth wide, and the histogram has three digits.
		if got < low-low/15 || got > low+slack+low/15 || h.TotalCount() != 1 || s.count() != 1 {
			t.Errorf("%d frames due %v ago took %v (the test took %v)", h.TotalCount(), ago, got, slack)
		}
	}
	if err := s.start(countAll); err != nil {
		t.Fatal(err)
	}
	give(0)
	if h, err := s.latency(); err != nil || h.TotalCount() != 0 || s.count() != 1 {
		t.Errorf("without being told to, the sink took %d times, %v; it counted %d frames", h.TotalCount(), err, s.count())
	}
	frames.template[offFlags] = flagSYN
	give(0)
	if got := s.get(); got.Count != 2 || got.SYNs != 1 {
		t.Errorf("of an ACK and a SYN the sink counted %d frames and %d SYNs", got.Count, got.SYNs)
	}
	binary.BigEndian.PutUint16(f[offTrial:], s.trial-1)
	if verdict, _, err := s.prog.Test(f); verdict != xdpDrop || err != nil || s.count() != 2 {
		t.Errorf("a frame of the trial before: verdict %d, %v, count %d", verdict, err, s.count())
	}
	f[offMark] ^= 1
	if verdict, _, err := s.prog.Test(f); verdict != xdpPass || err != nil || s.count() != 2 {
		t.Errorf("a frame without the mark: verdict %d, %v, count %d", verdict, err, s.count())
	}
}

func TestBuckets(t *testing.T) {
	last := int64(-1)
	for i := range 464 {
		v := bucketValue(i)
		if v <= last {
			t.Fatalf("bucket %d has %d, the one before %d", i, v, last)
		}
		last = v
	}
	if last < 1<<32-1<<28 {
		t.Errorf("the last bucket that a 32-bit time can have stands for %d", last)
	}
}
