package xsk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"xlvs/dataplane"
)

// A lab is two unnamed namespaces, which vanish with their last user, and veth pairs between
// them. The test's goroutine is locked to a thread in the director's.
//
//	generator's namespace        director's namespace
//	  xg<pid>-0  =================  xd<pid>-0   XDP -> AF_XDP
//	  xg<pid>-1  =================  xd<pid>-1   XDP -> AF_XDP
type lab struct {
	t         testing.TB
	director  netns.NsHandle
	generator netns.NsHandle
	links     []netlink.Link // the director's ends
	peers     []string       // the generator's ends
}

const (
	testProto = 0x88b5 // IEEE 802 local experimental: no kernel protocol answers it
	patience  = 5 * time.Second
)

func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	const why = "needs root: it opens AF_XDP sockets in network namespaces of its own"
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newLab makes pairs veth pairs with queues queues at the director's end.
func newLab(t testing.TB, pairs, queues int) *lab {
	t.Helper()
	needRoot(t)
	// The thread is never unlocked: the runtime ends it with the goroutine, and its namespace too.
	runtime.LockOSThread()
	home, err := netns.Get()
	must(t, err)
	l := &lab{t: t}
	t.Cleanup(func() {
		must(t, netns.Set(home))
		_ = home.Close()
		_ = l.director.Close()
		_ = l.generator.Close()
	})
	l.generator, err = netns.New()
	must(t, err)
	quiet(t)
	l.director, err = netns.New()
	must(t, err)
	quiet(t)
	for i := range pairs {
		l.addPair(i, queues)
	}
	return l
}

// quiet keeps the kernel from sending anything of its own on links made later.
func quiet(t testing.TB) {
	t.Helper()
	err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

func (l *lab) addPair(i, queues int) {
	l.t.Helper()
	peer := fmt.Sprintf("xg%d-%d", os.Getpid(), i)
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprintf("xd%d-%d", os.Getpid(), i)
	attrs.NumRxQueues, attrs.NumTxQueues = queues, queues
	must(l.t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer, PeerNamespace: netlink.NsFd(l.generator)}))
	own, err := netlink.LinkByName(attrs.Name)
	must(l.t, err)
	must(l.t, netlink.LinkSetUp(own))
	l.inGenerator(func() {
		other, err := netlink.LinkByName(peer)
		must(l.t, err)
		must(l.t, netlink.LinkSetUp(other))
	})
	l.links, l.peers = append(l.links, own), append(l.peers, peer)
}

func (l *lab) inGenerator(do func()) {
	l.t.Helper()
	must(l.t, netns.Set(l.generator))
	defer func() { must(l.t, netns.Set(l.director)) }()
	do()
}

func (l *lab) ports(n int) []Options {
	var out []Options
	for _, k := range l.links[:n] {
		out = append(out, Options{Name: k.Attrs().Name, Ifindex: k.Attrs().Index})
	}
	return out
}

// open opens a Set and closes it at the end of the test.
func (l *lab) open(cfg Config) *Set {
	l.t.Helper()
	s, err := Open(cfg)
	must(l.t, err)
	l.t.Cleanup(func() { must(l.t, s.Close()) })
	return s
}

// steer attaches to link i a program that redirects every frame to its queue's
// port, and passes those of other queues. It returns the ports' map.
func (l *lab) steer(i int, ports ...*Port) *ebpf.Map {
	l.t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 4})
	must(l.t, err)
	l.t.Cleanup(func() { _ = m.Close() })
	for _, p := range ports {
		must(l.t, m.Put(uint32(p.Queue()), uint32(p.FD())))
	}
	const rxQueueIndex, xdpPass = 16, 2 // struct xdp_md, enum xdp_action
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Apache-2.0", Instructions: asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, rxQueueIndex, asm.Word),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Imm(asm.R3, xdpPass),
		asm.FnRedirectMap.Call(),
		asm.Return(),
	}})
	must(l.t, err)
	l.t.Cleanup(func() { _ = prog.Close() })
	at, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: l.links[i].Attrs().Index, Flags: link.XDPDriverMode})
	must(l.t, err)
	l.t.Cleanup(func() { _ = at.Close() })
	return m
}

// A wire is a raw socket on the generator's end of a pair; it sees only testProto frames that arrive.
type wire struct {
	t  testing.TB
	fd int
	ll *unix.SockaddrLinklayer
}

func (l *lab) wire(i int) *wire {
	l.t.Helper()
	w := &wire{t: l.t}
	l.inGenerator(func() {
		peer, err := netlink.LinkByName(l.peers[i])
		must(l.t, err)
		proto := uint16(testProto&0xff<<8 | testProto>>8)
		w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(proto))
		must(l.t, err)
		w.ll = &unix.SockaddrLinklayer{Protocol: proto, Ifindex: peer.Attrs().Index}
		must(l.t, unix.Bind(w.fd, w.ll))
		must(l.t, unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20))
	})
	l.t.Cleanup(func() { _ = unix.Close(w.fd) })
	return w
}

// frameNumber makes a broadcast frame of 60 bytes that carries n.
func frameNumber(n uint32) []byte {
	f := make([]byte, 60)
	copy(f, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9})
	binary.BigEndian.PutUint16(f[12:], testProto)
	binary.BigEndian.PutUint32(f[14:], n)
	return f
}

func (w *wire) send(n uint32) error { return unix.Sendto(w.fd, frameNumber(n), 0, w.ll) }

// receive returns the number in the next frame, or false if none waits.
func (w *wire) receive() (uint32, bool) {
	w.t.Helper()
	var b [2048]byte
	n, _, err := unix.Recvfrom(w.fd, b[:], unix.MSG_DONTWAIT)
	if errors.Is(err, unix.EAGAIN) {
		return 0, false
	}
	if errors.Is(err, unix.ENETDOWN) { // told once when the link goes down
		return 0, false
	}
	must(w.t, err)
	if n != 60 || binary.BigEndian.Uint16(b[12:]) != testProto {
		w.t.Fatalf("a frame of %d bytes came back: %x", n, b[:n])
	}
	return binary.BigEndian.Uint32(b[14:]), true
}

// forward does what a worker does in one poll: from rx to tx, unchanged.
func forward(t testing.TB, rx, tx *Port) error {
	var b [dataplane.MaxBurst]dataplane.Frame
	n := rx.Recv(b[:])
	for _, f := range b[:n] {
		if f.Off != rxHeadroom {
			t.Fatalf("a frame at offset %d of its chunk, want %d", f.Off, rxHeadroom)
		}
	}
	tx.Send(b[:n])
	return tx.Flush()
}

// carry sends count numbered frames from in, forwards them and expects them at out in order, a
// window at a time so that no queue on the way overflows.
func carry(t testing.TB, in, out *wire, rx, tx *Port, count uint32) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for sent, got := uint32(0), uint32(0); got < count; {
		for sent < count && sent-got < 32 {
			must(t, in.send(sent))
			sent++
		}
		must(t, forward(t, rx, tx))
		for {
			n, ok := out.receive()
			if !ok {
				break
			}
			if n != got {
				t.Fatalf("frame %d came out, want %d", n, got)
			}
			got++
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d frames came out: rx %+v, tx %+v, first error %v", got, count, rx.Detail(), tx.Detail(), tx.FirstError())
		}
	}
}

// noLeak checks that every chunk is free or held by a port.
func noLeak(t testing.TB, s *Set) {
	t.Helper()
	if n := s.InHand(); n != 0 {
		t.Errorf("%d chunks leaked of %d", n, s.Memory.Chunks())
	}
}

func resources(t testing.TB) (fds, maps int) {
	t.Helper()
	list, err := filepath.Glob("/proc/self/fd/*")
	must(t, err)
	m, err := socketMappings()
	must(t, err)
	return len(list), len(m)
}
