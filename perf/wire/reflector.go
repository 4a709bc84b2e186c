package wire

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"xlvs/dataplane"
	"xlvs/dataplane/table"
	"xlvs/dataplane/xsk"
)

// A forwarder is what is under test: it takes frames in at eth0 and sends them to the rig's next hop by eth1.
type forwarder interface {
	// start starts it; stop ends it, and leaves the rig as it is.
	start(r *rig) (stop func() error, err error)
}

// A reflector does on the same sockets what a director does, but for balancing: it takes each frame, writes MAC
// addresses over it and sends it on.
type reflector struct{ polling }

func (f *reflector) start(r *rig) (stop func() error, err error) {
	f.defaults()
	var u undo
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("reflector: %w", err), u.all())
		}
	}()
	var set *xsk.Set
	err = r.forwarder.Do(func() (err error) {
		set, err = xsk.Open(xsk.Config{
			Ports:         []xsk.Options{{Name: "eth0", Bind: xsk.BindCopy}, {Name: "eth1", Bind: xsk.BindCopy}},
			FramesPerPort: socketFrames, FrameSize: 2048, Ring: f.ring, BusyPoll: f.xsk(), AlwaysWake: f.always,
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	u.add(set.Close)
	var polls undo // is undone when the thread that polls has ended
	u.add(polls.all)
	halt, err := f.run(r, set)
	u.add(halt)
	if err != nil {
		return nil, err
	}
	for _, p := range set.Ports {
		detach, err := redirect(r, p)
		if err != nil {
			return nil, err
		}
		u.add(detach)
	}
	return u.all, f.place(r, set.Ports[0].PollThrough, &polls)
}

// run starts the reflector's thread. halt ends it.
func (f *reflector) run(r *rig, set *xsk.Set) (halt func() error, err error) {
	var end atomic.Bool
	var wg sync.WaitGroup
	pinned := make(chan error, 1)
	eth := table.Eth(table.MAC(r.nextHop), table.MAC(r.own))
	wg.Go(func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its affinity
		err := pin(0, r.cores.forwarder, highest)
		pinned <- err
		if err == nil {
			reflect(set, eth, f.idle(), &end)
		}
	})
	return func() error { end.Store(true); wg.Wait(); return nil }, <-pinned
}

// reflect is the loop of dataplane's worker without its pipeline.
func reflect(set *xsk.Set, eth [12]byte, idle dataplane.IdlePolicy, end *atomic.Bool) {
	var b [dataplane.MaxBurst]dataplane.Frame
	var polls []unix.PollFd
	for _, p := range set.Ports {
		polls = append(polls, unix.PollFd{Fd: int32(p.FD()), Events: unix.POLLIN})
	}
	out := set.Ports[1]
	for busy := time.Now(); !end.Load(); {
		now, total := time.Now(), 0
		for _, p := range set.Ports {
			for range dataplane.BurstsPerPoll {
				n := p.Recv(b[:])
				for _, f := range b[:n] {
					copy(set.Memory.Bytes(f), eth[:])
				}
				out.Send(b[:n])
				total += n
				if n < len(b) {
					break
				}
			}
		}
		for _, p := range set.Ports {
			_ = p.Flush() // what goes wrong shows in the counters
		}
		if total > 0 {
			busy = now
		} else if idle.Sleep && now.Sub(busy) > idle.Spin {
			_, _ = unix.Poll(polls, 100)
		}
	}
}

// onlyOurs goes on at the next instruction for frames of the lab and leaves for "pass" otherwise. It keeps R1.
func onlyOurs() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R1, xdpData, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, xdpDataEnd, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, minFrame),
		asm.JGT.Reg(asm.R4, asm.R3, "pass"),
		asm.LoadMem(asm.R4, asm.R2, offMark, asm.Half),
		asm.HostTo(asm.BE, asm.R4, asm.Half),
		asm.JNE.Imm(asm.R4, mark, "pass"),
	}
}

// pass ends a program for frames that are not the lab's.
func pass() asm.Instructions {
	return asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass).WithSymbol("pass"), asm.Return()}
}

// redirect gives the lab's frames of a port's queue to the port.
func redirect(r *rig, p *xsk.Port) (detach func() error, err error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		return nil, err
	}
	defer m.Close() // the program keeps it
	if err := m.Put(uint32(0), uint32(p.FD())); err != nil {
		return nil, err
	}
	code := append(onlyOurs(),
		asm.LoadMem(asm.R2, asm.R1, xdpRxQueueIndex, asm.Word),
		asm.LoadMapPtr(asm.R1, m.FD()),
		asm.Mov.Imm(asm.R3, xdpPass),
		asm.FnRedirectMap.Call(),
		asm.Return(),
	)
	return attach(r, p.Name(), append(code, pass()...))
}

// attach runs an XDP program on an interface of the forwarder.
func attach(r *rig, ifname string, code asm.Instructions) (detach func() error, err error) {
	index, err := ifindex(r.forwarder, ifname)
	if err != nil {
		return nil, err
	}
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Apache-2.0", Instructions: code})
	if err != nil {
		return nil, err
	}
	defer prog.Close() // the link keeps it
	err = r.forwarder.Do(func() error {
		l, err := link.AttachXDP(link.XDPOptions{Program: prog, Interface: index, Flags: link.XDPDriverMode})
		if err == nil {
			detach = l.Close
		}
		return err
	})
	return detach, err
}
