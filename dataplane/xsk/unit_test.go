package xsk

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"xlvs/dataplane"
)

const mapsText = `55d0c0a00000-55d0c0a21000 rw-p 00000000 00:00 0                          [heap]
7f0a2c000000-7f0a2c009000 rw-s 100000000 00:08 4242                      socket:[4242]
7f0a2c010000-7f0a2c012000 rw-s 80000000 00:08 4243                       socket:[4243]
7f0a2d000000-7f0a2d001000 r--p 00001000 fe:00 99                         /lib/socket:[7]/x
`

func TestParseMaps(t *testing.T) {
	want := []mapping{
		{0x7f0a2c000000, 0x7f0a2c009000, unix.XDP_UMEM_PGOFF_FILL_RING, 4242},
		{0x7f0a2c010000, 0x7f0a2c012000, unix.XDP_PGOFF_TX_RING, 4243},
	}
	if d := cmp.Diff(want, parseMaps([]byte(mapsText)), cmp.AllowUnexported(mapping{})); d != "" {
		t.Error(d)
	}
}

func FuzzParseMaps(f *testing.F) {
	f.Add([]byte(mapsText))
	f.Add([]byte("1-0 rw-s 0 0 1 socket:[1]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, m := range parseMaps(text) {
			if m.end <= m.start {
				t.Errorf("mapping %x-%x would be unmapped", m.start, m.end)
			}
		}
	})
}

func TestAsavieErrorFindsTheErrno(t *testing.T) {
	for _, c := range []struct {
		text  string
		errno unix.Errno
		want  string
	}{
		{"syscall.Bind SockaddrXDP failed: device or resource busy", unix.EBUSY, "bind: device or resource busy"},
		{"syscall.Socket failed: operation not permitted", unix.EPERM, "socket: operation not permitted"},
		{"unix.SetsockoptUint64 XDP_UMEM_REG failed: no buffer space available", unix.ENOBUFS, "registering the packet memory: no buffer space available"},
		{"unix.SetsockoptUint64 XDP_UMEM_FILL_RING failed: invalid argument", unix.EINVAL, "making the rings: invalid argument"},
		{"syscall.Bind SockaddrXDP failed: errno 524", 524, "bind: errno 524"},
		{"something new", 0, "opening the first socket: something new"},
	} {
		err := asavieError(errors.New(c.text))
		if err.Error() != c.want {
			t.Errorf("%q becomes %q, want %q", c.text, err, c.want)
		}
		if c.errno != 0 && !errors.Is(err, c.errno) {
			t.Errorf("%q is not %v", c.text, c.errno)
		}
	}
}

func TestOpenErrorsSayWhatToDo(t *testing.T) {
	d := &device{name: "eth0", queue: 3, mtu: 1500}
	for errno, want := range map[unix.Errno]string{
		unix.EBUSY:        "queue 3 of eth0 is in use by another AF_XDP socket",
		unix.EPERM:        "CAP_NET_RAW",
		unix.ENODEV:       "no interface eth0",
		unix.EINVAL:       "MTU of 1500",
		unix.EOPNOTSUPP:   "`bind: copy`",
		unix.ENOBUFS:      "ulimit -l",
		unix.EAFNOSUPPORT: "CONFIG_XDP_SOCKETS",
	} {
		err := openError(d, unix.XDP_ZEROCOPY, failed("bind", errno))
		if !strings.Contains(err.Error(), want) || !errors.Is(err, errno) {
			t.Errorf("%v: %q does not say %q", errno, err, want)
		}
		if !strings.Contains(err.Error(), "queue 3 of eth0 (zero-copy mode)") {
			t.Errorf("%q does not name the port", err)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	port := []Options{{Name: "lo"}}
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"no ports":   {Config{}, "no port"},
		"odd ring":   {Config{Ports: port, Ring: 1000}, "power of two"},
		"small ring": {Config{Ports: port, Ring: 32}, "power of two"},
		"few frames": {Config{Ports: port, Ring: 1024, FramesPerPort: 1024}, "at least 1088"},
		"frame size": {Config{Ports: port, FrameSize: 8192}, "2048 or 4096"},
		"no link":    {Config{Ports: []Options{{Name: "nosuchlink"}}}, "there is no interface nosuchlink"},
		"no index":   {Config{Ports: []Options{{Ifindex: 1 << 30}}}, "there is no interface with index"},
		"other link": {Config{Ports: []Options{{Name: "lo", Ifindex: 77}}}, "has index 1, not 77"},
	} {
		s, err := Open(c.cfg)
		if err == nil {
			t.Errorf("%s: opened", name)
			_ = s.Close()
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q does not say %q", name, err, c.want)
		}
	}
	if _, err := bindMode([]Options{{Bind: BindCopy}, {}, {Bind: BindZeroCopy}}); err == nil {
		t.Error("zero-copy and copy were mixed")
	}
	if m, err := bindMode([]Options{{}, {Bind: BindCopy}, {}}); err != nil || m != BindCopy {
		t.Errorf("bindMode = %v, %v", m, err)
	}
}

func TestFrameSizeFollowsTheMTU(t *testing.T) {
	for _, c := range []struct{ want, mtu, size int }{
		{0, 1500, 2048}, {0, 1770, 2048}, {0, 1771, 4096}, {0, 3506, 4096}, {4096, 1500, 4096}, {2048, 1770, 2048},
		{0, 9000, 0}, {2048, 1771, 0}, {1024, 500, 0}, {8192, 1500, 0},
	} {
		got, err := frameSize(c.want, []*device{{name: "a", mtu: 68}, {name: "b", mtu: c.mtu}})
		if got != c.size || (err == nil) != (c.size > 0) {
			t.Errorf("frame size for MTU %d (asked: %d) = %d, %v; want %d", c.mtu, c.want, got, err, c.size)
		}
	}
}

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
