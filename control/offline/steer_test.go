package offline

import (
	"os"
	"path/filepath"
	"testing"

	"xlvs/dataplane/notation"
	"xlvs/dataplane/steer"
)

// TestSteeringAgrees shows the packets of all cases to the steering program in the kernel: it must give the director just those
// that Decide gives it, for the same reason.
func TestSteeringAgrees(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root: it loads a BPF program, and CI must run it")
		}
		t.Skip("needs root: it loads a BPF program")
	}
	files, err := filepath.Glob("testdata/cases/*.yaml")
	fatal(t, err)
	k := &kernel{dry: map[[6]byte]*steer.DryRun{}}
	k.s, err = steer.Load()
	fatal(t, err)
	defer k.close(t)
	frames := 0
	for _, name := range files {
		f, err := LoadCases(name)
		fatal(t, err)
		for _, vars := range variants(f.Each) {
			frames += k.agree(t, f, vars)
		}
	}
	if frames < 250 {
		t.Errorf("only %d frames: the corpus is gone", frames)
	}
}

// kernel is the steering program, loaded once for each MAC address.
type kernel struct {
	s   *steer.Steerer
	dry map[[6]byte]*steer.DryRun
}

func (k *kernel) close(t *testing.T) {
	for _, d := range k.dry {
		fatal(t, d.Close())
	}
	fatal(t, k.s.Close())
}

// agree compares both for every packet of the file in one variant.
func (k *kernel) agree(t *testing.T, f *CaseFile, vars map[string]string) (frames int) {
	t.Helper()
	conf, err := f.config(vars)
	fatal(t, err)
	d, err := New(conf, Options{Flows: caseFlows})
	fatal(t, err)
	defer func() { fatal(t, d.Close()) }()
	fatal(t, k.s.Apply(d.what.Rules))
	dry := k.dry[d.what.Checked[0]]
	if dry == nil {
		dry, err = k.s.DryRun(d.what.Checked[0])
		fatal(t, err)
		k.dry[d.what.Checked[0]] = dry
	}
	for i := range f.Cases {
		c := &f.Cases[i]
		for _, inner := range variants(c.Each) {
			for j := range c.Steps {
				frame, err := c.Steps[j].Packet.frame(merge(vars, inner), d.what.Snapshot.Ports[0].MAC)
				fatal(t, err)
				if len(frame) <= 14 || len(frame) > 3500 {
					continue // the kernel runs programs on no others
				}
				frames++
				got, err := dry.Decide(frame)
				fatal(t, err)
				if want := steer.Decide(frame, d.rules[0]); got != want {
					t.Errorf("%s:%d: %s: the kernel says %s, Decide %s\n%s", f.Name, c.Name.line, c.Name.text, got.Reason, want.Reason, notation.Format(frame))
				}
			}
		}
	}
	return frames
}
