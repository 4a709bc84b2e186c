package offline

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"xlvs/dataplane/pcapio"
)

// A Verdict is a line of `xlvs replay --verdicts`.
type Verdict struct {
	N       int    `json:"n"`
	Verdict string `json:"verdict"`
	Reason  string `json:"reason"`
	Service string `json:"service"`
	Backend string `json:"backend"`
	Flow    string `json:"flow"`
	Out     []int  `json:"out"`
}

// A Summary is what a replay comes to.
type Summary struct {
	Packets, Frames int
	Verdicts        map[string]int // packets by verdict
	Drops           map[string]int // by reason
}

// Replay gives d the packets of in, one after the other and each at its time, and writes what is sent to out, and a line for each
// packet, in their order, to verdicts, unless that is nil. The caller flushes out. If in ends with an error, all that came before it
// is replayed and written, and the error comes back beside the summary.
func Replay(d *Director, in *pcapio.Reader, out *pcapio.Writer, verdicts io.Writer) (Summary, error) {
	p := &replay{d: d, out: out, waits: map[int]int{}, sum: Summary{Verdicts: map[string]int{}, Drops: map[string]int{}}}
	if verdicts != nil {
		p.enc = json.NewEncoder(verdicts)
	}
	err := p.run(in)
	var failed WriteError
	if !errors.As(err, &failed) {
		d.Drain()
		err = errors.Join(err, p.settle())
	}
	return p.sum, err
}

// A replay is the work of Replay. A packet that waits for another gets its line when it is known what becomes of it, and
// the lines of those behind it wait with it: for a second of the capture at most.
type replay struct {
	d     *Director
	out   *pcapio.Writer
	enc   *json.Encoder // nil: nobody asks for verdicts
	now   time.Time     // of the packet in hand
	lines []line        // not written yet
	waits map[int]int   // numbers of packets that wait, by ticket
	sum   Summary
}

// line is a line of verdicts, or will be one.
type line struct {
	Verdict
	known bool
}

// A WriteError is what went wrong with an output.
type WriteError struct{ error }

// Unwrap returns the cause.
func (e WriteError) Unwrap() error { return e.error }

func (p *replay) run(in *pcapio.Reader) error {
	names := p.d.Interfaces()
	var start time.Time
	for {
		pkt, err := in.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		p.sum.Packets++
		p.lines = append(p.lines, line{})
		if p.sum.Packets == 1 {
			start = pkt.Time
		}
		p.d.Advance(pkt.Time.Sub(start))
		if err := p.settle(); err != nil {
			return err
		}
		p.now = pkt.Time
		r := p.d.Handle(max(0, slices.Index(names, pkt.Interface)), pkt.Data, pkt.Wire)
		if r.Ticket != 0 {
			p.waits[r.Ticket] = p.sum.Packets
		} else if err := p.decided(p.sum.Packets, &r); err != nil {
			return err
		}
		if err := p.settle(); err != nil {
			return err
		}
	}
}

// settle takes down what has become of packets that waited, and writes the lines that wait for none of them any more.
func (p *replay) settle() error {
	for _, s := range p.d.Settled() {
		n := p.waits[s.Ticket]
		delete(p.waits, s.Ticket)
		if err := p.decided(n, &s.Result); err != nil {
			return err
		}
	}
	ready := 0
	for ready < len(p.lines) && p.lines[ready].known {
		if p.enc != nil {
			if err := p.enc.Encode(p.lines[ready].Verdict); err != nil {
				return WriteError{fmt.Errorf("write verdict %d: %w", p.lines[ready].N, err)}
			}
		}
		ready++
	}
	p.lines = slices.Delete(p.lines, 0, ready)
	return nil
}

// decided takes down what has become of packet n, and writes its frames.
func (p *replay) decided(n int, r *Result) error {
	v := Verdict{N: n, Verdict: r.Verdict, Reason: r.Reason, Service: r.Service, Backend: r.Backend, Flow: r.Flow, Out: []int{}}
	for _, f := range r.Sent {
		p.sum.Frames++
		v.Out = append(v.Out, p.sum.Frames)
		if err := p.out.Write(f.Interface, p.now, f.Frame); err != nil {
			return WriteError{fmt.Errorf("write frame %d: %w", p.sum.Frames, err)}
		}
	}
	p.sum.Verdicts[r.Verdict]++
	if r.Verdict == "drop" {
		p.sum.Drops[r.Reason]++
	}
	p.lines[n-(p.sum.Packets-len(p.lines))-1] = line{v, true}
	return nil
}
