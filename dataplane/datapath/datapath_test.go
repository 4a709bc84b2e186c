package datapath

import (
	"fmt"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"xlvs/dataplane"
	"xlvs/dataplane/flow"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/steer"
	"xlvs/dataplane/table"
	"xlvs/dataplane/xsk"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWorkers(t *testing.T) {
	infos := []Info{{Name: "eth0", Queues: []int{0, 1, 2, 3}}, {Name: "eth1", Queues: []int{0, 1}}}
	for _, c := range []struct {
		cpus []int
		want int
		err  string
	}{
		{nil, 2, ""},
		{[]int{5}, 1, ""},
		{[]int{5, 7}, 2, ""},
		{[]int{1, 2, 3}, 0, "`cpus` names 3 cores, but eth1 has 2 queues, and a worker needs one on every interface: name fewer cores, or give it more queues (ethtool -L eth1)"},
	} {
		n, err := workers(infos, c.cpus)
		if n != c.want || (err == nil) != (c.err == "") || err != nil && err.Error() != c.err {
			t.Errorf("cpus %v: %d workers, %v", c.cpus, n, err)
		}
	}
}

func TestCheckQueues(t *testing.T) {
	for _, c := range []struct {
		queues []int
		have   int
		want   string
	}{
		{[]int{0, 1}, 2, ""},
		{[]int{1}, 2, ""},
		{[]int{0, 2}, 2, "eth0 has 2 queues, numbered from 0, but `queues: [0 2]` was asked for"},
		{[]int{1}, 1, "eth0 has 1 queue, numbered"},
		{[]int{-1}, 2, "`queues: [-1]`"},
		{[]int{0, 1, 0}, 2, "names queue 0 twice"},
		{[]int{steer.MaxQueues}, 300, "queue 256 cannot be used"},
	} {
		err := check(&Info{Name: "eth0", Queues: c.queues}, c.have)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v of %d: %v, want …%s…", c.queues, c.have, err, c.want)
		}
	}
}

func options(l *lab, names ...string) Options {
	o := Options{Frames: 256, FrameSize: 2048, Ring: 64,
		Engine: dataplane.Options{Flows: 1024, Seed: "test", EventRing: 16, Idle: dataplane.IdlePolicy{Sleep: true, Spin: 10 * time.Microsecond}}}
	for _, n := range names {
		o.Interfaces = append(o.Interfaces, Interface{Name: l.name(n)})
	}
	return o
}

// TestWhoOwnsWhat opens interfaces with different numbers of queues: every queue has one worker, every worker a port on each
// interface.
func TestWhoOwnsWhat(t *testing.T) {
	l := newLab(t, map[string]int{"a": 4, "b": 2})
	for _, c := range []struct {
		name string
		edit func(*Options)
		want [][]string // by worker: its ports
	}{
		{"all", func(*Options) {}, [][]string{{"a0", "a2", "b0"}, {"a1", "a3", "b1"}}},
		{"one core", func(o *Options) { o.CPUs = []int{0} }, [][]string{{"a0", "a1", "a2", "a3", "b0", "b1"}}},
		{"some queues", func(o *Options) { o.Interfaces[0].Queues, o.Interfaces[1].Queues = []int{1, 3}, []int{1, 0} }, [][]string{{"a1", "b1"}, {"a3", "b0"}}},
		{"one queue", func(o *Options) { o.Interfaces[1].Queues = []int{1} }, [][]string{{"a0", "a1", "a2", "a3", "b1"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l.enter(t)
			o := options(l, "a", "b")
			c.edit(&o)
			d, err := Open(o)
			must(t, err)
			defer func() { must(t, d.Close()) }()
			var got [][]string
			for w := range d.Engine.Workers() {
				var ports []string
				for i, p := range d.sets[w].Ports {
					short := strings.TrimPrefix(p.Name(), fmt.Sprintf("dp%d", os.Getpid()))
					ports = append(ports, fmt.Sprint(short, p.Queue()))
					if k := d.Engine.PortInterface(w, i); d.infos[k].Name != p.Name() {
						t.Errorf("port %s is taken for one of %s", p.Name(), d.infos[k].Name)
					}
				}
				got = append(got, ports)
			}
			if !reflect.DeepEqual(got, c.want) {
				t.Errorf("ports by worker: %v, want %v", got, c.want)
			}
			if len(o.CPUs) > 0 && d.Engine.CPU(0) != o.CPUs[0] {
				t.Errorf("worker 0 is on core %d", d.Engine.CPU(0))
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	l := newLab(t, map[string]int{"a": 2, "b": 1})
	fds := openFiles(t)
	for _, c := range []struct {
		name string
		edit func(*Options)
		want string
	}{
		{"no such interface", func(o *Options) { o.Interfaces[1].Name = "nosuch0" }, "interface nosuch0: there is none of that name here (`ip link` lists them)"},
		{"no such queue", func(o *Options) { o.Interfaces[0].Queues = []int{0, 7} }, l.name("a") + " has 2 queues, numbered from 0, but `queues: [0 7]` was asked for"},
		{"more cores than queues", func(o *Options) { o.CPUs = []int{0, 1} }, l.name("b") + " has 1 queue, and a worker needs one"},
		{"zero-copy", func(o *Options) { o.Interfaces[0].Bind, o.Interfaces[1].Bind = xsk.BindZeroCopy, xsk.BindZeroCopy }, l.name("a")},
		{"ring that is no power of two", func(o *Options) { o.Ring = 100 }, "100"},
		{"flows", func(o *Options) { o.Engine.Flows = -1 }, "flow"},
		{"one interface twice", func(o *Options) { o.Interfaces[1].Name = o.Interfaces[0].Name }, l.name("a") + " is named twice"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l.enter(t)
			o := options(l, "a", "b")
			c.edit(&o)
			d, err := Open(o)
			if err == nil {
				_ = d.Close()
				t.Fatal("it was opened")
			}
			t.Log(err)
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q, want …%s…", err, c.want)
			}
			if now := openFiles(t); now != fds {
				t.Errorf("%d open files, before %d", now, fds)
			}
		})
	}
	// After all that, the queues are free.
	d, err := Open(options(l, "a", "b"))
	must(t, err)
	must(t, d.Close())
}

// TestTraffic lets frames in, and afterwards there is nothing left of it.
func TestTraffic(t *testing.T) {
	l := newLab(t, map[string]int{"a": 2, "b": 1})
	files := openFiles(t)
	d, err := Open(options(l, "a", "b"))
	must(t, err)
	d.Engine.Publish(snapshot(t, d))
	must(t, d.Steerer.Apply(steer.Rules{Services: []steer.Key{{Addr: vip.Addr(), Port: vip.Port(), Proto: packet.ProtoUDP}}}))
	// Before Attach there are neither MAC addresses to tell nor counters.
	must(t, d.SetMAC(0, net.HardwareAddr{2, 0, 0, 0, 0, 1}))
	if n, err := d.Steered(1); err != nil || n != (steer.Counters{}) {
		t.Errorf("counters before Attach: %v, %v", n, err)
	}
	must(t, d.Engine.Start())
	must(t, d.Attach())
	for k, i := range d.Interfaces() {
		if i.Attach != steer.Native && i.Attach != steer.Generic || i.Bind != "copy" || !slices.Equal(i.Queues, [][]int{{0, 1}, {0}}[k]) {
			t.Errorf("%+v", i)
		}
		if !l.attached(t, i.Name) {
			t.Errorf("no program on %s", i.Name)
		}
		must(t, d.SetMAC(k, l.mac(t, i.Name)))
	}
	l.send(t, "a", frametest.Spec{UDP: true, DstMAC: [6]byte(l.mac(t, l.name("a"))), SrcMAC: [6]byte{2, 0, 0, 0, 0, 9}, Src: client, Dst: vip, Payload: []byte("hello")}.Build())
	eventually(t, "the datagram leaves by b", func() bool { return d.Engine.Counters().Forwarded[table.DR] == 1 && sentOn(d, 1) == 1 })
	if n, err := d.Steered(0); err != nil || n[steer.Service] != 1 {
		t.Errorf("steered on a: %v, %v", n, err)
	}
	// Another MAC address makes the frame somebody else's.
	must(t, d.SetMAC(0, net.HardwareAddr{2, 0, 0, 0, 0, 0x55}))
	l.send(t, "a", frametest.Spec{UDP: true, DstMAC: [6]byte(l.mac(t, l.name("a"))), SrcMAC: [6]byte{2, 0, 0, 0, 0, 9}, Src: client, Dst: vip}.Build())
	eventually(t, "the frame is passed", func() bool { n, err := d.Steered(0); return err == nil && n[steer.PassL2] > 0 && n[steer.Service] == 1 })
	must(t, d.Close())
	must(t, d.Close())
	for _, name := range []string{"a", "b"} {
		if l.attached(t, l.name(name)) {
			t.Errorf("a program is left on %s", name)
		}
	}
	if now := openFiles(t); now != files {
		t.Errorf("%d open files, before %d", now, files)
	}
}

// An interface that somebody else's program runs on is refused, and what was attached before it is taken away by Close.
func TestAttachRefused(t *testing.T) {
	l := newLab(t, map[string]int{"a": 1, "b": 1})
	first, err := Open(options(l, "b"))
	must(t, err)
	must(t, first.Attach())
	second, err := Open(Options{Frames: 256, FrameSize: 2048, Ring: 64, Engine: options(l).Engine, Interfaces: options(l, "a").Interfaces})
	must(t, err)
	second.infos = append(second.infos, first.infos...) // as if b had come along
	if err := second.Attach(); err == nil || !strings.Contains(err.Error(), "another XDP program") || !strings.Contains(err.Error(), l.name("b")) {
		t.Errorf("error %v", err)
	}
	must(t, second.Close())
	if l.attached(t, l.name("a")) || !l.attached(t, l.name("b")) {
		t.Error("the refused one is still attached, or the other is not")
	}
	must(t, first.Close())
}

func sentOn(d *Datapath, iface int) (n uint64) {
	for w := range d.Engine.Workers() {
		for p := range d.Engine.Ports(w) {
			if d.Engine.PortInterface(w, p) == iface {
				n += d.Engine.Port(w, p).TxPackets
			}
		}
	}
	return n
}

// snapshot has one DR service, whose backend is behind interface 1.
func snapshot(t *testing.T, d *Datapath) *table.Snapshot {
	t.Helper()
	s := &table.Snapshot{Timeouts: flow.DefaultTimeouts(), Services: make([]table.Service, 1), Backends: make([]table.Backend, 1)}
	for _, i := range d.infos {
		s.Ports = append(s.Ports, table.Port{Name: i.Name, MTU: 1500})
	}
	s.Services[0] = table.Service{Live: true, Name: "dns", Addr: packet.FromNetip(vip.Addr()), Port: vip.Port(), Proto: packet.ProtoUDP,
		Slots: []uint16{0}, Members: []table.Ref{0}}
	s.Backends[0] = table.Backend{Live: true, Name: "one", Addr: packet.FromNetip(client.Addr()), Port: vip.Port(), Up: true, Resolved: true, Out: 1, MTU: 1500,
		Eth: table.Eth(table.MAC{2, 0, 0, 0, 0, 8}, table.MAC{2, 0, 0, 0, 0, 7})}
	s, err := table.New(s)
	must(t, err)
	return s
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list)
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 5 s: %s", what)
		}
	}
}

// send sends a frame into an interface from its other end.
func (l *lab) send(t *testing.T, to string, frame []byte) {
	t.Helper()
	l.inPeer(t, func() {
		link, err := netlink.LinkByName(l.peer(to))
		must(t, err)
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		must(t, err)
		defer unix.Close(fd)
		must(t, unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index, Halen: 6}))
	})
}

// TestChannels has an interface of four queues work with two, and finds four again afterwards.
func TestChannels(t *testing.T) {
	l := newLab(t, map[string]int{"a": 4, "b": 1})
	o := options(l, "a", "b")
	o.Interfaces[0].Channels, o.Interfaces[0].Queues = 2, []int{1}
	d, err := Open(o)
	must(t, err)
	defer func() {
		if n, err := xsk.Queues(l.name("a")); n != 4 || err != nil {
			t.Errorf("after Close there are %d queues, %v; want 4", n, err)
		}
	}()
	defer func() { must(t, d.Close()) }()
	if n, err := xsk.Queues(l.name("a")); n != 2 || err != nil {
		t.Errorf("there are %d queues, %v; want 2", n, err)
	}
	must(t, d.Engine.Start())
	must(t, d.Attach())
	want := "of 2 queues, 1 are served; virtual services' packets that arrive at the others are lost: its driver has no RSS table; serve all queues, or give it fewer with `channels`"
	if i := d.Interfaces()[0]; !slices.Contains(i.Notes, want) || i.RSS != (RSS{}) {
		t.Errorf("notes %q, want %q; %+v", i.Notes, want, i.RSS)
	}
}

func TestTooManyChannels(t *testing.T) {
	l := newLab(t, map[string]int{"a": 2})
	o := options(l, "a")
	o.Interfaces[0].Channels = 3
	d, err := Open(o)
	if err == nil {
		must(t, d.Close())
	}
	if want := "`channels: 3` for " + l.name("a") + ": it can have at most 2, as ethtool -l shows"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}
