package testenv

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	netnsDir = "/run/netns"
	lockDir  = "/run/xlvs-lab"
	prefix   = "xlvs-"
)

// nsName matches the namespaces of labs and captures the pid of the process that made them.
var nsName = regexp.MustCompile(`^xlvs-([0-9]+)(?:\.[0-9]+)?-.+$`)

// owner is this process' claim on the namespaces that carry its pid. The kernel drops a flock with the
// process, so another one can tell a crashed run from a living one even if the pid is in use again.
var owner struct {
	sync.Mutex
	file *os.File
	labs int // open labs
	next int // number of the next lab, so that names of labs in one process differ
}

// acquire claims this process' pid for one more lab and returns the lab's name prefix.
func acquire() (string, error) {
	owner.Lock()
	defer owner.Unlock()
	pid := os.Getpid()
	if owner.labs == 0 {
		if err := shareNetns(); err != nil {
			return "", fmt.Errorf("prepare %s: %w", netnsDir, err)
		}
		f, err := lockPID(pid, unix.LOCK_EX)
		if err != nil {
			return "", err
		}
		// What carries our pid already was left by an earlier process that had it.
		if err := removeNamespaces(pid); err != nil {
			return "", errors.Join(err, f.Close())
		}
		owner.file = f
	}
	name := prefix + strconv.Itoa(pid) + "-"
	if owner.next > 0 {
		name = fmt.Sprintf("%s%d.%d-", prefix, pid, owner.next)
	}
	owner.labs++
	owner.next++
	return name, nil
}

// shareNetns makes netnsDir a shared mount, as the first `ip netns add` after a boot does. Done later, while a lab
// is up, it would cover the lab's mounts with copies, and removing these would leave the namespaces alive below.
func shareNetns() error {
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(netnsDir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := flock(dir, unix.LOCK_EX); err != nil { // ip(8) takes the same lock
		return err
	}
	err = unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
	if !errors.Is(err, unix.EINVAL) {
		return err
	}
	// It is no mount point yet.
	if err := unix.Mount(netnsDir, netnsDir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	return unix.Mount("", netnsDir, "none", unix.MS_SHARED|unix.MS_REC, "")
}

// release gives up one lab's claim.
func release() error {
	owner.Lock()
	defer owner.Unlock()
	owner.labs--
	if owner.labs > 0 {
		return nil
	}
	f := owner.file
	owner.file, owner.next = nil, 0
	return unlockPID(f)
}

func lockPath(pid int) string { return filepath.Join(lockDir, strconv.Itoa(pid)) }

// lockPID takes the lock of a pid. how is LOCK_EX, which waits (for a Sweep that cleans up behind a
// former process of this pid), or LOCK_EX|LOCK_NB, which answers EWOULDBLOCK when the process lives.
func lockPID(pid, how int) (*os.File, error) {
	if err := os.MkdirAll(lockDir, 0o755); err != nil {
		return nil, err
	}
	for {
		f, err := os.OpenFile(lockPath(pid), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock(f, how); err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
		}
		// Whoever held the lock before may have removed the file: then this lock is on nothing.
		mine, err1 := f.Stat()
		current, err2 := os.Stat(f.Name())
		if err1 == nil && err2 == nil && os.SameFile(mine, current) {
			return f, nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// unlockPID removes the file before the lock goes, so that no two processes hold one pid's lock.
func unlockPID(f *os.File) error {
	return errors.Join(os.Remove(f.Name()), f.Close())
}

// Sweep removes the namespaces that labs of processes which are no more have left behind, and with them their
// links. It leaves alone the labs of living processes, this one's included, and those that another process is
// sweeping at the moment. New calls it.
func Sweep() error {
	pids, err := labPIDs()
	if err != nil {
		return err
	}
	var errs []error
	for pid := range pids {
		if pid == os.Getpid() {
			continue // ours; acquire looks after what a former owner of our pid left
		}
		f, err := lockPID(pid, unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, removeNamespaces(pid), unlockPID(f))
	}
	return errors.Join(errs...)
}

// labPIDs lists the processes that own, or owned, a lab: by their namespaces and by their locks.
func labPIDs() (map[int]bool, error) {
	pids := map[int]bool{}
	namespaces, err := readDir(netnsDir)
	if err != nil {
		return nil, err
	}
	for _, name := range namespaces {
		if m := nsName.FindStringSubmatch(name); m != nil {
			if pid, err := strconv.Atoi(m[1]); err == nil {
				pids[pid] = true
			}
		}
	}
	locks, err := readDir(lockDir)
	if err != nil {
		return nil, err
	}
	for _, name := range locks {
		if pid, err := strconv.Atoi(name); err == nil {
			pids[pid] = true
		}
	}
	return pids, nil
}

func removeNamespaces(pid int) error {
	names, err := readDir(netnsDir)
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		if m := nsName.FindStringSubmatch(name); m != nil && m[1] == strconv.Itoa(pid) {
			errs = append(errs, removeNamespace(name))
		}
	}
	return errors.Join(errs...)
}

// readDir returns the names in a directory; none if there is no such directory.
func readDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names, nil
}
