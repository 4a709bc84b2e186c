package wire

import (
	"context"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// autogroupFile has the priority of this process's session. It is not there in a kernel without sched_autogroup.
const autogroupFile = "/proc/self/autogroup"

func leadsSession() bool {
	sid, err := unix.Getsid(0)
	return err == nil && sid == unix.Getpid()
}

// OwnSession runs this program again, with the same arguments, in a session of its own whose priority ends with it, and waits
// for it. ran is false where that is of no use: the kernel has no priorities of sessions, or this process has a session already. The end of
// ctx is passed on as SIGINT, since the terminal tells its own session only; the death of this process, as SIGKILL.
func OwnSession(ctx context.Context) (status int, ran bool, err error) {
	if _, err := os.Stat(autogroupFile); err != nil || leadsSession() {
		return 0, false, nil
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = os.Args
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute // what was measured is still to be reported, and the lab to be taken down
	// The death signal comes when the thread that forked ends.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return 0, false, err
	}
	err = cmd.Wait()
	if cmd.ProcessState == nil {
		return 0, true, err
	}
	if !cmd.ProcessState.Exited() {
		return 0, true, err // a signal ended it
	}
	return cmd.ProcessState.ExitCode(), true, nil
}
