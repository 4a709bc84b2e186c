package testenv

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// crashEnv makes the test binary a program that sets a lab up and waits for its death.
const crashEnv = "XLVS_TESTENV_CRASH"

// crash brings a lab with a child process up, says so, and waits to be killed.
func crash() {
	l, err := New(context.Background(), Options{Servers: 1, Decap: noDecap})
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	p, err := l.Director.Start(l.Director.Command(context.Background(), "sleep", "60"))
	if err != nil {
		fmt.Println("error:", err)
		return
	}
	fmt.Println("child", p.Cmd.Process.Pid)
	_, _ = io.Copy(io.Discard, os.Stdin)
}

// startCrasher starts a process with a lab; kill ends it with SIGKILL. child is the process in its director.
func startCrasher(t *testing.T) (pid, child int, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// The death signal comes with the thread that forks.
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if _, e := fmt.Sscanf(line, "child %d", &child); e != nil {
		kill()
		t.Fatalf("the other process said %q: %v", line, err)
	}
	return cmd.Process.Pid, child, kill
}

func namespacesOf(t *testing.T, pid int) (names []string) {
	t.Helper()
	all, err := readDir(netnsDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range all {
		if m := nsName.FindStringSubmatch(n); m != nil && m[1] == strconv.Itoa(pid) {
			names = append(names, n)
		}
	}
	return names
}

// until waits for a condition.
func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !f(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited 5 s in vain: %s", what)
		}
		runtime.Gosched()
	}
}

func TestSweepAfterCrash(t *testing.T) {
	needRoot(t)
	pid, child, kill := startCrasher(t)
	defer kill()
	if n := len(namespacesOf(t, pid)); n != 6 {
		t.Errorf("the other lab has %d namespaces, want 6", n)
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	if n := len(namespacesOf(t, pid)); n != 6 {
		t.Fatalf("Sweep removed namespaces of a living process: %d of 6 are left", n)
	}
	kill()
	until(t, "the crashed lab's child process dies", func() bool { return dead(child) })
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	// Tests of another package may be sweeping the same lab at this moment; then Sweep has left it to them.
	until(t, "the lab's namespaces and its lock are gone", func() bool {
		_, err := os.Stat(lockPath(pid))
		return len(namespacesOf(t, pid)) == 0 && os.IsNotExist(err)
	})
	if m := labMounts(t, pid); len(m) != 0 {
		t.Errorf("mounts left: %v", m)
	}
}

// dead tells whether a process is gone, or a zombie that waits for its new parent.
func dead(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	return strings.HasPrefix(rest, "Z")
}

// A namespace under a living process' pid, but without its lock, is what pid reuse looks like.
func TestSweepIsNotFooledByPidReuse(t *testing.T) {
	needRoot(t)
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	pid := cmd.Process.Pid
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(netnsDir, fmt.Sprintf("xlvs-%d-old", pid))
	if err := os.WriteFile(path, nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/proc/self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	if err := Sweep(); err != nil {
		t.Fatal(err)
	}
	until(t, "the namespace is gone", func() bool { return len(namespacesOf(t, pid)) == 0 })
}

func labMounts(t *testing.T, pid int) (mounts []string) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, fmt.Sprintf("xlvs-%d-", pid)) || strings.Contains(line, fmt.Sprintf("xlvs-%d.", pid)) {
			mounts = append(mounts, line)
		}
	}
	return mounts
}
