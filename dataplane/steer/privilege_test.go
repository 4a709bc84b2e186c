package steer

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// withCapabilities runs do on a thread that has these capabilities alone and ends with it. To have none, it takes none.
func withCapabilities(t *testing.T, do func() error, caps ...int) error {
	t.Helper()
	if len(caps) > 0 {
		requireRoot(t)
	}
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the runtime throws the thread away, and its missing rights with it.
		runtime.LockOSThread()
		var data [2]unix.CapUserData
		for _, c := range caps {
			data[c/32].Effective |= 1 << (c % 32)
			data[c/32].Permitted |= 1 << (c % 32)
		}
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		if err := unix.Capset(&header, &data[0]); err != nil {
			result <- err
			return
		}
		result <- do()
	}()
	return <-result
}

// instance loads all that an attachment needs, attaching apart.
func instance() error {
	s, err := Load()
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.Apply(testRules()); err != nil {
		return err
	}
	// The program gets as far as the link, which no interface with this index lets it have.
	if _, err := s.Attach(1<<30, "none", Auto); err == nil || !strings.Contains(err.Error(), "no interface") {
		return err
	}
	d, err := LoadDecap(nil, nil)
	if err != nil {
		return err
	}
	return d.Close()
}

func TestLoadsWithNoMoreThanItSaysItNeeds(t *testing.T) {
	needed := []int{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN}
	if err := withCapabilities(t, instance, needed...); err != nil {
		t.Errorf("with what it needs: %v", err)
	}
	for i, c := range needed {
		err := withCapabilities(t, instance, append(needed[:i:i], needed[i+1:]...)...)
		if err == nil || !strings.Contains(err.Error(), "run as root") {
			t.Errorf("without capability %d: %v", c, err)
		}
	}
}

func TestLoadWithoutRightsSaysWhatIsMissing(t *testing.T) {
	for name, load := range map[string]func() error{
		"steering":     func() error { _, err := Load(); return err },
		"decapsulator": func() error { _, err := LoadDecap(nil, nil); return err },
	} {
		err := withCapabilities(t, load)
		if err == nil || !strings.Contains(err.Error(), "CAP_BPF") || !strings.Contains(err.Error(), "root") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
