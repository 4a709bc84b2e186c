package steer

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/cilium/ebpf"
)

// batch is how many entries go into one system call. The kernel has batches for hash maps since 5.6, links for XDP
// since 5.9, so there is no other way to fall back to. Tries have batches only since 5.13, and few entries: theirs go singly.
const batch = 4096

// A change brings one map from what it holds to what it should hold.
type change[K comparable] struct {
	name   string
	m      *ebpf.Map
	keys   []K // missing, or there with another value
	values []role
	stale  []K
	err    error // of reading the map; add returns it
}

// plan reads the map and compares. Only the caller, under its lock, changes the map meanwhile.
func plan[K comparable](name string, m *ebpf.Map, want map[K]role) *change[K] {
	c := &change[K]{name: name, m: m}
	right := make(map[K]struct{}, len(want))
	c.err = readMap(m, func(k K, have role) {
		value, wanted := want[k]
		switch {
		case !wanted:
			c.stale = append(c.stale, k)
		case value == have:
			right[k] = struct{}{}
		}
	})
	for k, value := range want {
		if _, ok := right[k]; !ok {
			c.keys, c.values = append(c.keys, k), append(c.values, value)
		}
	}
	return c
}

func readMap[K comparable](m *ebpf.Map, each func(K, role)) error {
	if m.Type() == ebpf.LPMTrie {
		var k K
		var v role
		entries := m.Iterate()
		for entries.Next(&k, &v) {
			each(k, v)
		}
		return entries.Err()
	}
	keys, values := make([]K, batch), make([]role, batch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			each(keys[i], values[i])
		}
		// That is how the kernel says that it has come to the end.
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// nothing reports whether the map holds what it should.
func (c *change[K]) nothing() bool { return c.err == nil && len(c.keys) == 0 && len(c.stale) == 0 }

func (c *change[K]) add() error {
	if c.err != nil {
		return fmt.Errorf("steering: read the map of %s: %w", c.name, c.err)
	}
	for from := 0; from < len(c.keys); from += batch {
		to := min(from+batch, len(c.keys))
		put := func() error { return update(c.m, c.keys[from:to], c.values[from:to]) }
		err := put()
		if full(err) && len(c.stale) > 0 {
			// Old and new do not fit together: rather a gap for the few that are not in yet than no update.
			if err := c.remove(); err != nil {
				return err
			}
			err = put()
		}
		if full(err) {
			return fmt.Errorf("steering: more %s than the %d that fit: %w", c.name, c.m.MaxEntries(), err)
		}
		if err != nil {
			return fmt.Errorf("steering: add to the map of %s: %w", c.name, err)
		}
	}
	return nil
}

func (c *change[K]) remove() error {
	for keys := range slices.Chunk(c.stale, batch) {
		if err := remove(c.m, keys); err != nil {
			return fmt.Errorf("steering: remove from the map of %s: %w", c.name, err)
		}
	}
	c.stale = nil
	return nil
}

// full reports whether a map has no room: hash maps say E2BIG, tries ENOSPC.
func full(err error) bool { return errors.Is(err, syscall.E2BIG) || errors.Is(err, syscall.ENOSPC) }

func update[K comparable](m *ebpf.Map, keys []K, values []role) error {
	if m.Type() != ebpf.LPMTrie {
		_, err := m.BatchUpdate(keys, values, nil)
		return err
	}
	for i := range keys {
		if err := m.Update(&keys[i], &values[i], ebpf.UpdateAny); err != nil {
			return err
		}
	}
	return nil
}

func remove[K comparable](m *ebpf.Map, keys []K) error {
	if m.Type() != ebpf.LPMTrie {
		_, err := m.BatchDelete(keys, nil)
		return err
	}
	for i := range keys {
		if err := m.Delete(&keys[i]); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
	}
	return nil
}
