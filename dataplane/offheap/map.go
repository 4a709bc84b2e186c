package offheap

import (
	"fmt"

	"golang.org/x/sys/unix"
)

const hugePage = 2 << 20

// reserve maps size bytes.
func reserve(size int, populate bool) ([]byte, *Region, error) {
	length := size
	if size >= hugePage {
		length = (size+hugePage-1)/hugePage*hugePage + hugePage
	}
	flags := unix.MAP_PRIVATE | unix.MAP_ANONYMOUS | unix.MAP_NORESERVE
	m, err := unix.Mmap(-1, 0, length, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return nil, nil, fmt.Errorf("reserve %d MiB for a table: %w; ask for fewer flows, or raise the memory limit", length>>20, err)
	}
	r := &Region{mapping: m}
	aligned := m
	if size >= hugePage {
		skip := int(-addressOf(m) & (hugePage - 1))
		aligned = m[skip : skip+(size+hugePage-1)/hugePage*hugePage]
		r.huge = unix.Madvise(aligned, unix.MADV_HUGEPAGE) == nil
	}
	if populate {
		if err := fault(aligned); err != nil {
			_ = r.Free()
			return nil, nil, fmt.Errorf("fill in %d MiB for a table: %w; ask for fewer flows, or add memory", length>>20, err)
		}
	}
	return aligned, r, nil
}

// fault touches every page: MADV_POPULATE_WRITE where the kernel has it (5.14), by hand elsewhere.
func fault(b []byte) error {
	err := unix.Madvise(b, unix.MADV_POPULATE_WRITE)
	if err == nil || err == unix.ENOMEM {
		return err
	}
	for i := 0; i < len(b); i += 4096 {
		b[i] = 0
	}
	return nil
}

// Free unmaps the region. Slices of it must not be used any more.
func (r *Region) Free() error {
	if r == nil || r.mapping == nil {
		return nil
	}
	m := r.mapping
	r.mapping = nil
	return unix.Munmap(m)
}
