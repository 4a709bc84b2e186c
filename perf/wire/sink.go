package wire

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// Offsets in struct xdp_md, and the verdicts of enum xdp_action.
const (
	xdpData         = 0
	xdpDataEnd      = 4
	xdpRxQueueIndex = 16

	xdpDrop = 1
	xdpPass = 2
	xdpTX   = 3
)

// A sink is an XDP program that counts the lab's frames as they arrive and then drops them or, when it is told to,
// gives them to an AF_XDP socket. Counting in the kernel is exact whatever the socket's owner can take.
type sink struct {
	prog *ebpf.Program
	xsks *ebpf.Map
	data *ebpf.Map // element 0: frames counted; 1: whether to give them to the socket
	link link.Link
}

// newSink attaches it to an interface of the calling thread's namespace.
func newSink(ifindex int, fd int) (s *sink, err error) {
	s = &sink{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("sink: %w", err), s.Close())
		}
	}()
	if s.xsks, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.XSKMap, KeySize: 4, ValueSize: 4, MaxEntries: 1}); err != nil {
		return s, err
	}
	if s.data, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 16, MaxEntries: 1}); err != nil {
		return s, err
	}
	if err = s.xsks.Put(uint32(0), uint32(fd)); err != nil {
		return s, err
	}
	code := append(onlyOurs(),
		asm.LoadMapValue(asm.R6, s.data.FD(), 0),
		asm.Mov.Imm(asm.R4, 1),
		asm.StoreXAdd(asm.R6, asm.R4, asm.DWord),
		asm.LoadMem(asm.R4, asm.R6, 8, asm.DWord),
		asm.JEq.Imm(asm.R4, 0, "drop"),
		asm.Mov.Imm(asm.R2, 0),
		asm.LoadMapPtr(asm.R1, s.xsks.FD()),
		asm.Mov.Imm(asm.R3, xdpDrop),
		asm.FnRedirectMap.Call(),
		asm.Return(),
		asm.Mov.Imm(asm.R0, xdpDrop).WithSymbol("drop"),
		asm.Return(),
	)
	code = append(code, pass()...)
	if s.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Apache-2.0", Instructions: code}); err != nil {
		return s, err
	}
	s.link, err = link.AttachXDP(link.XDPOptions{Program: s.prog, Interface: ifindex, Flags: link.XDPDriverMode})
	return s, err
}

// inspect says whether frames go to the socket from now on.
func (s *sink) inspect(on bool) error {
	v := [2]uint64{s.count(), 0}
	if on {
		v[1] = 1
	}
	return s.data.Put(uint32(0), v)
}

// count returns how many frames have arrived.
func (s *sink) count() uint64 {
	var v [2]uint64
	if err := s.data.Lookup(uint32(0), &v); err != nil {
		panic(err) // the map is this process's own, and its element always exists
	}
	return v[0]
}

func (s *sink) Close() error {
	var errs []error
	if s.link != nil {
		errs = append(errs, s.link.Close())
	}
	if s.prog != nil {
		errs = append(errs, s.prog.Close())
	}
	if s.xsks != nil {
		errs = append(errs, s.xsks.Close())
	}
	if s.data != nil {
		errs = append(errs, s.data.Close())
	}
	return errors.Join(errs...)
}
