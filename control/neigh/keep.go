package neigh

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
)

// A Setting is one of the kernel's that was changed, named as sysctl(8) takes it: net/ipv6/conf/eth0/keep_addr_on_down.
type Setting struct {
	Name    string
	Was, Is int
}

// A linkName is an interface at one time: made anew under the same name it is another, with the kernel's defaults.
type linkName struct {
	name  string
	index int
}

func keepSetting(name string) string { return "net/ipv6/conf/" + name + "/keep_addr_on_down" }

// KeepAddresses has the kernel keep the static IPv6 addresses of an interface, and with them the routes to their
// subnets, when the interface is set down, as it keeps IPv4 ones: by default it removes them for good. It
// returns what it changed, or nil if there was nothing to do; Close changes it back. The error says what will happen to the
// addresses, and what to do.
func (r *Resolver) KeepAddresses(name string) (*Setting, error) {
	f, ok := r.Interface(name)
	id := linkName{name, f.Index}
	r.mu.Lock()
	_, done := r.kept[id]
	r.mu.Unlock()
	if !ok || done {
		return nil, nil
	}
	all, err := r.kernel.setting(keepSetting("all"))
	if err != nil || all > 0 {
		return nil, lose(name, err)
	}
	is, err := r.kernel.setting(keepSetting(name))
	switch {
	case err != nil:
		return nil, lose(name, err)
	case all < 0:
		return nil, lose(name, forbidden(keepSetting("all"), all))
	case is < 0:
		return nil, lose(name, forbidden(keepSetting(name), is))
	case is > 0:
		return nil, nil
	}
	if err := r.kernel.set(keepSetting(name), 1); err != nil {
		return nil, lose(name, err)
	}
	r.mu.Lock()
	r.kept[id] = is
	r.mu.Unlock()
	return &Setting{Name: keepSetting(name), Was: is, Is: 1}, nil
}

func forbidden(setting string, value int) error {
	return errors.New(setting + " is " + strconv.Itoa(value) + ", which forbids it")
}

func lose(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("when %s is set down, the kernel will remove its IPv6 addresses, and IPv6 backends behind it stay out of reach until they are given back;"+
		" the director could not prevent it (%w): do it with `sysctl -w %s=1`", name, err, keepSetting(name))
}

// undoKeeping gives the kernel its settings back, but for those that somebody else has changed since. It is called when run has ended.
func (r *Resolver) undoKeeping() error {
	var errs []error
	for id, was := range r.kept {
		f, ok := r.seen[id.index]
		if !ok {
			continue // it took its settings with it
		}
		setting := keepSetting(f.Name) // it may have another name by now
		is, err := r.kernel.setting(setting)
		if err == nil && is == 1 {
			err = r.kernel.set(setting, was)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("set %s back to %d: %w", setting, was, err))
		}
	}
	return errors.Join(errs...)
}
