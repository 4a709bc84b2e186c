// Package datapath puts a director's data plane together from real interfaces: AF_XDP sockets (xsk) for the
// workers of an engine, and the steering program (steer) that feeds them.
package datapath

import (
	"errors"
	"fmt"
	"math"
	"net"
	"slices"

	"golang.org/x/sys/unix"

	"xlvs/dataplane"
	"xlvs/dataplane/steer"
	"xlvs/dataplane/xsk"
)

// An Interface is one that the director works on. Queues nil means all; Channels, unless 0, is how many it is to have. KeepRSS
// leaves its RSS table alone, also where it leads to queues that are not served.
type Interface struct {
	Name     string
	Channels int
	Queues   []int
	KeepRSS  bool
	Attach   steer.Mode
	Bind     xsk.BindMode
}

// Options describe a Datapath. Engine.Workers is filled in by Open.
type Options struct {
	Interfaces []Interface
	CPUs       []int // one worker each; empty: as many workers as the interface with the fewest queues allows, on the last allowed cores
	Frames     int   // chunks a queue
	FrameSize  int   // bytes a chunk; 0: by the largest MTU
	Ring       int   // slots of each ring
	BusyPoll   xsk.BusyPoll
	NoShed     bool // do not drop packets that would open flows for a worker that cannot keep up
	Engine     dataplane.Options
}

// Info says what an interface's options became.
type Info struct {
	Name    string
	Ifindex int
	Queues  []int
	Attach  steer.Mode // Native or Generic
	Bind    string     // zerocopy or copy
	RSS     RSS
	Notes   []string // why native or zero-copy was not to be had; what else should be known

	have    int // queues that it has
	keepRSS bool
	table   rssTable
	noTable error // why there is none
}

// A Datapath is an engine on real interfaces. Open makes one, Attach lets traffic in, Close undoes both.
type Datapath struct {
	Engine   *dataplane.Engine
	Steerer  *steer.Steerer
	infos    []Info
	sets     []*xsk.Set
	attached []*steer.Attachment
	noShed   bool
	restore  []func() error // gives interfaces their settings back
	sleep    bool           // workers may
	meters   [][]byte       // mappings that the workers' ports use
}

// Open opens a socket on every queue asked for and makes the engine over them. Nothing is received
// before Attach. On an error, everything opened is closed again.
//
// Worker w of n owns queues w, w+n, w+2n … of every interface: it must be able to send on each, so there are never
// more workers than the interface with the fewest queues has.
func Open(o Options) (_ *Datapath, err error) {
	d := &Datapath{noShed: o.NoShed}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	for _, i := range o.Interfaces {
		if i.Channels == 0 {
			continue
		}
		restore, err := xsk.SetChannels(i.Name, i.Channels)
		if err != nil {
			return nil, err
		}
		d.restore = append(d.restore, restore)
	}
	if d.infos, err = inspect(o.Interfaces); err != nil {
		return nil, err
	}
	d.readRSS()
	n, err := workers(d.infos, o.CPUs)
	if err != nil {
		return nil, err
	}
	if len(o.CPUs) == 0 {
		if o.CPUs, err = lastCPUs(n); err != nil {
			return nil, err
		}
	}
	if err := d.keepTags(); err != nil {
		return nil, err
	}
	for w := range n {
		wo, err := d.openWorker(w, n, &o)
		if err != nil {
			return nil, err
		}
		o.Engine.Workers = append(o.Engine.Workers, wo)
	}
	d.sleep = o.Engine.Idle.Sleep
	busy, err := d.deferInterrupts()
	if err != nil {
		return nil, err
	}
	if busy {
		o.Engine.Idle.Spin = max(o.Engine.Idle.Spin, busySpin)
	}
	if d.Steerer, err = steer.Load(); err != nil {
		return nil, err
	}
	if d.Engine, err = dataplane.New(o.Engine); err != nil {
		return nil, err
	}
	return d, nil
}

// inspect finds each interface and its queues.
func inspect(ifs []Interface) ([]Info, error) {
	var infos []Info
	for _, i := range ifs {
		if slices.ContainsFunc(infos, func(o Info) bool { return o.Name == i.Name }) {
			return nil, fmt.Errorf("interface %s is named twice", i.Name)
		}
		link, err := net.InterfaceByName(i.Name)
		if err != nil {
			return nil, fmt.Errorf("interface %s: there is none of that name here (`ip link` lists them)", i.Name)
		}
		have, err := xsk.Queues(i.Name)
		if err != nil {
			return nil, err
		}
		info := Info{Name: i.Name, Ifindex: link.Index, Queues: i.Queues, Attach: i.Attach, have: have, keepRSS: i.KeepRSS}
		if len(i.Queues) == 0 {
			for q := range have {
				info.Queues = append(info.Queues, q)
			}
		}
		if err := check(&info, have); err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

// check holds the queues asked for against what the interface has.
func check(info *Info, have int) error {
	for k, q := range info.Queues {
		switch {
		case q < 0 || q >= have:
			return fmt.Errorf("%s has %s, numbered from 0, but `queues: %v` was asked for; name fewer, or give it more (ethtool -L %s)",
				info.Name, queues(have), info.Queues, info.Name)
		case q >= steer.MaxQueues:
			return fmt.Errorf("%s: queue %d cannot be used: the steering program knows those below %d; name the queues to use with `queues`, or give it fewer (ethtool -L %s)",
				info.Name, q, steer.MaxQueues, info.Name)
		case slices.Contains(info.Queues[:k], q):
			return fmt.Errorf("%s: `queues: %v` names queue %d twice", info.Name, info.Queues, q)
		}
	}
	return nil
}

func queues(n int) string {
	if n == 1 {
		return "1 queue"
	}
	return fmt.Sprintf("%d queues", n)
}

// workers decides how many there are.
func workers(infos []Info, cpus []int) (int, error) {
	n, fewest := 0, ""
	for _, i := range infos {
		if n == 0 || len(i.Queues) < n {
			n, fewest = len(i.Queues), i.Name
		}
	}
	if len(cpus) > n {
		return 0, fmt.Errorf("`cpus` names %d cores, but %s has %s, and a worker needs one on every interface: name fewer cores, or give it more queues (ethtool -L %s)",
			len(cpus), fewest, queues(n), fewest)
	}
	if len(cpus) > 0 {
		n = len(cpus)
	}
	return n, nil
}

// lastCPUs gives n workers cores of those that the process may use, from the last one down: interrupts and
// the rest of the system tend to the first. With more workers than cores they share.
func lastCPUs(n int) ([]int, error) {
	allowed, err := dataplane.AllowedCPUs()
	if err != nil {
		return nil, err
	}
	cpus := make([]int, n)
	for i := range cpus {
		cpus[i] = allowed[len(allowed)-1-i%len(allowed)]
	}
	return cpus, nil
}

// openWorker opens the sockets of worker w of n.
func (d *Datapath) openWorker(w, n int, o *Options) (wo dataplane.WorkerOptions, err error) {
	cfg := xsk.Config{FramesPerPort: o.Frames, FrameSize: o.FrameSize, Ring: o.Ring, BusyPoll: o.BusyPoll}
	for k, info := range d.infos {
		for j := w; j < len(info.Queues); j += n {
			bind := o.Interfaces[k].Bind
			if info.Attach == steer.Generic && bind == xsk.BindAuto {
				bind = xsk.BindCopy // a generic program cannot feed a zero-copy socket
			}
			cfg.Ports = append(cfg.Ports, xsk.Options{Name: info.Name, Ifindex: info.Ifindex, Queue: info.Queues[j], Bind: bind})
			wo.Interfaces = append(wo.Interfaces, k)
		}
	}
	set, err := xsk.Open(cfg)
	if err != nil {
		return wo, err
	}
	d.sets = append(d.sets, set)
	for i, p := range set.Ports {
		wo.Ports = append(wo.Ports, p)
		info := &d.infos[wo.Interfaces[i]]
		switch {
		case !p.ZeroCopy():
			info.Bind = "copy" // also where another queue got more
		case info.Bind == "":
			info.Bind = "zerocopy"
		}
		if set.Fallback != "" && !slices.Contains(info.Notes, set.Fallback) {
			info.Notes = append(info.Notes, set.Fallback)
		}
	}
	wo.CPU, wo.Memory = o.CPUs[w], set.Memory
	return wo, nil
}

// Attach runs the steering program on every interface and puts the sockets into its map: from here
// on the director's frames come in. Rules should have been applied to Steerer, the engine started.
func (d *Datapath) Attach() error {
	for k := range d.infos {
		info := &d.infos[k]
		a, err := d.Steerer.Attach(info.Ifindex, info.Name, info.Attach)
		if err != nil {
			return err
		}
		d.attached = append(d.attached, a)
		info.Attach = a.Mode()
		if err := a.NativeError(); err != nil {
			info.Notes = append(info.Notes, err.Error())
		}
		if err := d.keepToServed(info); err != nil {
			return err
		}
		if err := d.deferLonger(info); err != nil {
			return err
		}
		if err := d.connect(a, info); err != nil {
			return err
		}
	}
	return nil
}

// connect puts an interface's sockets into the map of its steering program, and gives their ports the program's meters.
func (d *Datapath) connect(a *steer.Attachment, info *Info) error {
	meters, err := a.Meters()
	if err != nil {
		return err
	}
	d.meters = append(d.meters, meters)
	for _, set := range d.sets {
		for _, p := range set.Ports {
			if p.Name() != info.Name {
				continue
			}
			if p.ZeroCopy() && a.Mode() == steer.Generic {
				return fmt.Errorf("%s: the sockets are zero-copy, which a steering program in generic mode cannot feed; set `bind: copy`", info.Name)
			}
			if err := a.SetSocket(p.Queue(), p.FD()); err != nil {
				return err
			}
			if !d.noShed {
				p.Share(xsk.MeterAt(meters, p.Queue()))
			}
		}
	}
	return nil
}

// SetMAC tells the steering program of an interface its MAC address.
func (d *Datapath) SetMAC(k int, mac net.HardwareAddr) error {
	if k >= len(d.attached) {
		return nil
	}
	return d.attached[k].SetMAC(mac)
}

// Steered returns the steering program's counters of interface k.
func (d *Datapath) Steered(k int) (steer.Counters, error) {
	if k >= len(d.attached) {
		return steer.Counters{}, nil
	}
	return d.attached[k].Counters()
}

// Interfaces says what was opened and attached, in the order of Options.Interfaces.
func (d *Datapath) Interfaces() []Info { return slices.Clone(d.infos) }

// MaxMTU is the largest MTU of an interface whose frames packet memory has room for.
func (d *Datapath) MaxMTU() int {
	least := math.MaxInt
	for _, s := range d.sets {
		least = min(least, xsk.MaxMTU(s.Memory.ChunkSize()))
	}
	return least
}

// Close detaches first, so that the kernel gets the traffic, and then stops the workers and closes the sockets.
func (d *Datapath) Close() error {
	var errs []error
	if d.Steerer != nil {
		errs = append(errs, d.Steerer.Close())
	}
	if d.Engine != nil {
		errs = append(errs, d.Engine.Close())
	}
	for _, s := range d.sets {
		errs = append(errs, s.Close())
	}
	for _, restore := range slices.Backward(d.restore) {
		errs = append(errs, restore())
	}
	// Only now does no worker use them any more.
	for _, m := range d.meters {
		errs = append(errs, unix.Munmap(m))
	}
	d.Steerer, d.Engine, d.sets, d.attached, d.restore, d.meters = nil, nil, nil, nil, nil, nil
	return errors.Join(errs...)
}
