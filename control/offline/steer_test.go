package offline

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"xlvs/dataplane/notation"
	"xlvs/dataplane/steer"
)

// TestSteeringAgrees shows the packets of all cases to the steering program in the kernel, as it is attached to each interface
// of the case's configuration, and some that are drawn from what its rules name: it must give the director just those
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
	k := &kernel{T: t, dry: map[[6]byte]*steer.DryRun{}, reached: map[steer.Reason]int{}, interfaces: map[int]int{}}
	k.s, err = steer.Load()
	fatal(t, err)
	defer k.close()
	const seed = 11
	rng := rand.New(rand.NewPCG(seed, seed))
	cases := 0
	for _, name := range files {
		f, err := LoadCases(name)
		fatal(t, err)
		for _, vars := range variants(f.Each) {
			cases += k.agree(f, vars, rng)
		}
	}
	if cases < 1000 || k.interfaces[1] == 0 {
		t.Errorf("only %d frames, on interfaces %v: the corpus is gone", cases, k.interfaces)
	}
	for reason := range steer.NoSocket {
		if n := k.reached[reason]; n < 10 && reason != steer.Shed {
			t.Errorf("only %d frames were %s: what is drawn is too weak", n, reason)
		}
	}
}

// kernel is the steering program, loaded once for each MAC address.
type kernel struct {
	*testing.T
	s   *steer.Steerer
	dry map[[6]byte]*steer.DryRun

	reached    map[steer.Reason]int
	interfaces map[int]int // frames of cases by interface
}

func (k *kernel) close() {
	for _, d := range k.dry {
		fatal(k.T, d.Close())
	}
	fatal(k.T, k.s.Close())
}

// drawn is how many packets are drawn for each interface of each configuration.
const drawn = 600

// agree compares both for every packet of the file in one variant, and for as many that are drawn.
func (k *kernel) agree(f *CaseFile, vars map[string]string, rng *rand.Rand) (frames int) {
	k.Helper()
	conf, err := f.config(vars)
	fatal(k.T, err)
	d, err := New(conf, Options{Flows: caseFlows})
	fatal(k.T, err)
	defer func() { fatal(k.T, d.Close()) }()
	fatal(k.T, k.s.Apply(d.what.Rules))
	for i := range f.Cases {
		c := &f.Cases[i]
		for _, inner := range variants(c.Each) {
			for j := range c.Steps {
				for n := range d.rules {
					frame, err := c.Steps[j].Packet.frame(merge(vars, inner), d.what.Snapshot.Ports[n].MAC)
					fatal(k.T, err)
					frames++
					k.interfaces[n]++
					k.compare(d.what.Checked[n], d.rules[n], frame, fmt.Sprintf("%s:%d: %s", f.Name, c.Name.line, c.Name.text))
				}
			}
		}
	}
	g := newGrid(rng, d.what.Rules)
	for n := range d.rules {
		for range drawn {
			text := g.frame(d.what.Snapshot.Ports[n].MAC)
			frame, err := notation.Parse(text)
			if err != nil {
				k.Fatalf("%s: %v", text, err)
			}
			k.compare(d.what.Checked[n], d.rules[n], frame, f.Name)
			k.compare([6]byte{}, d.rules[n].WithMAC([6]byte{}), frame, f.Name+", without a MAC address")
		}
	}
	return frames
}

// compare shows a frame to the program as it is attached to an interface with a MAC address, and to Decide.
func (k *kernel) compare(mac [6]byte, rules *steer.RuleSet, frame []byte, what string) {
	k.Helper()
	if len(frame) <= 14 || len(frame) > 3500 {
		return // the kernel runs programs on no others
	}
	dry := k.dry[mac]
	if dry == nil {
		var err error
		dry, err = k.s.DryRun(mac)
		fatal(k.T, err)
		k.dry[mac] = dry
	}
	got, err := dry.Decide(frame)
	fatal(k.T, err)
	k.reached[got.Reason]++
	if want := steer.Decide(frame, rules); got != want {
		k.Errorf("%s: for %x the kernel says %s, Decide %s\n%s", what, mac, got.Reason, want.Reason, notation.Format(frame))
	}
}
