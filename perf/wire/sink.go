package wire

import (
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
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

// A sink is an XDP program that counts the lab's frames as they arrive, takes the time they took, and drops them.
// Counting in the kernel is exact whatever else its core has to do.
type sink struct {
	prog  *ebpf.Program
	state *ebpf.Map // sinkState
	times *ebpf.Map // one array of buckets, see bucketValue
	link  link.Link
	trial uint16 // the present one's number
}

// What a sink does with the frames besides counting them.
type watch uint64

const (
	countAll watch = iota
	timeAll        // take the time since each was due
)

type sinkState struct {
	Count uint64
	Watch watch
	Max   uint64 // ns, the longest time
	SYNs  uint64 // of the frames: those that open a connection
	Trial uint64 // frames of another one are late, and not counted
}

// Buckets of times follow HdrHistogram: each power of two from 2^subBits ns on is cut into 2^subBits equal parts.
const (
	subBits = 4
	buckets = 512
)

// bucketValue returns the middle of bucket i in ns.
func bucketValue(i int) int64 {
	if i < 2<<subBits {
		return int64(i)
	}
	shift := i>>subBits - 1
	return int64(1<<subBits|i&(1<<subBits-1))<<shift + int64(1)<<shift/2
}

// newSink attaches it to an interface of the calling thread's namespace.
func newSink(ifindex int) (s *sink, err error) {
	if s, err = loadSink(); err != nil {
		return nil, err
	}
	s.link, err = link.AttachXDP(link.XDPOptions{Program: s.prog, Interface: ifindex, Flags: link.XDPDriverMode})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("sink: %w", err), s.Close())
	}
	return s, nil
}

func loadSink() (s *sink, err error) {
	s = &sink{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("sink: %w", err), s.Close())
		}
	}()
	if s.state, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: sinkSize, MaxEntries: 1}); err != nil {
		return s, err
	}
	if s.times, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 8 * buckets, MaxEntries: 1}); err != nil {
		return s, err
	}
	s.prog, err = ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, License: "Apache-2.0", Instructions: s.code()})
	return s, err
}

// code is the program. R6 is the state, R7 the frame's time stamp and then the time it took.
func (s *sink) code() asm.Instructions {
	code := append(onlyOurs(),
		asm.LoadMem(asm.R3, asm.R2, offFlags, asm.Byte),
		asm.LoadMem(asm.R7, asm.R2, offTime, asm.Word),
		asm.HostTo(asm.BE, asm.R7, asm.Word),
		asm.LoadMem(asm.R4, asm.R2, offTrial, asm.Half),
		asm.HostTo(asm.BE, asm.R4, asm.Half),
		asm.LoadMapValue(asm.R6, s.state.FD(), sinkCount),
		asm.LoadMem(asm.R1, asm.R6, sinkTrial, asm.DWord),
		asm.JNE.Reg(asm.R1, asm.R4, "drop"),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R6, asm.R1, asm.DWord),
		asm.And.Imm(asm.R3, flagSYN),
		asm.JEq.Imm(asm.R3, 0, "watch"),
		asm.Mov.Reg(asm.R2, asm.R6),
		asm.Add.Imm(asm.R2, int32(sinkSYNs)),
		asm.StoreXAdd(asm.R2, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, asm.R6, sinkWatch, asm.DWord).WithSymbol("watch"),
		asm.JEq.Imm(asm.R1, int32(countAll), "drop"),
		// The stamp is the lower half of a time. A frame that is early by the clock's grain took none.
		asm.FnKtimeGetNs.Call(),
		asm.Sub.Reg(asm.R0, asm.R7),
		asm.Mov.Reg32(asm.R7, asm.R0),
		asm.JLT.Imm32(asm.R7, -1<<31, "max"), // 2^31: more than 2 s late is early
		asm.Mov.Imm(asm.R7, 0),
		asm.LoadMem(asm.R1, asm.R6, sinkMax, asm.DWord).WithSymbol("max"),
		asm.JGE.Reg(asm.R1, asm.R7, "bucket"),
		asm.StoreMem(asm.R6, sinkMax, asm.R7, asm.DWord),
	)
	code = append(code, s.bucket()...)
	code = append(code, asm.Mov.Imm(asm.R0, xdpDrop).WithSymbol("drop"), asm.Return())
	return append(code, pass()...)
}

// bucket counts R7 in its bucket: R1 is the number, halved until it has subBits+1 bits or fewer, and R2 how often that was.
func (s *sink) bucket() asm.Instructions {
	code := asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R7).WithSymbol("bucket"),
		asm.Mov.Imm(asm.R2, 0),
	}
	for bit := int32(16); bit > 0; bit /= 2 {
		next := fmt.Sprintf("below%d", bit)
		code = append(code,
			asm.JLT.Imm(asm.R1, 1<<(bit+subBits), next),
			asm.RSh.Imm(asm.R1, bit),
			asm.Add.Imm(asm.R2, bit),
			asm.Mov.Reg(asm.R1, asm.R1).WithSymbol(next),
		)
	}
	return append(code,
		asm.LSh.Imm(asm.R2, subBits),
		asm.Add.Reg(asm.R1, asm.R2),
		asm.And.Imm(asm.R1, buckets-1),
		asm.LSh.Imm(asm.R1, 3),
		asm.LoadMapValue(asm.R2, s.times.FD(), 0),
		asm.Add.Reg(asm.R2, asm.R1),
		asm.Mov.Imm(asm.R1, 1),
		asm.StoreXAdd(asm.R2, asm.R1, asm.DWord),
	)
}

// start sets all counters to zero for a new trial, and says what to do from now on.
func (s *sink) start(w watch) error {
	s.trial++
	return errors.Join(s.times.Put(uint32(0), make([]byte, 8*buckets)), s.state.Put(uint32(0), sinkState{Watch: w, Trial: uint64(s.trial)}))
}

func (s *sink) get() (v sinkState) {
	if err := s.state.Lookup(uint32(0), &v); err != nil {
		panic(err) // the map is this process's own, and its element always exists
	}
	return v
}

// count returns how many frames have arrived.
func (s *sink) count() uint64 { return s.get().Count }

// latency returns the times that were taken.
func (s *sink) latency() (*hdrhistogram.Histogram, error) {
	var counts [buckets]uint64
	if err := s.times.Lookup(uint32(0), &counts); err != nil {
		return nil, err
	}
	longest := int64(s.get().Max)
	h := hdrhistogram.New(1, int64(4*time.Second), 3)
	for i, n := range counts {
		if n == 0 {
			continue
		}
		if err := h.RecordValues(min(bucketValue(i), longest), int64(n)); err != nil {
			return nil, err
		}
	}
	return h, nil
}

func (s *sink) Close() error {
	var errs []error
	if s.link != nil {
		errs = append(errs, s.link.Close())
	}
	if s.prog != nil {
		errs = append(errs, s.prog.Close())
	}
	if s.state != nil {
		errs = append(errs, s.state.Close())
	}
	if s.times != nil {
		errs = append(errs, s.times.Close())
	}
	return errors.Join(errs...)
}
