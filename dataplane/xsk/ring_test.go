package xsk

import (
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// plainRing is a ring over plain memory, laid out as the kernel lays its rings out. Both indices
// start at start, so that a test can run them over the end of uint32.
func plainRing[T any](size int, start uint32) ringMap[T] {
	off := unix.XDPRingOffset{Producer: 0, Consumer: 64, Flags: 128, Desc: 192}
	m := viewRing[T](make([]byte, 192+size*16), off, size)
	*m.producer, *m.consumer = start, start
	return m
}

func TestProducerAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := 1 << rapid.IntRange(0, 6).Draw(t, "log2size")
		start := rapid.SampledFrom([]uint32{0, 1, 1<<31 - 3, 1<<32 - 5, 1<<32 - 1}).Draw(t, "start")
		m := plainRing[uint64](size, start)
		p := newProducer(m)
		var queue []uint64 // what the kernel has not consumed yet
		next, consumed := uint64(1), start
		t.Repeat(map[string]func(*rapid.T){
			"produce": func(t *rapid.T) {
				want := rapid.IntRange(0, size+3).Draw(t, "want")
				index, n := p.reserve(uint32(want))
				if int(n) != min(want, size-len(queue)) {
					t.Fatalf("reserve(%d) = %d with %d of %d slots in use", want, n, len(queue), size)
				}
				used := uint32(rapid.IntRange(0, int(n)).Draw(t, "used"))
				for i := range used {
					p.set(index+i, next)
					queue = append(queue, next)
					next++
				}
				p.submit(used)
			},
			"consume": func(t *rapid.T) {
				for range rapid.IntRange(0, len(queue)).Draw(t, "n") {
					if got := m.slots[consumed&uint32(size-1)]; got != queue[0] {
						t.Fatalf("the kernel reads %d, want %d", got, queue[0])
					}
					queue, consumed = queue[1:], consumed+1
				}
				atomic.StoreUint32(m.consumer, consumed)
			},
			"": func(t *rapid.T) {
				if got := *m.producer - consumed; int(got) != len(queue) {
					t.Fatalf("the kernel sees %d slots, want %d", got, len(queue))
				}
				if got := p.pending(); int(got) != len(queue) {
					t.Fatalf("pending = %d, want %d", got, len(queue))
				}
			},
		})
	})
}

func TestConsumerAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := 1 << rapid.IntRange(0, 6).Draw(t, "log2size")
		start := rapid.SampledFrom([]uint32{0, 1, 1<<31 - 3, 1<<32 - 5, 1<<32 - 1}).Draw(t, "start")
		m := plainRing[unix.XDPDesc](size, start)
		c := newConsumer(m)
		var queue []uint64 // what we have not consumed yet
		next, produced := uint64(1), start
		t.Repeat(map[string]func(*rapid.T){
			"produce": func(t *rapid.T) {
				for range rapid.IntRange(0, size-len(queue)).Draw(t, "n") {
					m.slots[produced&uint32(size-1)] = unix.XDPDesc{Addr: next}
					queue, next, produced = append(queue, next), next+1, produced+1
				}
				atomic.StoreUint32(m.producer, produced)
			},
			"consume": func(t *rapid.T) {
				want := rapid.IntRange(0, size+3).Draw(t, "want")
				index, n := c.peek(uint32(want))
				if int(n) != min(want, len(queue)) {
					t.Fatalf("peek(%d) = %d with %d waiting", want, n, len(queue))
				}
				used := uint32(rapid.IntRange(0, int(n)).Draw(t, "used"))
				for i := range used {
					if got := c.get(index + i).Addr; got != queue[0] {
						t.Fatalf("got %d, want %d", got, queue[0])
					}
					queue = queue[1:]
				}
				c.release(used)
			},
			"": func(t *rapid.T) {
				if got := produced - *m.consumer; int(got) != len(queue) {
					t.Fatalf("the kernel sees %d slots in use, want %d", got, len(queue))
				}
			},
		})
	})
}

// The kernel's index lies on a cache line that the kernel writes: it is read only when
// what is cached does not do.
func TestIndexIsReadOnlyWhenNeeded(t *testing.T) {
	m := plainRing[uint64](8, 0)
	p := newProducer(m)
	*m.consumer = 8 // would be nonsense if it were read
	if _, n := p.reserve(8); n != 8 || p.limit != 8 {
		t.Errorf("reserve = %d, limit %d", n, p.limit)
	}
	m2 := plainRing[uint64](8, 0)
	*m2.producer = 4
	c := newConsumer(m2)
	*m2.producer = 8
	if _, n := c.peek(4); n != 4 || c.limit != 4 {
		t.Errorf("peek = %d, limit %d", n, c.limit)
	}
	if _, n := c.peek(5); n != 5 {
		t.Errorf("peek(5) = %d with 8 there", n)
	}
}

func TestNeedWakeup(t *testing.T) {
	m := plainRing[uint64](8, 0)
	p := newProducer(m)
	if p.needWakeup() {
		t.Error("flag clear, wake-up needed")
	}
	*m.flags = unix.XDP_RING_NEED_WAKEUP
	if !p.needWakeup() {
		t.Error("flag set, no wake-up needed")
	}
}

func TestViewRingRefusesShortMemory(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a view beyond its memory was made")
		}
	}()
	viewRing[uint64](make([]byte, 100), unix.XDPRingOffset{Desc: 64}, 8)
}
