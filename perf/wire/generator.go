package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// A generator makes frames in the kernel: an XDP program that is run over and over (BPF_PROG_RUN with live frames, Linux
// 5.18), writes a frame each time one is due and redirects it to an interface. To the forwarder its frames look as a NIC's
// do, pages without a socket buffer around them; and it makes more than any forwarder here can carry, which a
// program on an AF_XDP socket in copy mode cannot.
type generator struct {
	prog    *ebpf.Program
	state   *ebpf.Map
	queue   *queueWatch
	ifindex int
	size    int
}

// genState is the program's only memory. Frame n is due at Epoch + n*Interval. Epoch is when the program first runs, which
// is milliseconds after it was told to.
type genState struct {
	Seq      uint64
	Flow     uint64
	Epoch    uint64 // CLOCK_MONOTONIC, ns; 0: not yet
	Interval uint64 // ns times 65536; 0: as fast as it goes
	Limit    uint64 // frames in all
	Length   uint64 // ns: no frame later than that after Epoch
	Begun    uint64 // the first Epoch: it moves when the schedule is put off
	Slack    uint64 // ns that the schedule may be late
	Late     uint64 // ns by which the schedule was put off, because the generator had been held up for longer
	Flows    uint64
	Step     uint64
	Flags    uint64 // of TCP
	SYNs     uint64 // the first so many of Cycle frames are SYNs of clients that were never there before
	Cycle    uint64 // 0: there are none
	Client   uint64 // the next such client
	Trial    uint64 // number of the trial, for the sink
	Wait     uint64 // ns that a run waits at most for a frame to be due
	Pause    uint64 // ns without frames after the forwarder's queue was full; 0: none
	Full     uint64 // CLOCK_MONOTONIC, ns: until when the queue counts as full; 0: it does not
	Refused  uint64 // frames that were due in such a time
	Pending  uint64 // frames redirected and not yet handed to the interface
	CPU      uint64 // that the generator runs on
}

// offered is the frames that were made and those that met a full queue without having been made.
func (s *genState) offered() uint64 { return s.Seq + s.Refused }

// strangers is those of them that are SYNs of new clients, or would have been, counted from an arbitrary number.
func (s *genState) strangers() uint64 {
	if s.Cycle == 0 {
		return s.Client
	}
	return s.Client + s.Refused*s.SYNs/s.Cycle
}

// firstStranger is the first client that belongs to no flow, as flows are numbered.
const firstStranger = 1 << 31

const (
	genSeq      = int16(unsafe.Offsetof(genState{}.Seq))
	genFlow     = int16(unsafe.Offsetof(genState{}.Flow))
	genEpoch    = int16(unsafe.Offsetof(genState{}.Epoch))
	genInterval = int16(unsafe.Offsetof(genState{}.Interval))
	genLimit    = int16(unsafe.Offsetof(genState{}.Limit))
	genLength   = int16(unsafe.Offsetof(genState{}.Length))
	genBegun    = int16(unsafe.Offsetof(genState{}.Begun))
	genSlack    = int16(unsafe.Offsetof(genState{}.Slack))
	genLate     = int16(unsafe.Offsetof(genState{}.Late))
	genFlows    = int16(unsafe.Offsetof(genState{}.Flows))
	genStep     = int16(unsafe.Offsetof(genState{}.Step))
	genFlags    = int16(unsafe.Offsetof(genState{}.Flags))
	genSYNs     = int16(unsafe.Offsetof(genState{}.SYNs))
	genCycle    = int16(unsafe.Offsetof(genState{}.Cycle))
	genClient   = int16(unsafe.Offsetof(genState{}.Client))
	genTrial    = int16(unsafe.Offsetof(genState{}.Trial))
	genWait     = int16(unsafe.Offsetof(genState{}.Wait))
	genPause    = int16(unsafe.Offsetof(genState{}.Pause))
	genFull     = int16(unsafe.Offsetof(genState{}.Full))
	genRefused  = int16(unsafe.Offsetof(genState{}.Refused))
	genPending  = int16(unsafe.Offsetof(genState{}.Pending))
	genCPU      = int16(unsafe.Offsetof(genState{}.CPU))

	// The sink's fields stand here for the same reason that unsafe does: it is kept to one file.
	sinkSize  = uint32(unsafe.Sizeof(sinkState{}))
	sinkCount = uint32(unsafe.Offsetof(sinkState{}.Count))
	sinkMax   = int16(unsafe.Offsetof(sinkState{}.Max))
	sinkWatch = int16(unsafe.Offsetof(sinkState{}.Watch))
	sinkSYNs  = int16(unsafe.Offsetof(sinkState{}.SYNs))
	sinkTrial = int16(unsafe.Offsetof(sinkState{}.Trial))
)

// newGenerator loads a generator of frames of size bytes, without the frame check sequence, for an interface.
func newGenerator(ifindex int, dst, src net.HardwareAddr, size int) (g *generator, err error) {
	g = &generator{ifindex: ifindex, size: size}
	if g.state, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: uint32(unsafe.Sizeof(genState{})), MaxEntries: 1}); err != nil {
		return nil, fmt.Errorf("generator: %w", err)
	}
	// Flags are added by the program; everything else that does not change is in the template.
	template := newStamper(dst, src, 1, size, 0)
	g.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Apache-2.0", Instructions: g.code(template)})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("generator: %w", err), g.state.Close())
	}
	if g.queue, err = newQueueWatch(g.state); err != nil {
		return nil, errors.Join(fmt.Errorf("generator: %w", err), g.prog.Close(), g.state.Close())
	}
	return g, nil
}

// code is the program. R6 is the frame, R7 the state, R8 the time and then the flow, R9 the frame's number.
func (g *generator) code(s *stamper) asm.Instructions {
	ins := asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, xdpData, asm.Word),
		asm.LoadMem(asm.R3, asm.R1, xdpDataEnd, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R6),
		asm.Add.Imm(asm.R4, minFrame),
		asm.JGT.Reg(asm.R4, asm.R3, "none"),
		asm.LoadMapValue(asm.R7, g.state.FD(), 0),
		asm.LoadMem(asm.R9, asm.R7, genSeq, asm.DWord),
		asm.LoadMem(asm.R1, asm.R7, genLimit, asm.DWord),
		asm.JGE.Reg(asm.R9, asm.R1, "none"),
		asm.FnKtimeGetNs.Call(),
		asm.Mov.Reg(asm.R8, asm.R0),
		asm.LoadMem(asm.R1, asm.R7, genBegun, asm.DWord),
		asm.JNE.Imm(asm.R1, 0, "begun"),
		asm.StoreMem(asm.R7, genBegun, asm.R8, asm.DWord),
		asm.StoreMem(asm.R7, genEpoch, asm.R8, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.R8),
		asm.LoadMem(asm.R2, asm.R7, genLength, asm.DWord).WithSymbol("begun"),
		asm.Add.Reg(asm.R1, asm.R2),
		asm.JGE.Reg(asm.R8, asm.R1, "none"),
	}
	ins = append(ins, g.pace()...)
	ins = append(ins, writeTemplate(s.template)...)
	ins = append(ins, g.stamp(s)...)
	return append(ins,
		asm.LoadMem(asm.R1, asm.R7, genPending, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R7, genPending, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R1, int32(g.ifindex)),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
		asm.Mov.Imm(asm.R0, xdpDrop).WithSymbol("none"),
		asm.Return(),
	)
}

// writeTemplate writes the first minFrame bytes; the rest of a longer frame is whatever the kernel was given.
func writeTemplate(t []byte) (ins asm.Instructions) {
	for i := 0; i < minFrame; i += 8 {
		if minFrame-i < 8 {
			i = minFrame - 8
		}
		x := asm.LoadImm(asm.R1, int64(binary.NativeEndian.Uint64(t[i:])), asm.DWord)
		if i == 0 {
			x = x.WithSymbol("now")
		}
		ins = append(ins, x, asm.StoreMem(asm.R6, int16(i), asm.R1, asm.DWord))
	}
	return ins
}

// stamp writes flow, number, time, flags and checksums, and advances the state.
func (g *generator) stamp(s *stamper) (ins asm.Instructions) {
	put := func(off int16, from asm.Register, size asm.Size) {
		ins = append(ins, asm.Mov.Reg(asm.R1, from), asm.HostTo(asm.BE, asm.R1, size), asm.StoreMem(asm.R6, off, asm.R1, size))
	}
	// halves adds both halves of a 32-bit number to R0.
	halves := func(from asm.Register) {
		ins = append(ins, asm.Mov.Reg(asm.R1, from), asm.And.Imm(asm.R1, 0xffff), asm.Add.Reg(asm.R0, asm.R1),
			asm.Mov.Reg(asm.R1, from), asm.LSh.Imm(asm.R1, 32), asm.RSh.Imm(asm.R1, 48), asm.Add.Reg(asm.R0, asm.R1))
	}
	checksum := func(off int16) {
		for range 2 {
			ins = append(ins, asm.Mov.Reg(asm.R1, asm.R0), asm.RSh.Imm(asm.R1, 16), asm.And.Imm(asm.R0, 0xffff), asm.Add.Reg(asm.R0, asm.R1))
		}
		ins = append(ins, asm.Xor.Imm(asm.R0, 0xffff))
		put(off, asm.R0, asm.Half)
	}
	ip := append([]byte(nil), s.template[14:34]...)
	clear(ip[10:16]) // the checksum and the source address
	ins = append(ins, asm.LoadImm(asm.R0, int64(s.base), asm.DWord))
	put(offTime, asm.R8, asm.Word)
	halves(asm.R8)
	put(offSeq, asm.R9, asm.Word)
	halves(asm.R9)
	ins = append(ins, asm.LoadMem(asm.R2, asm.R7, genTrial, asm.DWord))
	put(offTrial, asm.R2, asm.Half)
	ins = append(ins,
		asm.Add.Reg(asm.R0, asm.R2),
		asm.Mov.Reg(asm.R3, asm.R9),
		asm.Add.Imm(asm.R9, 1),
		asm.StoreMem(asm.R7, genSeq, asm.R9, asm.DWord),
	)
	ins = append(ins, client()...)
	ins = append(ins,
		asm.StoreMem(asm.R6, offFlags, asm.R4, asm.Byte),
		asm.Add.Reg(asm.R0, asm.R4),
		asm.Mov.Reg(asm.R2, asm.R8),
		asm.And.Imm(asm.R2, 1<<flowPortBits-1),
		asm.Add.Imm(asm.R2, firstPort),
		asm.Add.Reg(asm.R0, asm.R2),
	)
	put(offSrcPort, asm.R2, asm.Half)
	ins = append(ins, asm.RSh.Imm(asm.R8, flowPortBits), asm.LoadImm(asm.R3, 198<<24|18<<16, asm.DWord), asm.Add.Reg(asm.R8, asm.R3))
	put(offSrcIP, asm.R8, asm.Word)
	halves(asm.R8)
	checksum(offSum)
	ins = append(ins, asm.LoadImm(asm.R0, int64(sum(ip)), asm.DWord))
	halves(asm.R8)
	checksum(24)
	return ins
}

// client leaves frame R3's flow in R8 and its flags in R4: the next of the flows, or a stranger's first frame.
func client() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R2, asm.R7, genCycle, asm.DWord),
		asm.JEq.Imm(asm.R2, 0, "known"),
		asm.Mod.Reg(asm.R3, asm.R2),
		asm.LoadMem(asm.R2, asm.R7, genSYNs, asm.DWord),
		asm.JGE.Reg(asm.R3, asm.R2, "known"),
		asm.Mov.Imm(asm.R4, flagSYN),
		asm.LoadMem(asm.R8, asm.R7, genClient, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.R8),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R7, genClient, asm.R1, asm.DWord),
		asm.Ja.Label("client"),
		asm.LoadMem(asm.R4, asm.R7, genFlags, asm.DWord).WithSymbol("known"),
		asm.LoadMem(asm.R8, asm.R7, genFlow, asm.DWord),
		asm.Mov.Reg(asm.R1, asm.R8),
		asm.LoadMem(asm.R2, asm.R7, genStep, asm.DWord),
		asm.Add.Reg(asm.R1, asm.R2),
		asm.LoadMem(asm.R2, asm.R7, genFlows, asm.DWord),
		asm.JLT.Reg(asm.R1, asm.R2, "next"),
		asm.Sub.Reg(asm.R1, asm.R2),
		asm.StoreMem(asm.R7, genFlow, asm.R1, asm.DWord).WithSymbol("next"),
		asm.Mov.Reg(asm.R1, asm.R1).WithSymbol("client"),
	}
}

// The attributes of BPF_PROG_TEST_RUN (union bpf_attr, include/uapi/linux/bpf.h).
type testRun struct {
	progFD, retval          uint32
	dataSizeIn, dataSizeOut uint32
	dataIn, dataOut         uint64
	repeat, duration        uint32
	ctxSizeIn, ctxSizeOut   uint32
	ctxIn, ctxOut           uint64
	flags, cpu, batch       uint32
	_                       uint32
}

const (
	bpfProgTestRun    = 10
	bpfTestLiveFrames = 2
)

// run runs the program repeat times, in batches, on the calling thread, which must be in the interface's namespace. The
// signals by which Go preempts goroutines end it early, which is no error.
func (g *generator) run(repeat, batch uint32) error {
	frame := make([]byte, g.size)
	var pin runtime.Pinner
	defer pin.Unpin()
	ctx := [6]uint32{1: uint32(g.size), 3: uint32(g.ifindex)} // struct xdp_md
	attr := testRun{progFD: uint32(g.prog.FD()), dataSizeIn: uint32(len(frame)), repeat: repeat, flags: bpfTestLiveFrames, batch: batch}
	pin.Pin(&frame[0])
	pin.Pin(&ctx)
	attr.dataIn = uint64(uintptr(unsafe.Pointer(&frame[0])))
	attr.ctxIn, attr.ctxSizeIn = uint64(uintptr(unsafe.Pointer(&ctx))), uint32(unsafe.Sizeof(ctx))
	_, _, errno := unix.Syscall(unix.SYS_BPF, bpfProgTestRun, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 && errno != unix.EINTR {
		return fmt.Errorf("generator: run the program with live frames (Linux 5.18): %w", errno)
	}
	return nil
}

// set makes a new begin, with strangers that are new also to the trials before.
func (g *generator) set(s genState) error {
	s.Client = max(g.get().Client, firstStranger)
	return g.state.Put(uint32(0), s)
}

func (g *generator) get() (s genState) {
	if err := g.state.Lookup(uint32(0), &s); err != nil {
		panic(err) // the map is this process's own, and its element always exists
	}
	return s
}

func (g *generator) Close() error {
	return errors.Join(g.queue.Close(), g.prog.Close(), g.state.Close())
}
