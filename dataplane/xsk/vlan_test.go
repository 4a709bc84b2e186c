package xsk

import (
	"maps"
	"runtime"
	"strings"
	"testing"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netns"
)

func tagOffloads(t *testing.T, name string) map[string]bool {
	t.Helper()
	e, err := ethtool.NewEthtool()
	must(t, err)
	defer e.Close()
	all, err := e.Features(name)
	must(t, err)
	got := map[string]bool{}
	for _, f := range tagParsing {
		got[f] = all[f]
	}
	return got
}

// A veth has both offloads on. They go off, and come back from whatever thread: one that is in another namespace too.
func TestKeepTags(t *testing.T) {
	l := newLab(t, 1, 1)
	name := l.links[0].Attrs().Name
	before := tagOffloads(t, name)
	if !before[tagParsing[0]] || !before[tagParsing[1]] {
		t.Fatalf("a veth has %v, so nothing would be tested", before)
	}
	fds := openFiles(t)
	restore, stubborn, err := KeepTags(name)
	must(t, err)
	if got := tagOffloads(t, name); len(stubborn) > 0 || got[tagParsing[0]] || got[tagParsing[1]] {
		t.Errorf("after switching off: %v, stubborn %v", got, stubborn)
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends
		if err := netns.Set(l.generator); err != nil {
			done <- err
			return
		}
		done <- restore()
	}()
	must(t, <-done)
	if got := tagOffloads(t, name); !maps.Equal(got, before) {
		t.Errorf("after restoring: %v, want %v", got, before)
	}
	if n := openFiles(t); n != fds {
		t.Errorf("%d files are open, were %d", n, fds)
	}
	if _, _, err := KeepTags("none0"); err == nil || !strings.Contains(err.Error(), "VLAN offloads of none0") {
		t.Errorf("an interface that is not there: %v", err)
	}
}

// An interface without these offloads has nothing to switch.
func TestKeepTagsOfLoopback(t *testing.T) {
	newLab(t, 1, 1)
	restore, stubborn, err := KeepTags("lo")
	must(t, err)
	if len(stubborn) > 0 {
		t.Errorf("stubborn: %v", stubborn)
	}
	must(t, restore())
}
