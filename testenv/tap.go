package testenv

import (
	"errors"
	"fmt"
	"net/netip"
	"unsafe"

	"github.com/cilium/ebpf"

	"xlvs/dataplane/table"
)

// Crossed counts what passed a point of the lab for one VIP. Packets are frames on the wire (a
// super-packet of segmentation offload counts as the frames it will be), bytes include Ethernet headers.
type Crossed struct {
	RequestPackets, RequestBytes uint64 // to the VIP, or translated to a NAT server
	ReplyPackets, ReplyBytes     uint64 // from the VIP, or from a NAT server before translation
}

// A Tap counts at the switch's ends of a host's cables, where nothing that the host does (XDP, AF_XDP)
// can hide a frame. It counts in BPF programs and loses nothing. Frames that the host itself is
// an IP end of (health checks, tunnels) and frames to other hosts that a bridge flooded are not counted.
type Tap struct {
	vips map[netip.Addr]uint32 // index into in and out
	in   *ebpf.Map             // frames to the host
	out  *ebpf.Map             // frames from the host
	all  []func() error        // what to undo
}

// tapCount is the value of a Tap's maps; key 2i counts requests and 2i+1 replies of VIP number i.
type tapCount struct{ Packets, Bytes uint64 }

// roles of an address, as the program finds them in its map: the role in the upper half, a VIP's number in the lower.
const (
	roleVIP    = 1 << 16 // a virtual address
	roleServer = 2 << 16 // a NAT server, which requests go to and replies come from
	roleHost   = 3 << 16 // the tapped host's own
)

// NewTap counts what enters and leaves h by the named interfaces, which must be plugged into the lab's
// switch. Close it, or leave that to the lab.
func (l *Lab) NewTap(h *Host, ifnames ...string) (*Tap, error) {
	t := &Tap{vips: map[netip.Addr]uint32{}}
	if err := t.attach(l, h, ifnames); err != nil {
		return nil, errors.Join(fmt.Errorf("tap %s: %w", h.Name, err), t.Close())
	}
	l.atClose(t.Close)
	return t, nil
}

func (t *Tap) attach(l *Lab, h *Host, ifnames []string) error {
	roles, err := l.tapRoles(t, h, ifnames)
	if err != nil {
		return err
	}
	addrs, err := t.newMap(&ebpf.MapSpec{Name: "tap_roles", Type: ebpf.Hash, KeySize: 16, ValueSize: 4, MaxEntries: uint32(len(roles))})
	if err != nil {
		return err
	}
	for a, role := range roles {
		if err := addrs.Put(a.As16(), role); err != nil {
			return err
		}
	}
	counts := &ebpf.MapSpec{
		Name: "tap_counts", Type: ebpf.PerCPUArray, KeySize: 4,
		ValueSize: uint32(unsafe.Sizeof(tapCount{})), MaxEntries: uint32(2 * len(t.vips)),
	}
	if t.in, err = t.newMap(counts); err != nil {
		return err
	}
	if t.out, err = t.newMap(counts); err != nil {
		return err
	}
	for _, ifname := range ifnames {
		if err := t.attachPort(l.Switch, h, ifname, addrs); err != nil {
			return err
		}
	}
	return nil
}

func (t *Tap) newMap(spec *ebpf.MapSpec) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(spec)
	if err != nil {
		return nil, fmt.Errorf("make BPF map %s: %w", spec.Name, err)
	}
	t.all = append(t.all, m.Close)
	return m, nil
}

// tapRoles tells the program what each address of the lab is, as seen from h, and numbers the VIPs.
func (l *Lab) tapRoles(t *Tap, h *Host, ifnames []string) (map[netip.Addr]uint32, error) {
	roles := map[netip.Addr]uint32{}
	for _, m := range l.Options.Modes {
		for _, v6 := range families {
			n := uint32(len(t.vips))
			t.vips[l.VIP(m, v6)] = n
			roles[l.VIP(m, v6)] = roleVIP | n
			for _, s := range l.Group(m) {
				if m == table.NAT && h == l.Director {
					roles[s.Addr(v6)] = roleServer | n
				}
			}
		}
	}
	if h != l.Director {
		return roles, nil
	}
	for _, v6 := range families {
		for _, a := range l.plan.director(v6) {
			roles[a] = roleHost
		}
	}
	return roles, nil
}

// attachPort attaches a program for each direction to the switch's end of one cable.
func (t *Tap) attachPort(sw, h *Host, ifname string, roles *ebpf.Map) error {
	mac, err := h.MAC(ifname)
	if err != nil {
		return err
	}
	port, err := sw.link(h.port(ifname))
	if err != nil {
		return err
	}
	for _, d := range []struct {
		at     ebpf.AttachType
		counts *ebpf.Map
		offset int32 // of the host's MAC address in the frame
	}{
		{ebpf.AttachTCXEgress, t.in, 0}, // what the switch sends is what the host receives
		{ebpf.AttachTCXIngress, t.out, 6},
	} {
		prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
			Name: "tap", Type: ebpf.SchedCLS, License: "GPL",
			Instructions: tapProgram([6]byte(mac), d.offset, roles.FD(), d.counts.FD()),
		})
		if err != nil {
			return fmt.Errorf("load the counting program: %w", err)
		}
		t.all = append(t.all, prog.Close)
		detach, err := sw.attachClassifier(port, prog, d.at)
		if err != nil {
			return err
		}
		t.all = append(t.all, detach)
	}
	return nil
}

// Entered returns what was delivered to the host for a VIP of the lab.
func (t *Tap) Entered(vip netip.Addr) (Crossed, error) { return t.read(t.in, vip) }

// Left returns what the host sent for a VIP of the lab. Requests that a director sends through a
// tunnel are addressed to a server and not counted.
func (t *Tap) Left(vip netip.Addr) (Crossed, error) { return t.read(t.out, vip) }

func (t *Tap) read(m *ebpf.Map, vip netip.Addr) (Crossed, error) {
	n, ok := t.vips[vip]
	if !ok {
		return Crossed{}, fmt.Errorf("tap: %s is no VIP of the lab", vip)
	}
	var sums [2]tapCount
	for i := range sums {
		var perCPU []tapCount
		if err := m.Lookup(2*n+uint32(i), &perCPU); err != nil {
			return Crossed{}, fmt.Errorf("tap: read the counters of %s: %w", vip, err)
		}
		for _, c := range perCPU {
			sums[i].Packets += c.Packets
			sums[i].Bytes += c.Bytes
		}
	}
	return Crossed{sums[0].Packets, sums[0].Bytes, sums[1].Packets, sums[1].Bytes}, nil
}

// Close detaches the tap. It may be called more than once.
func (t *Tap) Close() error {
	var errs []error
	for i := len(t.all) - 1; i >= 0; i-- {
		errs = append(errs, t.all[i]())
	}
	t.all = nil
	return errors.Join(errs...)
}

// Crossed returns what entered the director for a VIP: the requests, and those replies that did
// not find their own way to the client.
func (l *Lab) Crossed(vip netip.Addr) (Crossed, error) {
	if l.DirectorTap == nil {
		return Crossed{}, errors.New("the lab was made without taps")
	}
	return l.DirectorTap.Entered(vip)
}

func (l *Lab) addTaps() (err error) {
	if l.Options.NoTaps {
		return nil
	}
	if l.DirectorTap, err = l.NewTap(l.Director, l.DirectorInterfaces...); err != nil {
		return err
	}
	l.ClientTap, err = l.NewTap(l.Client, "eth0")
	return err
}
