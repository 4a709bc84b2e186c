package testenv

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Process is a child process inside a namespace. It dies with the lab, and with this process.
type Process struct {
	Host *Host
	Cmd  *exec.Cmd // read only

	done chan struct{}
	err  error // of Cmd.Wait, once done is closed
}

// Command prepares a command for Start or Run; ctx ends it with SIGKILL. The caller may set all
// fields of it, but not SysProcAttr.Pdeathsig.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	// A grandchild that keeps a pipe open must not keep Wait from returning.
	cmd.WaitDelay = 2 * time.Second
	return cmd
}

// Start starts a command in the namespace, with a /sys that shows the namespace's interfaces, as `ip netns exec` does.
func (h *Host) Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{Host: h, Cmd: cmd, done: make(chan struct{})}
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	started := make(chan error, 1)
	go onThreadToEnd(func() {
		defer close(p.done)
		// The death signal comes when the *thread* that forked ends, so this one waits for the child.
		if err := h.enter(); err != nil {
			started <- err
			return
		}
		if err := ownSys(); err != nil {
			started <- fmt.Errorf("mount /sys for a process on %s: %w", h.Name, err)
			return
		}
		if err := cmd.Start(); err != nil {
			started <- fmt.Errorf("start %s on %s: %w", cmd.Path, h.Name, err)
			return
		}
		started <- nil
		p.err = cmd.Wait()
	})
	if err := <-started; err != nil {
		<-p.done
		return nil, err
	}
	h.lab.atClose(func() error { p.Kill(); return nil })
	return p, nil
}

// Run starts a command and waits for its end.
func (h *Host) Run(cmd *exec.Cmd) error {
	p, err := h.Start(cmd)
	if err != nil {
		return err
	}
	return p.Wait()
}

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the process and returns what exec.Cmd.Wait returned.
func (p *Process) Wait() error {
	<-p.done
	return p.err
}

// Signal sends a signal; to a process that has ended it does nothing.
func (p *Process) Signal(s os.Signal) error {
	if err := p.Cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Kill ends the process with SIGKILL and waits for it.
func (p *Process) Kill() {
	// The only error is that the process has ended.
	_ = p.Cmd.Process.Kill()
	<-p.done
}

// ownSys gives the calling thread a mount namespace whose /sys belongs to the thread's network namespace.
// The old one stays below it, so that the BPF file system can be mounted again where programs look for it.
func ownSys() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	// Slave, not private: when the lab unmounts its namespaces in /run/netns, the child must not keep them.
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return err
	}
	const bpffs = "/sys/fs/bpf"
	var st unix.Statfs_t
	old := -1
	if err := unix.Statfs(bpffs, &st); err == nil && st.Type == unix.BPF_FS_MAGIC {
		if old, err = unix.Open(bpffs, unix.O_PATH|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		defer unix.Close(old)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return err
	}
	if old < 0 {
		return nil
	}
	return unix.Mount(fmt.Sprintf("/proc/thread-self/fd/%d", old), bpffs, "", unix.MS_BIND, "")
}
