package wire

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"xlvs/dataplane"
)

// TestFavourSession runs itself in a session of its own, whose priority alone may change.
func TestFavourSession(t *testing.T) {
	if m := autogroup.FindStringSubmatch("/autogroup-123 nice -7\n"); m == nil || m[1] != "-7" {
		t.Errorf("%q", m)
	}
	if _, err := os.Stat(autogroupFile); err != nil {
		t.Skip("the kernel has no autogroups")
	}
	needRoot(t)
	read := func() string {
		t.Helper()
		b, err := os.ReadFile(autogroupFile)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	before := read()
	restore := favourSession()
	if changed := read() != before; changed != leadsSession() {
		t.Errorf("the session's priority changed: %v; the session is this process's own: %v", changed, leadsSession())
	}
	if err := restore(); err != nil || read() != before {
		t.Errorf("the session is %q, was %q, %v", read(), before, err)
	}
	if leadsSession() {
		return
	}
	again := exec.Command("/proc/self/exe", "-test.run", "^TestFavourSession$")
	again.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if out, err := again.CombinedOutput(); err != nil {
		t.Errorf("in a session of its own: %v\n%s", err, out)
	}
}

// TestClaimCores: everything is as before afterwards, also where the process did not have the ordinary priority.
func TestClaimCores(t *testing.T) {
	needRoot(t)
	const nice = 3
	var before, during, after unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		t.Fatal(err)
	}
	was, err := niceness()
	if err != nil {
		t.Fatal(err)
	}
	if err := moveThreads(&before, nice); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := moveThreads(&before, was); err != nil {
			t.Error(err)
		}
	}()
	processors := runtime.GOMAXPROCS(0)
	c, restore, err := claimCores()
	if err != nil {
		t.Fatal(err)
	}
	if n := runtime.GOMAXPROCS(0); n != dataplane.Processors(spinners) {
		t.Errorf("the runtime has %d processors while the forwarder and the generator hold one each", n)
	}
	if err := unix.SchedGetaffinity(0, &during); err != nil || during.IsSet(c.forwarder) || !during.IsSet(c.station) {
		t.Errorf("the process may run on the forwarder's core %d, %v", c.forwarder, err)
	}
	err = c.lend(func() error {
		var lent unix.CPUSet
		err := unix.SchedGetaffinity(0, &lent)
		if lent.Count() != 1 || !lent.IsSet(c.forwarder) {
			t.Error("what is started on the forwarder's core runs elsewhere")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := restore(); err != nil {
		t.Error(err)
	}
	if n := runtime.GOMAXPROCS(0); n != processors {
		t.Errorf("the runtime has %d processors, had %d", n, processors)
	}
	if err := unix.SchedGetaffinity(0, &after); err != nil || after != before {
		t.Errorf("the cores are not what they were, %v", err)
	}
	if n, err := niceness(); n != nice || err != nil {
		t.Errorf("the nice value is %d, was %d, %v", n, nice, err)
	}
}
