package offline

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xlvs/dataplane"
)

// TestTracingChangesNothing runs every case with the pipeline's short way, which production takes, and by the long way, on which
// verdicts are noted: both must send the same frames and count the same.
func TestTracingChangesNothing(t *testing.T) {
	files, err := filepath.Glob("testdata/cases/*.yaml")
	fatal(t, err)
	for _, name := range files {
		f, err := LoadCases(name)
		fatal(t, err)
		for _, vars := range variants(f.Each) {
			conf, err := f.config(vars)
			fatal(t, err)
			built := builds{}
			for i := range f.Cases {
				for _, inner := range variants(f.Cases[i].Each) {
					what, err := built.of(conf, f.Cases[i].Down, merge(vars, inner))
					fatal(t, err)
					long, short := f.Cases[i].both(t, built, merge(vars, inner), func() *Director {
						d, err := start(conf, what, Options{Flows: caseFlows})
						fatal(t, err)
						return d
					})
					if diff := cmp.Diff(long, short); diff != "" {
						t.Errorf("%s:%d: %s (-long way +short):\n%s", name, f.Cases[i].Name.line, f.Cases[i].Name.text, diff)
					}
				}
			}
		}
	}
}

// An outcome is what can be seen of a director from outside.
type outcome struct {
	Sent     [][]Sent
	Counters dataplane.Counters
}

// both runs the case's steps with and without verdicts.
func (c *Case) both(t *testing.T, built builds, vars map[string]string, start func() *Director) (long, short outcome) {
	t.Helper()
	for _, o := range []*outcome{&long, &short} {
		d := start()
		if o == &short {
			d.engine.Trace(0, nil)
			d.blind = true
		}
		for i := range c.Steps {
			r, err := d.step(built, &c.Steps[i], vars)
			fatal(t, err)
			o.Sent = append(o.Sent, r.Sent)
		}
		o.Counters = d.Counters()
		o.Counters.Polls = 0 // one that knows that frames wait looks after them
		fatal(t, d.Close())
	}
	return long, short
}
