package xsk

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"xlvs/dataplane"
)

// offline is a port whose rings lie in plain memory, with the test as the kernel.
type offline struct {
	*Port
	fill, completion ringMap[uint64]
	rx, tx           ringMap[unix.XDPDesc]
}

func newOffline(t testing.TB, ring, chunks int) *offline {
	t.Helper()
	mem, err := dataplane.NewMemory(make([]byte, chunks*2048), 2048)
	if err != nil {
		t.Fatal(err)
	}
	const start = 1<<32 - 3 // the indices wrap around soon
	o := &offline{fill: plainRing[uint64](ring, start), completion: plainRing[uint64](ring, start),
		rx: plainRing[unix.XDPDesc](ring, start), tx: plainRing[unix.XDPDesc](ring, start)}
	o.Port = &Port{mem: mem, shift: mem.ChunkShift(), ringSize: uint32(ring), fd: -1, hungry: true, name: "eth0",
		rings: &rings{fill: newProducer(o.fill), completion: newConsumer(o.completion), rx: newConsumer(o.rx), tx: newProducer(o.tx)}}
	o.set = &Set{Memory: mem, Ports: []*Port{o.Port}}
	o.refill(0)
	return o
}

// receive moves a chunk from the fill ring to the RX ring as the kernel does.
func (o *offline) receive(change func(*unix.XDPDesc)) {
	mask := uint32(len(o.rx.slots) - 1)
	d := unix.XDPDesc{Addr: o.fill.slots[*o.fill.consumer&mask] + rxHeadroom, Len: 60}
	*o.fill.consumer++
	change(&d)
	o.rx.slots[*o.rx.producer&mask] = d
	*o.rx.producer++
}

func TestDescriptorsAreChecked(t *testing.T) {
	o := newOffline(t, 64, 128)
	var addr uint64
	o.receive(func(d *unix.XDPDesc) { addr = d.Addr })
	o.receive(func(d *unix.XDPDesc) { d.Len = 0 })
	o.receive(func(d *unix.XDPDesc) { d.Len = 2048 - rxHeadroom + 1 })
	o.receive(func(d *unix.XDPDesc) { d.Len = 2048 - rxHeadroom })
	var b [8]dataplane.Frame
	n := o.Recv(b[:])
	want := dataplane.Frame{Chunk: uint32(addr >> 11), Off: rxHeadroom, Len: 60}
	if n != 2 || b[0] != want || b[1].Len != 2048-rxHeadroom {
		t.Fatalf("Recv = %d: %+v", n, b[:n])
	}
	if in := o.set.InHand(); in != 2 {
		t.Errorf("%d chunks in hand, want 2: those of bad descriptors must be freed", in)
	}
	o.receive(func(d *unix.XDPDesc) { d.Addr = 128 * 2048 })
	o.receive(func(d *unix.XDPDesc) { d.Addr = 1<<64 - 1 })
	if n := o.Recv(b[:]); n != 0 {
		t.Errorf("descriptors outside the memory were received: %+v", b[:n])
	}
	if got := o.count.rxInvalid.Load(); got != 4 {
		t.Errorf("%d invalid descriptors counted, want 4", got)
	}
}

func TestSendChecksAndCounts(t *testing.T) {
	o := newOffline(t, 64, 256)
	var b []dataplane.Frame
	for range 70 {
		c, _ := o.mem.Alloc()
		b = append(b, dataplane.Frame{Chunk: c, Off: 200, Len: 60})
	}
	b[3].Len = 0
	b[5].Off = 2000
	if n := o.Send(b); n != 64 {
		t.Fatalf("Send = %d, want the ring's 64 slots", n)
	}
	mask := uint32(63)
	start := *o.tx.consumer
	if d := o.tx.slots[start&mask]; d.Addr != uint64(b[0].Chunk)<<11+200 || d.Len != 60 {
		t.Errorf("first descriptor %+v", d)
	}
	if got := o.count.txDropped.Load(); got != 4 {
		t.Errorf("%d dropped, want 4", got)
	}
	if got := o.count.txInvalid.Load(); got != 2 {
		t.Errorf("%d invalid, want 2", got)
	}
	if n := o.set.InHand(); n != 0 {
		t.Errorf("%d chunks lost", n)
	}
	// The kernel takes half of them, and completes them out of order.
	for i := range uint32(32) {
		o.completion.slots[(start+i)&mask] = o.tx.slots[(start+31-i)&mask].Addr
	}
	*o.tx.consumer, *o.completion.producer = start+32, start+32
	o.reclaim()
	if n := o.outstanding(); n != 64+32 {
		t.Errorf("outstanding %d, want 64 on the fill ring and 32 being sent", n)
	}
	if n := o.set.InHand(); n != 0 {
		t.Errorf("%d chunks lost", n)
	}
}

// With no chunk free the fill ring stays short, and is filled as soon as there are some again.
func TestRefillAfterShortage(t *testing.T) {
	o := newOffline(t, 64, 96)
	var held []uint32
	for {
		c, ok := o.mem.Alloc()
		if !ok {
			break
		}
		held = append(held, c)
	}
	var b [64]dataplane.Frame
	for range 64 {
		o.receive(func(*unix.XDPDesc) {})
	}
	if n := o.Recv(b[:]); n != 64 || o.Port.fill.pending() != 0 {
		t.Fatalf("Recv = %d, %d on the fill ring", n, o.Port.fill.pending())
	}
	for _, c := range held {
		o.mem.Free(c)
	}
	if n := o.Recv(b[:0]); n != 0 || o.Port.fill.pending() != 32 {
		t.Errorf("an idle Recv left %d on the fill ring, want 32", o.Port.fill.pending())
	}
}

func TestErrorsKeepTheirText(t *testing.T) {
	o := newOffline(t, 64, 128)
	if o.FirstError() != nil {
		t.Error("an error before anything happened")
	}
	first := o.failed(unix.ENETDOWN)
	second := o.failed(unix.ENXIO)
	if !errors.Is(first, unix.ENETDOWN) || !errors.Is(second, unix.ENXIO) || !errors.Is(o.FirstError(), unix.ENETDOWN) {
		t.Errorf("%v, %v, first %v", first, second, o.FirstError())
	}
	if got := fmt.Sprint(first); got != "queue 0 of eth0: waking the kernel: network is down; the interface is down, frames wait until it is up again" {
		t.Error(got)
	}
	if n := testing.AllocsPerRun(100, func() { _ = o.failed(unix.ENXIO) }); n != 0 {
		t.Errorf("%v allocations for the same error again", n)
	}
}

// The kernel that is the test needs no wake-up: Flush only takes back what has left.
func TestFlushTakesBackManyAtOnce(t *testing.T) {
	const burst = dataplane.MaxBurst
	for _, c := range []struct {
		name         string
		ring, chunks int
		pause        bool // a poll with nothing to send after each burst
		want         []int
	}{
		{"while it sends", 1024, 4096, false, []int{0, 0, 0, 3 * burst, 0, 0, 3 * burst, 0}},
		{"when it has nothing to send", 1024, 4096, true, []int{0, burst, burst}},
		{"on a short ring", 2 * burst, 4096, false, []int{0, burst, burst}},
		{"when chunks are scarce", 1024, 1024 + reclaimFrames, false, []int{0, burst, burst}},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := newOffline(t, c.ring, c.chunks)
			kernel := *o.tx.consumer
			send := func(until uint32) {
				for mask := uint32(c.ring - 1); kernel != until; kernel++ {
					o.completion.slots[*o.completion.producer&mask] = o.tx.slots[kernel&mask].Addr
					*o.tx.consumer, *o.completion.producer = kernel+1, *o.completion.producer+1
				}
			}
			for i, want := range c.want {
				var b [burst]dataplane.Frame
				for j := range b {
					chunk, ok := o.mem.Alloc()
					if !ok {
						t.Fatalf("burst %d: no chunk is left", i)
					}
					b[j] = dataplane.Frame{Chunk: chunk, Off: rxHeadroom, Len: 60}
				}
				before := *o.tx.producer // the kernel does not get to the last burst
				if n := o.Send(b[:]); n != burst {
					t.Fatalf("burst %d: %d frames found room", i, n)
				}
				send(before)
				free := o.mem.Available()
				must(t, o.Flush())
				if c.pause {
					must(t, o.Flush())
				}
				if got := o.mem.Available() - free; got != want {
					t.Errorf("burst %d: %d chunks were taken back, want %d", i, got, want)
				}
				if n := o.set.InHand(); n != 0 {
					t.Errorf("burst %d: %d chunks lost", i, n)
				}
			}
		})
	}
}

// Whatever the worker and the kernel do, in whatever order, each chunk is in exactly one place.
func TestEveryChunkIsInOnePlace(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := newOffline(t, 64, 160)
		var hand []dataplane.Frame
		kernelTX, mask := *o.tx.consumer, uint32(63)
		rt.Repeat(map[string]func(*rapid.T){
			"kernel receives": func(rt *rapid.T) {
				room := min(*o.fill.producer-*o.fill.consumer, 64-(*o.rx.producer-*o.rx.consumer))
				for range rapid.Uint32Range(0, room).Draw(rt, "n") {
					o.receive(func(*unix.XDPDesc) {})
				}
			},
			"kernel sends": func(rt *rapid.T) {
				room := min(*o.tx.producer-kernelTX, 64-(*o.completion.producer-*o.completion.consumer))
				for range rapid.Uint32Range(0, room).Draw(rt, "n") {
					o.completion.slots[*o.completion.producer&mask] = o.tx.slots[kernelTX&mask].Addr
					kernelTX++
					*o.tx.consumer, *o.completion.producer = kernelTX, *o.completion.producer+1
				}
			},
			"recv": func(rt *rapid.T) {
				b := make([]dataplane.Frame, rapid.IntRange(0, dataplane.MaxBurst).Draw(rt, "burst"))
				hand = append(hand, b[:o.Recv(b)]...)
			},
			"send": func(rt *rapid.T) {
				n := rapid.IntRange(0, min(len(hand), dataplane.MaxBurst)).Draw(rt, "n")
				o.Send(hand[:n])
				hand = hand[n:]
			},
			"flush": func(*rapid.T) { must(t, o.Flush()) },
			"": func(rt *rapid.T) {
				if n := o.set.InHand(); n != len(hand) {
					rt.Fatalf("InHand = %d, the worker holds %d", n, len(hand))
				}
				seen := map[uint64]bool{}
				for _, f := range hand {
					seen[uint64(f.Chunk)] = true
				}
				for i := *o.fill.consumer; i != *o.fill.producer; i++ {
					seen[o.fill.slots[i&mask]>>11] = true
				}
				for i := *o.rx.consumer; i != *o.rx.producer; i++ {
					seen[o.rx.slots[i&mask].Addr>>11] = true
				}
				for i := kernelTX; i != *o.tx.producer; i++ {
					seen[o.tx.slots[i&mask].Addr>>11] = true
				}
				for i := *o.completion.consumer; i != *o.completion.producer; i++ {
					seen[o.completion.slots[i&mask]>>11] = true
				}
				if len(seen)+o.mem.Available() != o.mem.Chunks() {
					rt.Fatalf("%d chunks in use and %d free of %d: one is lost, or in two places", len(seen), o.mem.Available(), o.mem.Chunks())
				}
			},
		})
	})
}
