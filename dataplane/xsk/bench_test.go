package xsk

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"xlvs/dataplane"
)

// BenchmarkReflector measures frames reflected by one worker's loop on a veth pair in copy mode, while
// a second goroutine floods the other end by a Set of its own. One op is one frame of 60 bytes.
func BenchmarkReflector(b *testing.B) {
	for _, burst := range []int{16, 64} {
		b.Run(map[int]string{16: "burst=16", 64: "burst=64"}[burst], func(b *testing.B) {
			l := newLab(b, 1, 1)
			s := l.open(Config{Ports: l.ports(1)})
			p := s.Ports[0]
			l.steer(0, p)
			offered := l.flood(b)
			frames := make([]dataplane.Frame, burst)
			received := func() uint64 { return p.count.rxTaken.Load() }
			for received() == 0 {
				reflect(p, frames)
			}
			b.ResetTimer()
			start, startOffered := received(), offered()
			for received()-start < uint64(b.N) {
				reflect(p, frames)
			}
			b.StopTimer()
			seconds := b.Elapsed().Seconds()
			b.ReportMetric(float64(received()-start)/seconds/1e6, "Mpps")
			b.ReportMetric(float64(offered()-startOffered)/seconds/1e6, "offered-Mpps")
			b.ReportMetric(float64(p.Stats().Wakeups)/float64(received())*64, "wakeups/64-frames")
		})
	}
}

func reflect(p *Port, b []dataplane.Frame) {
	n := p.Recv(b)
	p.Send(b[:n])
	_ = p.Flush() // what goes wrong shows in the counters
}

// flood sends frames from the generator's end until the benchmark ends, on a thread of its own. It returns
// a function that tells how many were sent.
func (l *lab) flood(b *testing.B) (sent func() uint64) {
	var count atomic.Uint64
	var stop atomic.Bool
	var done sync.WaitGroup
	ready := make(chan error)
	done.Go(func() {
		runtime.LockOSThread()
		err := netns.Set(l.generator)
		var s *Set
		if err == nil {
			s, err = Open(Config{Ports: []Options{{Name: l.peers[0]}}})
		}
		ready <- err
		if err != nil {
			return
		}
		burst := make([]dataplane.Frame, dataplane.MaxBurst)
		for !stop.Load() {
			n := 0
			for n < len(burst) {
				c, ok := s.Memory.Alloc()
				if !ok {
					break
				}
				burst[n] = dataplane.Frame{Chunk: c, Off: rxHeadroom, Len: 60}
				copy(s.Memory.Bytes(burst[n]), frame60)
				n++
			}
			count.Add(uint64(s.Ports[0].Send(burst[:n])))
			_ = s.Ports[0].Flush()
		}
		_ = s.Close()
	})
	must(b, <-ready)
	b.Cleanup(func() {
		stop.Store(true)
		done.Wait()
	})
	return count.Load
}

var frame60 = frameNumber(0)

// BenchmarkRings measures the ring code alone: receive, refill, send and reclaim 64 frames
// with the benchmark as the kernel, whose part is included. One op is one frame.
func BenchmarkRings(b *testing.B) {
	o := newOffline(b, 2048, 4096)
	const n, mask = 64, 2047
	burst := make([]dataplane.Frame, n)
	for done := 0; done < b.N; done += n {
		for range n {
			c := *o.fill.consumer
			o.Port.rings.rx.slots[*o.rx.producer&mask] = unix.XDPDesc{Addr: o.fill.slots[c&mask] + rxHeadroom, Len: 60}
			*o.fill.consumer, *o.rx.producer = c+1, *o.rx.producer+1
		}
		o.Send(burst[:o.Recv(burst)])
		for range n {
			c := *o.tx.consumer
			o.completion.slots[*o.completion.producer&mask] = o.tx.slots[c&mask].Addr
			*o.tx.consumer, *o.completion.producer = c+1, *o.completion.producer+1
		}
		o.reclaim()
	}
}
