package frag

import (
	"testing"

	"pgregory.net/rapid"

	"xlvs/dataplane/packet"
)

func key(id uint32) *Key {
	return &Key{Src: packet.Addr4(1), Dst: packet.Addr4(2), ID: id, Proto: 17}
}

func part(off, n int, more bool) *packet.Fragment {
	return &packet.Fragment{Offset: off, Len: n, More: more}
}

func TestJudge(t *testing.T) {
	type step struct {
		f    *packet.Fragment
		want Judgement
	}
	for name, steps := range map[string][]step{
		"in order":             {{part(0, 16, true), Fine}, {part(16, 16, true), Fine}, {part(32, 3, false), Fine}},
		"backwards":            {{part(32, 3, false), Fine}, {part(16, 16, true), Fine}, {part(0, 16, true), Fine}},
		"twice the same":       {{part(0, 16, true), Fine}, {part(0, 16, true), Duplicate}, {part(16, 16, false), Fine}},
		"contained":            {{part(0, 32, true), Fine}, {part(8, 8, true), Duplicate}, {part(32, 5, false), Fine}},
		"overlap":              {{part(0, 16, true), Fine}, {part(8, 16, true), Overlap}, {part(24, 8, false), Condemned}},
		"around":               {{part(16, 8, true), Fine}, {part(0, 48, true), Overlap}, {part(16, 8, true), Condemned}},
		"beyond the end":       {{part(8, 8, false), Fine}, {part(16, 8, true), Overlap}},
		"second end":           {{part(8, 8, false), Fine}, {part(16, 8, false), Overlap}},
		"end before the rest":  {{part(16, 8, true), Fine}, {part(8, 8, false), Overlap}},
		"end twice the same":   {{part(8, 3, false), Fine}, {part(8, 3, false), Duplicate}},
		"longer end, one unit": {{part(8, 3, false), Fine}, {part(8, 7, false), Overlap}},
		"the last goes on":     {{part(8, 3, false), Fine}, {part(8, 8, true), Overlap}},
		"earlier end, covered": {{part(0, 32, true), Fine}, {part(8, 8, false), Overlap}, {part(32, 5, false), Condemned}},
		"earlier end, known":   {{part(0, 16, true), Fine}, {part(24, 3, false), Fine}, {part(8, 8, false), Overlap}},
		"end at what has come": {{part(0, 16, true), Fine}, {part(8, 8, false), Overlap}, {part(16, 8, false), Condemned}},
		"copy of the last":     {{part(0, 16, true), Fine}, {part(24, 8, false), Fine}, {part(24, 8, false), Duplicate}, {part(16, 8, true), Fine}},
		"more behind the last": {{part(8, 8, false), Fine}, {part(8, 8, true), Overlap}},
		"across words":         {{part(504, 16, true), Fine}, {part(512, 16, true), Overlap}},
		"largest":              {{part(0, 65528, true), Fine}, {part(65528, 7, false), Fine}},
	} {
		tab := New(16, 4)
		i := tab.Find(7, key(1), 0)
		for n, s := range steps {
			if got := tab.Judge(i, s.f); got != s.want {
				t.Errorf("%s: fragment %d: %d, want %d", name, n, got, s.want)
			}
		}
	}
}

// A datagram that has come in full, forwarded, is forgotten, so that its identification can come again at once.
func TestSettle(t *testing.T) {
	tab := New(16, 4)
	i := tab.Find(7, key(1), 0)
	tab.Judge(i, part(8, 4, false))
	tab.Settle(i)
	tab.Way(i).Kind = ToBackend
	tab.Settle(i)
	if tab.Judge(i, part(8, 4, false)) != Duplicate {
		t.Fatal("forgotten before it was whole")
	}
	tab.Judge(i, part(0, 8, true))
	tab.Settle(i)
	if i = tab.Find(7, key(1), 0); tab.Way(i).Kind != Unknown || tab.Judge(i, part(0, 8, true)) != Fine || tab.Judge(i, part(8, 4, false)) != Fine {
		t.Error("the datagram was not forgotten")
	}
}

func TestTimeoutAndEviction(t *testing.T) {
	tab := New(4, 8)
	for id := range uint32(4) {
		i := tab.Find(0, key(id), id)
		tab.Way(i).Kind = ToBackend
		tab.Hold(i, Held{Chunk: id}, id)
	}
	if i := tab.Find(0, key(9), 100); tab.Way(i).Kind != Unknown {
		t.Fatal("a new datagram has a way")
	}
	if o := tab.Orphans(); len(o) != 1 || o[0].Chunk != 0 {
		t.Errorf("the oldest should have made room: %v", o)
	}
	if i := tab.Find(0, key(3), 100); tab.Way(i).Kind != ToBackend {
		t.Error("a datagram was lost")
	}
	if i := tab.Find(0, key(3), 3+Timeout); tab.Way(i).Kind != ToBackend {
		t.Error("forgotten before its time")
	}
	if i := tab.Find(0, key(3), 4+Timeout); tab.Way(i).Kind != Unknown {
		t.Error("not forgotten in time")
	}
	if n := len(tab.Orphans()) + tab.Held(); n != 3 {
		t.Errorf("%d frames of 3", n)
	}
}

func TestHold(t *testing.T) {
	tab := New(16, 100)
	a, b := tab.Find(1, key(1), 0), tab.Find(2, key(2), 0)
	if a == b {
		t.Fatal("two datagrams, one entry")
	}
	for n := range uint32(maxHeld + 1) {
		if got := tab.Hold(a, Held{Chunk: n}, 0); got != (n < maxHeld) {
			t.Fatalf("frame %d: %v", n, got)
		}
	}
	for n := range uint32(40) {
		if got := tab.Hold(b, Held{Chunk: 100 + n}, 500); got != (n < 100-maxHeld) {
			t.Fatalf("frame %d of the second: %v", n, got)
		}
	}
	for n := range uint32(maxHeld / 2) {
		if f, ok := tab.Take(a); !ok || f.Chunk != n {
			t.Fatalf("frame %d: %v, %v", n, f, ok)
		}
	}
	tab.Sweep(HoldTimeout)
	if tab.Held() != 100-maxHeld/2 || len(tab.Orphans()) != 0 {
		t.Error("dropped before their time")
	}
	tab.Sweep(HoldTimeout + 1)
	if o := tab.Orphans(); len(o) != maxHeld/2 || tab.Judge(a, part(0, 8, true)) != Late {
		t.Errorf("%d dropped in time", len(o))
	}
	if !tab.Hold(b, Held{}, 600) {
		t.Error("no room where there is some")
	}
	tab.Clear()
	if o := tab.Orphans(); len(o) != 100-maxHeld+1 || tab.Held() != 0 {
		t.Errorf("%d dropped in the end", len(o))
	}
}

// Whatever comes, in whatever order: no frame is lost or given out twice, and no byte of a datagram passes twice.
func TestProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab := New(8, 6)
		now, chunk := uint32(0xffff0000), uint32(0)
		out := map[uint32]bool{}
		passed := map[uint32]map[int]bool{}
		recycle := func() {
			for _, o := range tab.Orphans() {
				if !out[o.Chunk] {
					t.Fatalf("chunk %d twice", o.Chunk)
				}
				delete(out, o.Chunk)
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			id := rapid.Uint32Range(0, 12).Draw(t, "id")
			now += rapid.Uint32Range(0, 700).Draw(t, "ms")
			tab.Sweep(now)
			recycle()
			i := tab.Find(uint64(id), key(id), now)
			if e := &tab.entries[i]; e.covered == 0 && !e.bad {
				passed[id] = map[int]bool{}
			}
			f := part(8*rapid.IntRange(0, 8).Draw(t, "offset"), 8*rapid.IntRange(1, 4).Draw(t, "length"), rapid.Bool().Draw(t, "more"))
			if tab.Judge(i, f) == Fine {
				for b := f.Offset; b < f.Offset+f.Len; b++ {
					if passed[id][b] {
						t.Fatalf("byte %d twice", b)
					}
					passed[id][b] = true
				}
				if f.Offset == 0 {
					tab.Way(i).Kind = ToClient
					for h, ok := tab.Take(i); ok; h, ok = tab.Take(i) {
						delete(out, h.Chunk)
					}
				} else if tab.Way(i).Kind == Unknown && tab.Hold(i, Held{Chunk: chunk}, now) {
					out[chunk] = true
					chunk++
				}
			}
			tab.Settle(i)
			recycle()
			if tab.Held() != len(out) {
				t.Fatalf("%d frames held, %d expected", tab.Held(), len(out))
			}
		}
		tab.Clear()
		recycle()
		if len(out) != 0 {
			t.Fatalf("%d frames lost", len(out))
		}
	})
}
