package wire

import (
	"testing"
	"time"

	"github.com/cilium/ebpf"
)

func loadGenerator(t *testing.T) *generator {
	t.Helper()
	needRoot(t)
	g, err := newGenerator(1, macA, macB, minFrame)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// TestGeneratorWaits: nearly every run makes a frame, though one is due only every microsecond and a run that does not wait takes a
// tenth of that.
func TestGeneratorWaits(t *testing.T) {
	g := loadGenerator(t)
	s := newStamper(macA, macB, 10, minFrame, flagACK)
	const runs = 2000
	tr := trial{rate: 1e6, length: time.Hour, stamp: s}
	if err := g.set(tr.state()); err != nil {
		t.Fatal(err)
	}
	if _, err := g.prog.Run(&ebpf.RunOptions{Data: s.template, Repeat: runs}); err != nil {
		t.Fatal(err)
	}
	if got := g.get(); got.Seq < runs*9/10 {
		t.Errorf("%d of %d runs made a frame", got.Seq, runs)
	}
}

// TestGeneratorRefuses has the queue be full for a while, and looks at what becomes of the frames that are due in it.
func TestGeneratorRefuses(t *testing.T) {
	g := loadGenerator(t)
	s := newStamper(macA, macB, 10, minFrame, flagACK)
	const rate = 1e6
	for _, c := range []struct {
		name  string
		due   time.Duration // of the next frame, before the queue has room again
		pause time.Duration
		want  uint64
	}{
		{"all of the pause", time.Second, time.Second, rate},
		{"due in the midst of it", time.Second / 2, time.Second, rate / 2},
		{"late before it", 3 * time.Second, time.Second, rate},
		{"due after it", -time.Second, time.Second, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr := trial{rate: rate, length: time.Hour, stamp: s, flood: true, mix: mix{syns: 1, cycle: 2}}
			st := tr.state()
			full := monotonic() + uint64(time.Minute)
			st.Pause, st.Full, st.Begun = uint64(c.pause), full, monotonic()
			st.Epoch = full - uint64(c.due)
			if err := g.set(st); err != nil {
				t.Fatal(err)
			}
			before := g.get()
			verdict, _, err := g.prog.Test(s.template)
			if err != nil || verdict != xdpDrop {
				t.Fatalf("a frame was made while the queue is full: verdict %d, %v", verdict, err)
			}
			got := g.get()
			if got.Refused != c.want || got.Full != 0 || got.Seq != 0 || got.Late != 0 {
				t.Errorf("refused %d, want %d; full until %d, %d frames made, %d ns late", got.Refused, c.want, got.Full, got.Seq, got.Late)
			}
			if next := max(full, st.Epoch); got.Epoch != next {
				t.Errorf("the next frame is due %v after there is room", time.Duration(got.Epoch-next))
			}
			if n := got.offered() - before.offered(); n != c.want {
				t.Errorf("%d frames count as offered, want %d", n, c.want)
			}
			if n := got.strangers() - before.strangers(); n != c.want/2 {
				t.Errorf("%d SYNs count as offered, want %d", n, c.want/2)
			}
		})
	}
}

// TestFloodMeetsFullQueue floods a cable, whose far end is on the generator's own core and takes less than a wire brings.
func TestFloodMeetsFullQueue(t *testing.T) {
	c := claim(t)
	b, err := newBench(t.Context(), c, nil, load{flows: 100, size: smallest})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	rate := (&subject{size: smallest}).lineRate()
	for deadline := time.Now().Add(20 * time.Second); ; {
		o, err := b.stream(t.Context(), trial{rate: rate, length: 50 * time.Millisecond, flood: true})
		if err != nil {
			t.Fatal(err)
		}
		got := b.gen.get()
		if o.sent != got.Seq+got.Refused || o.received > got.Seq {
			t.Fatalf("%d frames were made, %d refused and %d sent in all; %d arrived", got.Seq, got.Refused, o.sent, o.received)
		}
		if got.Refused > 0 && o.received > 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d frames were made and %d arrived, but the queue was never full", got.Seq, o.received)
		}
	}
}
