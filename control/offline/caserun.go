package offline

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"xlvs/control"
	"xlvs/control/config"
	"xlvs/dataplane/notation"
	wire "xlvs/dataplane/packet"
)

// caseFlows bounds the flow table of a case, which has a few packets.
const caseFlows = 4096

// A CaseResult is a case's outcome.
type CaseResult struct {
	Name     string // with the variants' names behind it
	Line     int
	Failures []string // empty: passed
}

// Run runs every case in every variant, each with a director of its own, and gives report each result.
func (f *CaseFile) Run(report func(CaseResult)) error {
	for i, outer := range variants(f.Each) {
		built := builds{}
		for n := range f.Cases {
			c := &f.Cases[n]
			for _, inner := range variants(c.Each) {
				vars := merge(outer, inner)
				r := CaseResult{Name: strings.Join(nonEmpty(expand(c.Name.text, vars), outer["as"], inner["as"]), "/"), Line: c.Name.line}
				var err error
				if r.Failures, err = f.runCase(f.confs[i], built, c, vars); err != nil {
					return fmt.Errorf("%s:%d: case %s: %w", f.Name, r.Line, r.Name, err)
				}
				report(r)
			}
		}
	}
	return nil
}

// builds are what one configuration comes to, by the backends that are down: cases share it.
type builds map[string]*control.Offline

func (b builds) of(conf *config.Config, names *list, vars map[string]string) (what *control.Offline, err error) {
	var down []string
	if names != nil {
		for _, w := range names.words {
			down = append(down, expand(w.text, vars))
		}
	}
	key := strings.Join(down, "\x00")
	if b[key] == nil {
		b[key], err = control.NewOffline(conf, down)
	}
	return b[key], err
}

func variants(each []map[string]string) []map[string]string {
	if len(each) == 0 {
		return []map[string]string{nil}
	}
	return each
}

func merge(a, b map[string]string) map[string]string {
	m := map[string]string{}
	for _, from := range []map[string]string{a, b} {
		for k, v := range from {
			m[k] = v
		}
	}
	// A value may have another's key in it, one level deep.
	for k, v := range m {
		m[k] = expand(v, a)
	}
	return m
}

func nonEmpty(s ...string) []string {
	return slices.DeleteFunc(s, func(s string) bool { return s == "" })
}

// runCase returns what was not as expected.
func (f *CaseFile) runCase(conf *config.Config, built builds, c *Case, vars map[string]string) (failures []string, err error) {
	what, err := built.of(conf, c.Down, vars)
	if err != nil {
		return nil, err
	}
	d, err := start(conf, what, Options{Flows: caseFlows, Exact: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	for i := range c.Steps {
		s := &c.Steps[i]
		r, err := d.step(built, s, vars)
		if err != nil {
			return nil, err
		}
		said, err := d.compare(s.Expect, &r, vars)
		if err != nil {
			return nil, err
		}
		for _, m := range said {
			if len(c.Steps) > 1 {
				m = fmt.Sprintf("step %d: %s", i+1, m)
			}
			failures = append(failures, m)
		}
	}
	d.Drain()
	if n := d.leaked() + len(d.waiting); n > 0 {
		failures = append(failures, fmt.Sprintf("%d frames were neither sent nor freed", n))
	}
	return failures, nil
}

// step gives the director a step's packet.
func (d *Director) step(built builds, s *Step, vars map[string]string) (r Result, err error) {
	if s.At != nil {
		at, err := time.ParseDuration(expand(s.At.text, vars))
		if err != nil {
			return r, err
		}
		d.Advance(at)
	}
	if s.Down != nil {
		what, err := built.of(d.conf, s.Down, vars)
		if err == nil {
			err = d.publish(what)
		}
		if err != nil {
			return r, err
		}
	}
	in := 0
	if s.In != nil {
		in = max(0, slices.Index(d.Interfaces(), expand(s.In.text, vars)))
	}
	frame, err := s.Packet.frame(vars, d.what.Snapshot.Ports[in].MAC)
	if err != nil {
		return r, err
	}
	wire := len(frame)
	if s.Wire != nil {
		if wire, err = strconv.Atoi(expand(s.Wire.text, vars)); err != nil {
			return r, err
		}
	}
	r = d.Handle(in, frame, wire)
	for _, s := range d.Settled() { // frames that had waited for this one leave behind it
		r.Sent = append(r.Sent, s.Result.Sent...)
	}
	return r, nil
}

// compare returns how r differs from what was expected.
func (d *Director) compare(e *Expect, r *Result, vars map[string]string) (failures []string, err error) {
	if e == nil {
		return nil, nil
	}
	for _, c := range []struct {
		key  string
		want *word
		got  string
	}{
		{"verdict", e.Verdict, r.Verdict}, {"reason", e.Reason, r.Reason}, {"service", e.Service, r.Service}, {"flow", e.Flow, r.Flow},
	} {
		if c.want != nil && expand(c.want.text, vars) != c.got {
			failures = append(failures, fmt.Sprintf("%s is %s, want %s", c.key, quoted(c.got), quoted(expand(c.want.text, vars))))
		}
	}
	if e.Backend != nil {
		var names []string
		for _, w := range e.Backend.words {
			names = append(names, quoted(expand(w.text, vars)))
		}
		if !slices.Contains(names, quoted(r.Backend)) {
			failures = append(failures, fmt.Sprintf("backend is %s, want %s", quoted(r.Backend), strings.Join(names, " or ")))
		}
	}
	if e.Out == nil {
		return failures, nil
	}
	more, err := d.compareFrames(e.Out.words, r.Sent, vars)
	return append(failures, more...), err
}

func quoted(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func (d *Director) compareFrames(want []word, got []Sent, vars map[string]string) (failures []string, err error) {
	names := d.Interfaces()
	for i := range max(len(want), len(got)) {
		if i >= len(want) {
			failures = append(failures, fmt.Sprintf("frame %d was not expected: %s", i+1, got[i].String(names)))
			continue
		}
		name, text, _ := strings.Cut(strings.TrimSpace(expand(want[i].text, vars)), " ")
		if i < len(got) {
			text = anyID(text, got[i].Frame)
		} else {
			text = anyID(text, nil)
		}
		frame, err := notation.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("out: frame %d: %w", i+1, err)
		}
		switch {
		case i >= len(got):
			failures = append(failures, fmt.Sprintf("frame %d was not sent: %s %s", i+1, name, notation.Format(frame)))
		case names[got[i].Interface] != name || !bytes.Equal(got[i].Frame, frame):
			failures = append(failures, fmt.Sprintf("frame %d is not as expected:\n  got  %s\n  want %s %s", i+1, got[i].String(names), name, notation.Format(frame)))
		}
	}
	return failures, nil
}

// anyID puts the identification of the frame's outermost IPv4 header where an expectation leaves it open: a tunnel's depends on
// what is inside.
func anyID(text string, frame []byte) string {
	id := uint16(0)
	var p wire.Packet
	if wire.Parse(frame, &p); p.Kind < wire.KindMalformed && !p.V6 {
		id = binary.BigEndian.Uint16(frame[p.L3+4:])
	}
	return strings.Replace(text, " id=any", fmt.Sprintf(" id=%d", id), 1)
}

// String writes a frame as a case's `out` does.
func (s Sent) String(interfaces []string) string {
	return interfaces[s.Interface] + " " + notation.Format(s.Frame)
}
