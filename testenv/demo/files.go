package demo

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A workdir is the directory of one demo's files. It is locked while the demo runs, and has a file that says so until the demo is
// over: one with that file and no lock was left by a demo that was killed. One without was kept on purpose.
type workdir struct {
	path string
	lock *os.File
}

const (
	workdirs = "xlvs-demo-*"
	mark     = "running"
)

// newWorkdir removes what killed demos have left, and makes a new directory. remove or keep must follow.
func newWorkdir() (*workdir, error) {
	sweep()
	path, err := os.MkdirTemp("", workdirs)
	if err != nil {
		return nil, err
	}
	w := &workdir{path: path}
	if w.lock, err = os.Open(path); err == nil {
		err = flock(w.lock, unix.LOCK_EX) // a demo that sweeps may have it for a moment
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(path, mark), nil, 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, w.remove())
	}
	return w, nil
}

// remove removes the directory.
func (w *workdir) remove() error {
	defer w.lock.Close()
	return os.RemoveAll(w.path)
}

// keep leaves the directory to the user.
func (w *workdir) keep() error {
	defer w.lock.Close()
	return os.Remove(filepath.Join(w.path, mark))
}

// sweep removes this user's directories of demos that were killed. What cannot be removed stays: it is no reason not to begin.
func sweep() {
	found, err := filepath.Glob(filepath.Join(os.TempDir(), workdirs))
	if err != nil {
		return
	}
	for _, path := range found {
		sweepOne(path)
	}
}

func sweepOne(path string) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	dir := os.NewFile(uintptr(fd), path)
	defer dir.Close()
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || int(st.Uid) != os.Geteuid() || flock(dir, unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	if _, err := os.Lstat(filepath.Join(path, mark)); err == nil {
		_ = os.RemoveAll(path)
	}
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
