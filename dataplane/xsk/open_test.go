package xsk

import (
	"errors"
	goreflect "reflect" // bench_test.go has a function of that name
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func TestReopenLeavesNothingBehind(t *testing.T) {
	l := newLab(t, 2, 1)
	cfg := Config{Ports: l.ports(2), Ring: 64, FramesPerPort: 256}
	s, err := Open(cfg) // netlink and ethtool open what they keep
	must(t, err)
	must(t, s.Close())
	fds, maps := resources(t)
	for i := range 20 {
		s, err := Open(cfg)
		if err != nil {
			t.Fatalf("opening for the %dth time: %v", i+2, err)
		}
		must(t, s.Close())
		must(t, s.Close())
		noLeak(t, s)
	}
	if f, m := resources(t); f != fds || m != maps || m != 0 {
		t.Errorf("%d descriptors and %d ring mappings, before %d and %d", f, m, fds, maps)
	}
}

// Before Linux 6.4 a ring of a bound socket cannot be mapped, so all must be mapped before, asavie's by asavie alone.
func TestEachRingIsMappedOnce(t *testing.T) {
	l := newLab(t, 3, 1)
	s := l.open(Config{Ports: l.ports(3), Ring: 64, FramesPerPort: 256})
	maps, err := socketMappings()
	must(t, err)
	type ring struct{ inode, offset uint64 }
	where, starts := map[ring]mapping{}, map[uintptr]bool{}
	for _, m := range maps {
		r := ring{m.inode, m.offset}
		if other, ok := where[r]; ok {
			t.Errorf("the ring at %#x of socket %d is mapped at %x and at %x", r.offset, r.inode, other.start, m.start)
		}
		where[r] = m
	}
	for _, p := range s.Ports {
		inode, err := socketInode(p.FD())
		must(t, err)
		for offset, ours := range map[uint64]*uint32{
			unix.XDP_UMEM_PGOFF_FILL_RING: p.fill.head, unix.XDP_UMEM_PGOFF_COMPLETION_RING: p.completion.head,
			unix.XDP_PGOFF_RX_RING: p.rx.head, unix.XDP_PGOFF_TX_RING: p.tx.head,
		} {
			m := where[ring{inode, offset}]
			if at := goreflect.ValueOf(ours).Pointer(); at < m.start || at >= m.end {
				t.Errorf("%s uses the ring at %#x at address %x, it is mapped at %x-%x", p.Name(), offset, at, m.start, m.end)
			}
			starts[m.start] = true
		}
	}
	if len(maps) != 4*3 || len(starts) != 4*3 {
		t.Errorf("%d mappings, of which %d are used, for the 12 rings of 3 sockets", len(maps), len(starts))
	}
	// The first socket owns the memory: closed first, its rings must stay for the kernel until the others are closed too.
	for _, p := range s.Ports {
		must(t, p.Close())
	}
	if maps, err := socketMappings(); err != nil || len(maps) != 0 {
		t.Errorf("after Close %d rings are mapped (%v)", len(maps), err)
	}
}

func TestOpenFailures(t *testing.T) {
	l := newLab(t, 2, 1)
	name := l.links[1].Attrs().Name
	held := l.open(Config{Ports: l.ports(2)[1:], Ring: 64})
	fds, maps := resources(t)
	for what, c := range map[string]struct {
		cfg   Config
		errno unix.Errno
		want  string
	}{
		"in use":        {Config{Ports: l.ports(2)[1:]}, unix.EBUSY, "queue 0 of " + name + " is in use by another AF_XDP socket"},
		"second in use": {Config{Ports: l.ports(2)}, unix.EBUSY, "queue 0 of " + name + " is in use by another AF_XDP socket"},
		"zero-copy":     {Config{Ports: []Options{{Name: l.links[0].Attrs().Name, Bind: BindZeroCopy}}}, unix.EOPNOTSUPP, "`bind: copy` works"},
		"no such queue": {Config{Ports: []Options{{Name: name, Queue: 7}}}, 0, name + " has 1 queue but `queues: [7]` was asked for"},
	} {
		s, err := Open(c.cfg)
		if err == nil {
			t.Errorf("%s: opened", what)
			must(t, s.Close())
			continue
		}
		if !strings.Contains(err.Error(), c.want) || c.errno != 0 && !errors.Is(err, c.errno) {
			t.Errorf("%s: %v", what, err)
		}
		if f, m := resources(t); f != fds || m != maps {
			t.Errorf("%s: %d descriptors and %d mappings, before %d and %d", what, f, m, fds, maps)
		}
	}
	must(t, held.Close())
	must(t, netlink.LinkSetMTU(l.links[0], 9000))
	if _, err := Open(Config{Ports: l.ports(1)}); err == nil || !strings.Contains(err.Error(), "MTU of 9000") {
		t.Errorf("MTU 9000: %v", err)
	}
}

// A socket needs CAP_NET_RAW and nothing more.
func TestCapabilities(t *testing.T) {
	l := newLab(t, 1, 1)
	cfg := Config{Ports: l.ports(1), Ring: 64, FramesPerPort: 256}
	withCapabilities(t, 0, func() {
		_, err := Open(cfg)
		if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "CAP_NET_RAW") {
			t.Errorf("without capabilities: %v", err)
		}
	})
	withCapabilities(t, 1<<unix.CAP_NET_RAW, func() {
		s, err := Open(cfg)
		must(t, err)
		must(t, s.Close())
	})
}

// withCapabilities runs do with these effective capabilities, in this thread alone.
func withCapabilities(t *testing.T, effective uint32, do func()) {
	t.Helper()
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var all, some [2]unix.CapUserData
	must(t, unix.Capget(&hdr, &all[0]))
	some = all
	some[0].Effective, some[1].Effective = effective, 0
	must(t, unix.Capset(&hdr, &some[0]))
	defer func() { must(t, unix.Capset(&hdr, &all[0])) }()
	do()
}

func TestOneNamespacePerThread(t *testing.T) {
	l := newLab(t, 1, 1)
	must(t, netns.Set(l.generator))
	defer func() { must(t, netns.Set(l.director)) }()
	if _, err := Open(Config{Ports: l.ports(1)}); !errors.Is(err, unix.ENODEV) {
		t.Errorf("the director's link was found in the generator's namespace: %v", err)
	}
	if n, err := Queues(l.peers[0]); err != nil || n != 1 {
		t.Errorf("Queues = %d, %v", n, err)
	}
}
