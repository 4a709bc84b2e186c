package steer

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/cilium/ebpf"
)

// A change brings one map from what it holds to what it should hold.
type change[K comparable] struct {
	name  string
	m     *ebpf.Map
	put   map[K]role // missing, or there with another value
	stale []K
	err   error // of reading the map; add returns it
}

// plan reads the map and compares. Only the caller, under its lock, changes the map meanwhile.
func plan[K comparable](name string, m *ebpf.Map, want map[K]role) *change[K] {
	c := &change[K]{name: name, m: m, put: make(map[K]role)}
	var k K
	var have role
	seen := make(map[K]struct{}, len(want))
	entries := m.Iterate()
	for entries.Next(&k, &have) {
		value, wanted := want[k]
		switch {
		case !wanted:
			c.stale = append(c.stale, k)
		case value == have:
			seen[k] = struct{}{}
		}
	}
	c.err = entries.Err()
	for k, value := range want {
		if _, ok := seen[k]; !ok {
			c.put[k] = value
		}
	}
	return c
}

func (c *change[K]) add() error {
	if c.err != nil {
		return fmt.Errorf("steering: read the map of %s: %w", c.name, c.err)
	}
	for k, value := range c.put {
		err := c.m.Update(k, value, ebpf.UpdateAny)
		if errors.Is(err, syscall.E2BIG) && len(c.stale) > 0 {
			// Old and new do not fit together: rather a gap for the few that are not in yet than no update.
			if err := c.remove(); err != nil {
				return err
			}
			err = c.m.Update(k, value, ebpf.UpdateAny)
		}
		if errors.Is(err, syscall.E2BIG) {
			return fmt.Errorf("steering: more %s than the %d that fit: %w", c.name, c.m.MaxEntries(), err)
		}
		if err != nil {
			return fmt.Errorf("steering: add to the map of %s: %w", c.name, err)
		}
	}
	return nil
}

func (c *change[K]) remove() error {
	for _, k := range c.stale {
		if err := c.m.Delete(k); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("steering: remove from the map of %s: %w", c.name, err)
		}
	}
	c.stale = nil
	return nil
}
