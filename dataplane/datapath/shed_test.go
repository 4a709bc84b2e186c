package datapath

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"xlvs/dataplane"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/steer"
	"xlvs/dataplane/table"
)

// A flooded director is real but for its worker's time: the test has it poll once a millisecond, so that it takes 64 frames in that
// time however fast the machine is.
type flooded struct {
	lab  *lab
	path *Datapath
	fd   int // sends to interface a
	mac  [6]byte
	now  uint32
	sent uint64 // frames to the service
	next uint32 // spoofed client
}

const connections = 20

func newFlooded(t *testing.T, noShed bool) *flooded {
	f := &flooded{lab: newLab(t, map[string]int{"a": 1, "b": 1}), now: 1000}
	o := options(f.lab, "a", "b")
	o.Frames, o.Ring, o.Engine.Flows, o.NoShed = 1024, 256, 4096, noShed
	var err error
	f.path, err = Open(o)
	must(t, err)
	t.Cleanup(func() { must(t, f.path.Close()) })
	s := snapshot(t, f.path)
	s.Services[0].Proto = packet.ProtoTCP
	s, err = table.New(s)
	must(t, err)
	f.path.Engine.Publish(s)
	must(t, f.path.Steerer.Apply(steer.Rules{Services: []steer.Key{{Addr: vip.Addr(), Port: vip.Port(), Proto: packet.ProtoTCP}}}))
	must(t, f.path.Attach())
	f.mac = [6]byte(f.lab.mac(t, f.lab.name("a")))
	f.lab.inPeer(t, func() {
		link, err := netlink.LinkByName(f.lab.peer("a"))
		must(t, err)
		f.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		must(t, unix.Bind(f.fd, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index}))
	})
	t.Cleanup(func() { must(t, unix.Close(f.fd)) })
	for i := range connections {
		f.send(t, connection(i), frametest.SYN)
		f.send(t, connection(i), frametest.ACK)
	}
	f.millisecond(t)
	return f
}

func connection(i int) netip.AddrPort { return netip.AddrPortFrom(client.Addr(), uint16(40000+i)) }

func (f *flooded) send(t *testing.T, from netip.AddrPort, flags uint8) {
	t.Helper()
	frame := frametest.Spec{DstMAC: f.mac, SrcMAC: [6]byte{2, 0, 0, 0, 0, 9}, Src: from, Dst: vip, Flags: flags}.Build()
	_, err := unix.Write(f.fd, frame)
	must(t, err)
	// veth has room for 256 frames.
	if f.sent++; f.sent%64 == 0 {
		f.arrive(t)
	}
}

// arrive waits until the steering program has seen all that was sent.
func (f *flooded) arrive(t *testing.T) {
	t.Helper()
	eventually(t, "the frames arrive", func() bool {
		n := f.steered(t)
		return n[steer.Service]+n[steer.Shed] == f.sent
	})
}

func (f *flooded) steered(t *testing.T) steer.Counters {
	t.Helper()
	n, err := f.path.Steered(0)
	must(t, err)
	return n
}

func (f *flooded) millisecond(t *testing.T) {
	t.Helper()
	f.arrive(t)
	f.now++
	f.path.Engine.Step(0, f.now)
}

// syns sends SYNs from as many addresses.
func (f *flooded) syns(t *testing.T, n int) {
	t.Helper()
	for range n {
		f.next++
		f.send(t, netip.AddrPortFrom(netip.AddrFrom4([4]byte{100, 64, byte(f.next >> 8), byte(f.next)}), uint16(1024+f.next>>16)), frametest.SYN)
	}
}

// run lets so many milliseconds pass, with so many SYNs each and a segment of each connection, and has the worker take what waits then. It returns how many SYNs and segments were
// forwarded, and how many SYNs the steering program dropped.
func (f *flooded) run(t *testing.T, ms, syns int) (opened, segments, shed uint64) {
	t.Helper()
	before, was := f.path.Engine.Counters(), f.steered(t)[steer.Shed]
	for range ms {
		for i := range connections {
			f.syns(t, syns*(i+1)/connections-syns*i/connections)
			f.send(t, connection(i), frametest.ACK)
		}
		f.millisecond(t)
	}
	for f.path.Engine.Step(0, f.now) > 0 { // what waits
	}
	after := f.path.Engine.Counters()
	opened = after.FlowsNew - before.FlowsNew
	return opened, after.Forwarded[table.DR] - before.Forwarded[table.DR] - opened, f.steered(t)[steer.Shed] - was
}

// TestFloodedDirector sends three times what the director takes, most of it SYNs.
func TestFloodedDirector(t *testing.T) {
	const syns, ms = 3*dataplane.BurstsPerPoll*dataplane.MaxBurst - connections, 100
	for _, noShed := range []bool{true, false} {
		t.Run(fmt.Sprint("off=", noShed), func(t *testing.T) {
			f := newFlooded(t, noShed)
			if _, n, shed := f.run(t, 50, connections); n != 50*connections || shed != 0 {
				t.Fatalf("before the flood: %d of %d segments forwarded, %d SYNs shed", n, 50*connections, shed)
			}
			f.run(t, 20, syns) // until the level is right, the ring may overflow
			opened, segments, shed := f.run(t, ms, syns)
			t.Logf("of %d segments %d were forwarded, of %d SYNs %d, and %d shed", ms*connections, segments, ms*syns, opened, shed)
			if noShed {
				if shed != 0 || segments > ms*connections/2 {
					t.Errorf("without shedding: %d segments forwarded, %d SYNs shed", segments, shed)
				}
				return
			}
			if segments < ms*connections*99/100 {
				t.Errorf("%d of %d segments of established connections were forwarded", segments, ms*connections)
			}
			if shed == 0 || opened == 0 {
				t.Errorf("%d SYNs opened flows, %d were shed: all or none", opened, shed)
			}
			// A quarter of a second later everybody is let in again.
			f.run(t, 256, 0)
			opened, segments, shed = f.run(t, 10, connections)
			if opened != 10*connections || segments != 10*connections || shed != 0 {
				t.Errorf("after the flood: %d flows opened, %d segments forwarded, %d shed", opened, segments, shed)
			}
		})
	}
}
