package xsk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A sysfs is a view of /sys/class/net that belongs to a network namespace, whatever is mounted at /sys.
type sysfs struct{ dir string }

// openSysfs finds the view of the calling thread's network namespace. The /sys that everybody sees shows
// the namespace in which it was mounted; if that is another one, a file system of its own, mounted nowhere, is
// opened (fsopen(2), Linux 5.2, CAP_SYS_ADMIN). close must be called.
func openSysfs(name string, ifindex int) (s sysfs, close func(), err error) {
	s = sysfs{"/sys/class/net"}
	if s.shows(name, ifindex) {
		return s, func() {}, nil
	}
	fs, err := unix.Fsopen("sysfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return s, nil, fmt.Errorf("/sys does not show %s, and opening another view of it failed: %w", name, err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return s, nil, fmt.Errorf("/sys does not show %s, and making another view of it failed: %w", name, err)
	}
	root, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return s, nil, fmt.Errorf("/sys does not show %s, and opening another view of it failed: %w", name, err)
	}
	s.dir = fmt.Sprintf("/proc/self/fd/%d/class/net", root)
	if !s.shows(name, ifindex) {
		return s, nil, errors.Join(fmt.Errorf("sysfs does not show interface %s", name), unix.Close(root))
	}
	return s, func() { _ = unix.Close(root) }, nil
}

func (s sysfs) shows(name string, ifindex int) bool {
	text, err := s.read(name, "ifindex")
	if err != nil {
		return false
	}
	n, err := strconv.Atoi(text)
	return err == nil && n == ifindex
}

func (s sysfs) read(name, file string) (string, error) {
	b, err := os.ReadFile(filepath.Join(s.dir, name, file))
	return strings.TrimSpace(string(b)), err
}

func (s sysfs) write(name, file, value string) error {
	return os.WriteFile(filepath.Join(s.dir, name, file), []byte(value), 0)
}

// SetAttributes writes files of /sys/class/net/NAME in the calling thread's network namespace, in the order given, and
// returns a function that writes back what was there before; it may be called from any thread. On an error
// nothing is changed.
func SetAttributes(name string, attributes []Attribute) (restore func() error, err error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("settings of %s: %w", name, err)
	}
	s, closeSysfs, err := openSysfs(name, link.Attrs().Index)
	if err != nil {
		return nil, err
	}
	var before []Attribute
	restore = func() error {
		defer closeSysfs()
		var errs []error
		for i := len(before) - 1; i >= 0; i-- {
			// An interface that is gone has taken its settings with it.
			if err := s.write(name, before[i].File, before[i].Value); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	}
	for _, a := range attributes {
		old, err := s.read(name, a.File)
		if err == nil {
			if err = s.write(name, a.File, a.Value); err == nil {
				before = append(before, Attribute{a.File, old})
				continue
			}
		}
		return nil, errors.Join(fmt.Errorf("set %s of %s to %s: %w", a.File, name, a.Value, err), restore())
	}
	return restore, nil
}

// Attributes reads files of /sys/class/net/NAME in the calling thread's network namespace.
func Attributes(name string, files ...string) (list []Attribute, err error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, fmt.Errorf("settings of %s: %w", name, err)
	}
	s, closeSysfs, err := openSysfs(name, link.Attrs().Index)
	if err != nil {
		return nil, err
	}
	defer closeSysfs()
	for _, f := range files {
		value, err := s.read(name, f)
		if err != nil {
			return nil, fmt.Errorf("read %s of %s: %w", f, name, err)
		}
		list = append(list, Attribute{f, value})
	}
	return list, nil
}

// An Attribute is a file of /sys/class/net/NAME and what it holds.
type Attribute struct{ File, Value string }
