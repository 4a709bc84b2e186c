package xsk

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/safchain/ethtool"
	"golang.org/x/sys/unix"
)

// tagParsing are the offloads by which a device takes the VLAN tag out of a received frame and hands it over beside it, by
// the kernel's names. AF_XDP and XDP programs see the frame without its tag then, as if it had come without.
var tagParsing = []string{"rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"}

// KeepTags makes the interface leave VLAN tags in the frames that it receives, in the calling thread's network namespace.
// restore makes it as it was; it may be called from any thread. stubborn is what could not be switched off.
func KeepTags(name string) (restore func() error, stubborn []string, err error) {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return nil, nil, fmt.Errorf("VLAN offloads of %s: %w", name, err)
	}
	before, err := parses(e, name)
	if err != nil || len(before) == 0 {
		e.Close()
		return func() error { return nil }, nil, err
	}
	refused := e.Change(name, switched(before, false))
	after, err := parses(e, name)
	if err != nil {
		e.Close()
		return nil, nil, err
	}
	off := slices.DeleteFunc(slices.Clone(before), func(f string) bool { return slices.Contains(after, f) })
	if refused != nil && len(after) > 0 {
		stubborn = append(stubborn, fmt.Sprintf("%s (%v)", strings.Join(after, ", "), refused))
	} else {
		stubborn = after
	}
	return func() error {
		defer e.Close()
		if len(off) == 0 {
			return nil
		}
		err := e.Change(name, switched(off, true))
		if errors.Is(err, unix.ENODEV) {
			return nil // it is gone, and its settings with it
		}
		if err != nil {
			return fmt.Errorf("switch %s of %s on again: %w", strings.Join(off, ", "), name, err)
		}
		return nil
	}, stubborn, nil
}

// parses returns which of tagParsing are on.
func parses(e *ethtool.Ethtool, name string) (on []string, err error) {
	features, err := e.Features(name)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("VLAN offloads of %s: %w", name, err)
	}
	for _, f := range tagParsing {
		if features[f] {
			on = append(on, f)
		}
	}
	return on, nil
}

func switched(names []string, on bool) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = on
	}
	return m
}
