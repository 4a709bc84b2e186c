package steer

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// A DryRun is the steering program in the kernel, attached to nothing: it says what it would do with frames that it is
// shown (BPF_PROG_TEST_RUN). It is how Decide is held against the program.
type DryRun struct{ a *Attachment }

// DryRun loads the program with the Steerer's rules, for an interface with the given MAC address; zeros are none. The
// caller closes it before the Steerer.
func (s *Steerer) DryRun(mac [6]byte) (*DryRun, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, errClosed
	}
	a := &Attachment{steerer: s, name: "a dry run"}
	if err := s.spec.LoadAndAssign(&a.objects, &ebpf.CollectionOptions{MapReplacements: s.rules.byName()}); err != nil {
		return nil, explain("load the steering program for a dry run", err)
	}
	d := &DryRun{a}
	if err := a.SetMAC(mac[:]); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// Decide shows the program a frame of more than 14 bytes, which is what the kernel takes.
func (d *DryRun) Decide(frame []byte) (Verdict, error) {
	before, err := d.a.Counters()
	if err != nil {
		return Verdict{}, err
	}
	if _, err := d.a.objects.Program.Run(&ebpf.RunOptions{Data: frame}); err != nil {
		return Verdict{}, explain("run the steering program", err)
	}
	after, err := d.a.Counters()
	if err != nil {
		return Verdict{}, err
	}
	for i := range NoSocket {
		if after[i] != before[i] {
			return Verdict{Director: i.Director(), Reason: i}, nil
		}
	}
	return Verdict{}, fmt.Errorf("the steering program counted nothing")
}

// Close frees the program.
func (d *DryRun) Close() error { return d.a.objects.Close() }
