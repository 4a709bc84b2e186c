package memio

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"xlvs/dataplane"
)

func memory(t testing.TB, chunks int) *dataplane.Memory {
	t.Helper()
	mem, err := dataplane.NewMemory(make([]byte, chunks*2048), 2048)
	if err != nil {
		t.Fatal(err)
	}
	return mem
}

func TestInjectedFramesComeOutAsSent(t *testing.T) {
	mem := memory(t, 8)
	in, out := New(mem), New(mem)
	want := [][]byte{[]byte("first frame"), bytes.Repeat([]byte{7}, 1500)}
	for _, f := range want {
		if !in.Inject(f) {
			t.Fatal("Inject refused a frame that fits")
		}
	}
	var b [4]dataplane.Frame
	n := in.Recv(b[:])
	if n != 2 || b[0].Off != Headroom {
		t.Fatalf("Recv = %d frames, the first at offset %d", n, b[0].Off)
	}
	if got := InHand(mem, in, out); got != 2 {
		t.Errorf("%d chunks in hand, want 2", got)
	}
	if got := out.Send(b[:n]); got != 2 {
		t.Errorf("Send took %d", got)
	}
	got := out.Sent()
	if len(got) != 2 || !bytes.Equal(got[0], want[0]) || !bytes.Equal(got[1], want[1]) {
		t.Errorf("sent %q", got)
	}
	if n := InHand(mem, in, out); n != 0 {
		t.Errorf("%d chunks leaked", n)
	}
	if again := out.Sent(); len(again) != 0 {
		t.Errorf("Sent returned %d frames twice", len(again))
	}
}

func TestLimits(t *testing.T) {
	mem := memory(t, 4)
	p := New(mem)
	if p.Inject(nil) || p.Inject(make([]byte, 2048-Headroom+1)) {
		t.Error("Inject took a frame that cannot be")
	}
	for i := range 5 {
		if got, want := p.Inject([]byte{1}), i < 4; got != want {
			t.Errorf("Inject number %d = %v", i, got)
		}
	}
	mem.Alloc()
	b := make([]dataplane.Frame, 8)
	n := p.Recv(b)
	if s := p.Stats(); n != 3 || s.RxDropped != 1 {
		t.Errorf("with 3 free chunks 4 frames gave %d received, %d dropped", n, s.RxDropped)
	}
	p.SetRoom(1)
	b[2].Len = 0
	if sent := p.Send(b[:n]); sent != 1 {
		t.Errorf("room for 1, but %d sent", sent)
	}
	if s := p.Stats(); s.TxPackets != 1 || s.TxDropped != 1 || s.TxInvalid != 1 {
		t.Errorf("counters %+v", s)
	}
	if mem.Available() != 3 {
		t.Errorf("%d of 3 chunks came back", mem.Available())
	}
	down := errors.New("down")
	p.FailFlush(down)
	if err := p.Flush(); !errors.Is(err, down) || p.Stats().Errors != 1 {
		t.Errorf("Flush = %v", err)
	}
	p.FailFlush(nil)
	if err := p.Flush(); err != nil || p.FD() != -1 {
		t.Errorf("Flush = %v, FD = %d", err, p.FD())
	}
}

// Whatever is injected, freed and sent, no chunk is lost and every frame is counted once.
func TestAccountingProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		mem, _ := dataplane.NewMemory(make([]byte, 16*2048), 2048)
		p := New(mem)
		p.SetRoom(rapid.IntRange(-1, 20).Draw(t, "room"))
		var hand []dataplane.Frame
		injected, freed := uint64(0), uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"inject": func(t *rapid.T) {
				if p.Inject(rapid.SliceOfN(rapid.Byte(), 1, 80).Draw(t, "frame")) {
					injected++
				}
			},
			"recv": func(t *rapid.T) {
				b := make([]dataplane.Frame, rapid.IntRange(0, 8).Draw(t, "burst"))
				hand = append(hand, b[:p.Recv(b)]...)
			},
			"send": func(t *rapid.T) {
				n := rapid.IntRange(0, len(hand)).Draw(t, "n")
				p.Send(hand[:n])
				hand = hand[n:]
			},
			"free": func(*rapid.T) {
				if len(hand) > 0 {
					mem.Free(hand[0].Chunk)
					hand, freed = hand[1:], freed+1
				}
			},
			"sent": func(*rapid.T) { p.Sent() },
			"": func(t *rapid.T) {
				s := p.Stats()
				if got := InHand(mem, p); got != len(hand) {
					t.Fatalf("%d chunks in hand, the test holds %d", got, len(hand))
				}
				if out := s.TxPackets + s.TxDropped + s.TxInvalid + freed + uint64(len(hand)); out != s.RxPackets {
					t.Fatalf("%d frames received, %d accounted for", s.RxPackets, out)
				}
				if s.RxPackets+s.RxDropped > injected {
					t.Fatalf("more frames came out than went in")
				}
			},
		})
	})
}

func TestInjectFromAnotherGoroutine(t *testing.T) {
	mem := memory(t, 64)
	p := New(mem)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 1000 {
			for !p.Inject(fmt.Appendf(nil, "%d", i)) {
				p.Stats()
			}
		}
	})
	var b [16]dataplane.Frame
	var got [][]byte
	for len(got) < 1000 {
		p.Send(b[:p.Recv(b[:])])
		got = append(got, p.Sent()...)
	}
	wg.Wait()
	for i, f := range got {
		if string(f) != fmt.Sprint(i) {
			t.Fatalf("frame %d is %q", i, f)
		}
	}
}

func TestReplay(t *testing.T) {
	mem := memory(t, 8)
	p, other := New(mem), New(mem)
	frames := [][]byte{[]byte("aaaa1"), []byte("bbbb2"), []byte("cccc33")}
	vary := func(f []byte, n uint64) { f[0] = byte('0' + n%10) }
	if err := p.Replay(Replay{Frames: frames, Restore: 4, Vary: vary}); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	var b [3]dataplane.Frame
	for round := range 40 {
		n := p.Recv(b[:])
		if n != 3 {
			t.Fatalf("round %d: %d frames", round, n)
		}
		for i, f := range b[:n] {
			pkt := mem.Bytes(f)
			if pkt[0] != byte('0'+(round*3+i)%10) {
				t.Fatalf("Vary was not called in order: %q", pkt)
			}
			seen[string(pkt[1:])]++
			pkt[1] = 'X' // must be restored
		}
		switch round % 3 { // the three ways that a frame can go
		case 0:
			p.Send(b[:n])
		case 1:
			other.Send(b[:n])
		case 2:
			for _, f := range b[:n] {
				mem.Free(f.Chunk)
			}
		}
		if n := InHand(mem, p, other); n != 0 {
			t.Fatalf("round %d: %d chunks leaked", round, n)
		}
	}
	if len(seen) != 3 {
		t.Errorf("frames seen: %v", seen)
	}
	for _, f := range frames {
		if seen[string(f[1:])] == 0 {
			t.Errorf("%q was never replayed: %v", f, seen)
		}
	}
	if err := p.Close(); err != nil || mem.Available() != 8 {
		t.Errorf("Close = %v, %d chunks free", err, mem.Available())
	}
}

func TestReplayRefuses(t *testing.T) {
	mem := memory(t, 2)
	p := New(mem)
	for name, r := range map[string]Replay{
		"nothing":  {},
		"empty":    {Frames: [][]byte{{}}},
		"too long": {Frames: [][]byte{make([]byte, 2000)}},
	} {
		if p.Replay(r) == nil {
			t.Errorf("%s: no error", name)
		}
	}
	mem.Alloc()
	if p.Replay(Replay{Frames: [][]byte{{1}}}) == nil {
		t.Error("chunk in use: no error")
	}
}

func TestReplayDoesNotAllocate(t *testing.T) {
	mem := memory(t, 256)
	p := New(mem)
	if err := p.Replay(Replay{Frames: [][]byte{make([]byte, 60)}, Restore: 60}); err != nil {
		t.Fatal(err)
	}
	var b [dataplane.MaxBurst]dataplane.Frame
	if n := testing.AllocsPerRun(100, func() {
		p.Send(b[:p.Recv(b[:])])
		if err := p.Flush(); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a burst", n)
	}
}

func BenchmarkReplay(b *testing.B) {
	for _, restore := range []int{0, 60} {
		b.Run(fmt.Sprintf("restore=%d", restore), func(b *testing.B) {
			mem := memory(b, 4096)
			p := New(mem)
			frame := make([]byte, 60)
			binary.BigEndian.PutUint16(frame[12:], 0x0800)
			if err := p.Replay(Replay{Frames: [][]byte{frame}, Restore: restore}); err != nil {
				b.Fatal(err)
			}
			var burst [dataplane.MaxBurst]dataplane.Frame
			for n := 0; n < b.N; n += dataplane.MaxBurst {
				p.Send(burst[:p.Recv(burst[:])])
			}
		})
	}
}
