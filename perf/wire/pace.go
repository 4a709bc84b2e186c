package wire

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

// looks is how often a run looks at the clock while it waits for a frame to be due. A run that gives up hands its page back,
// under a lock of the page pool that a forwarder on AF_XDP sockets takes, too, when it hands back pages: what spins there slows
// the forwarder down, which no NIC does.
const looks = 48

// Places on the program's stack.
const (
	stackDue   = -8
	stackUntil = -16
)

// pace leaves the program unless frame R9 is due at R8 or becomes so while it waits. A schedule that is late by more than Slack is
// put off. What the frame will carry as its time, the one at which it was due, is left in R8.
func (g *generator) pace() asm.Instructions {
	ins := asm.Instructions{
		asm.LoadMem(asm.R1, asm.R7, genInterval, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "now"),
		asm.Mov.Reg(asm.R2, asm.R9),
		asm.Mul.Reg(asm.R2, asm.R1),
		asm.RSh.Imm(asm.R2, 16),
		asm.LoadMem(asm.R3, asm.R7, genEpoch, asm.DWord),
		asm.Add.Reg(asm.R2, asm.R3), // due
	}
	ins = append(ins, refuse()...)
	ins = append(ins,
		asm.JLE.Reg(asm.R2, asm.R8, "due").WithSymbol("room"),
		asm.LoadMem(asm.R4, asm.R7, genWait, asm.DWord),
		asm.JEq.Imm(asm.R4, 0, "none"),
		asm.Add.Reg(asm.R4, asm.R8),
		asm.StoreMem(asm.R10, stackDue, asm.R2, asm.DWord),
		asm.StoreMem(asm.R10, stackUntil, asm.R4, asm.DWord),
	)
	for range looks {
		ins = append(ins,
			asm.FnKtimeGetNs.Call(),
			asm.Mov.Reg(asm.R8, asm.R0),
			asm.LoadMem(asm.R2, asm.R10, stackDue, asm.DWord),
			asm.JGE.Reg(asm.R8, asm.R2, "due"),
			asm.LoadMem(asm.R4, asm.R10, stackUntil, asm.DWord),
			asm.JGE.Reg(asm.R8, asm.R4, "none"),
		)
	}
	return append(ins,
		asm.Ja.Label("none"),
		asm.Mov.Reg(asm.R4, asm.R8).WithSymbol("due"),
		asm.Sub.Reg(asm.R4, asm.R2), // late by
		asm.LoadMem(asm.R1, asm.R7, genSlack, asm.DWord),
		asm.Mov.Reg(asm.R8, asm.R2),
		asm.JLE.Reg(asm.R4, asm.R1, "now"),
		asm.Sub.Reg(asm.R4, asm.R1),
		asm.LoadMem(asm.R3, asm.R7, genEpoch, asm.DWord),
		asm.Add.Reg(asm.R3, asm.R4),
		asm.StoreMem(asm.R7, genEpoch, asm.R3, asm.DWord),
		asm.Add.Reg(asm.R8, asm.R4),
		asm.LoadMem(asm.R1, asm.R7, genLate, asm.DWord),
		asm.Add.Reg(asm.R1, asm.R4),
		asm.StoreMem(asm.R7, genLate, asm.R1, asm.DWord),
	)
}

// refuse counts the frames that are due while the forwarder's queue is full, and takes them from the schedule. R1 is the
// interval and R2 when the next frame is due, which it moves.
func refuse() asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R0, asm.R7, genFull, asm.DWord),
		asm.JEq.Imm(asm.R0, 0, "room"),
		asm.Mov.Imm(asm.R5, 0),
		asm.StoreMem(asm.R7, genFull, asm.R5, asm.DWord),
		asm.Mov.Reg(asm.R5, asm.R0),
		asm.Sub.Reg(asm.R5, asm.R2),
		asm.JSLE.Imm(asm.R5, 0, "room"),
		asm.Mov.Reg(asm.R2, asm.R0), // the next is due when there is room again
		asm.LoadMem(asm.R3, asm.R7, genEpoch, asm.DWord),
		asm.Add.Reg(asm.R3, asm.R5),
		asm.StoreMem(asm.R7, genEpoch, asm.R3, asm.DWord),
		asm.LoadMem(asm.R3, asm.R7, genPause, asm.DWord),
		asm.JLE.Reg(asm.R5, asm.R3, "count"),
		asm.Mov.Reg(asm.R5, asm.R3), // what was due before was held up by something else
		asm.LSh.Imm(asm.R5, 16).WithSymbol("count"),
		asm.Div.Reg(asm.R5, asm.R1),
		asm.LoadMem(asm.R3, asm.R7, genRefused, asm.DWord),
		asm.Add.Reg(asm.R3, asm.R5),
		asm.StoreMem(asm.R7, genRefused, asm.R3, asm.DWord),
	}
}

// A queueWatch tells a generator that the forwarder's queue was full: a program at the tracepoint xdp_devmap_xmit, where the kernel
// says of each burst how many of its frames the interface took.
//
// A NIC whose ring is full drops a frame at no cost to anybody. veth has the sender make the frame, and its page go back
// to the page pool of which the forwarder's pages are, too, under the same lock: a flood of such frames slows
// the forwarder down, and leaves the generator no time for more. So after a frame was dropped there, those that are due in the
// next microseconds count as dropped without being made.
type queueWatch struct {
	prog *ebpf.Program
	link link.Link
}

func newQueueWatch(state *ebpf.Map) (w *queueWatch, err error) {
	w = &queueWatch{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("watching its queue: %w", err), w.Close())
		}
	}()
	w.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.RawTracepoint, License: "Apache-2.0", Instructions: watchCode(state)})
	if err != nil {
		return w, err
	}
	w.link, err = link.AttachRawTracepoint(link.RawTracepointOptions{Name: "xdp_devmap_xmit", Program: w.prog})
	return w, err
}

// watchCode is the program. Its context is the tracepoint's arguments: two devices, sent, drops, error. Bursts of others are told from the
// generator's by their CPU and by when they are sent: while it runs, no other can on its CPU, and each of its batches ends with
// nothing pending.
func watchCode(state *ebpf.Map) asm.Instructions {
	return asm.Instructions{
		asm.LoadMem(asm.R8, asm.R1, 2*8, asm.DWord), // sent
		asm.LoadMem(asm.R9, asm.R1, 3*8, asm.DWord), // drops
		asm.LoadMapValue(asm.R7, state.FD(), 0),
		asm.FnGetSmpProcessorId.Call(),
		asm.LoadMem(asm.R1, asm.R7, genCPU, asm.DWord),
		asm.JNE.Reg(asm.R0, asm.R1, "out"),
		asm.LoadMem(asm.R1, asm.R7, genPending, asm.DWord),
		asm.JEq.Imm(asm.R1, 0, "out"),
		asm.Sub.Reg(asm.R1, asm.R8),
		asm.Sub.Reg(asm.R1, asm.R9),
		asm.StoreMem(asm.R7, genPending, asm.R1, asm.DWord),
		asm.JEq.Imm(asm.R9, 0, "out"),
		asm.LoadMem(asm.R6, asm.R7, genPause, asm.DWord),
		asm.JEq.Imm(asm.R6, 0, "out"),
		asm.FnKtimeGetNs.Call(),
		asm.Add.Reg(asm.R0, asm.R6),
		asm.StoreMem(asm.R7, genFull, asm.R0, asm.DWord),
		asm.Mov.Imm(asm.R0, 0).WithSymbol("out"),
		asm.Return(),
	}
}

// Close ends the watch.
func (w *queueWatch) Close() error {
	var errs []error
	if w.link != nil {
		errs = append(errs, w.link.Close())
	}
	if w.prog != nil {
		errs = append(errs, w.prog.Close())
	}
	return errors.Join(errs...)
}
