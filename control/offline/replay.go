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
// packet to verdicts, unless that is nil. The caller flushes out.
func Replay(d *Director, in *pcapio.Reader, out *pcapio.Writer, verdicts io.Writer) (s Summary, err error) {
	s = Summary{Verdicts: map[string]int{}, Drops: map[string]int{}}
	names := d.Interfaces()
	var enc *json.Encoder
	if verdicts != nil {
		enc = json.NewEncoder(verdicts)
	}
	var start time.Time
	for {
		p, err := in.Read()
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil {
			return s, err
		}
		s.Packets++
		if s.Packets == 1 {
			start = p.Time
		}
		d.Advance(p.Time.Sub(start))
		r := d.Handle(max(0, slices.Index(names, p.Interface)), p.Data, p.Wire)
		v := Verdict{N: s.Packets, Verdict: r.Verdict, Reason: r.Reason, Service: r.Service, Backend: r.Backend, Flow: r.Flow, Out: []int{}}
		for _, f := range r.Sent {
			s.Frames++
			v.Out = append(v.Out, s.Frames)
			if err := out.Write(f.Interface, p.Time, f.Frame); err != nil {
				return s, fmt.Errorf("write frame %d: %w", s.Frames, err)
			}
		}
		s.Verdicts[r.Verdict]++
		if r.Verdict == "drop" {
			s.Drops[r.Reason]++
		}
		if enc != nil {
			if err := enc.Encode(v); err != nil {
				return s, fmt.Errorf("write verdict %d: %w", s.Packets, err)
			}
		}
	}
}
