package xsk

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// A mapping is one line of /proc/self/maps that shows part of a socket.
type mapping struct {
	start, end uintptr
	offset     uint64
	inode      uint64
}

// socketMappings returns this process's mappings of sockets.
func socketMappings() ([]mapping, error) {
	text, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	return parseMaps(text), nil
}

// parseMaps picks the mappings of sockets from text in the format of proc_pid_maps(5):
//
//	7f0a2c000000-7f0a2c009000 rw-s 100000000 00:08 4242    socket:[4242]
func parseMaps(text []byte) []mapping {
	var out []mapping
	sc := bufio.NewScanner(bytes.NewReader(text))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) != 6 || !strings.HasPrefix(f[5], "socket:[") {
			continue
		}
		lo, hi, ok := strings.Cut(f[0], "-")
		start, err1 := strconv.ParseUint(lo, 16, 64)
		end, err2 := strconv.ParseUint(hi, 16, 64)
		offset, err3 := strconv.ParseUint(f[2], 16, 64)
		inode, err4 := strconv.ParseUint(f[4], 10, 64)
		if !ok || errors.Join(err1, err2, err3, err4) != nil || end <= start {
			continue
		}
		out = append(out, mapping{uintptr(start), uintptr(end), offset, inode})
	}
	return out
}

func socketInode(fd int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	return st.Ino, nil
}

// unmapSocket removes every mapping of the socket with this inode. A socket lives as long
// as one of its rings is mapped, and keeps its queue: binding it again answers EBUSY.
func unmapSocket(inode uint64) error {
	maps, err := socketMappings()
	if err != nil {
		return err
	}
	for _, m := range maps {
		if m.inode == inode {
			err = errors.Join(err, munmap(m))
		}
	}
	return err
}

// unmapOrphans removes the ring mappings of AF_XDP sockets that no descriptor refers to any
// more: asavie/xdp leaves them behind when it fails to open a socket. Nothing can use
// them, as the Socket that pointed there was never returned. No other kind of
// socket can be mapped at the fill ring's offset, so nobody else's mapping is touched.
func unmapOrphans() error {
	maps, err := socketMappings()
	if err != nil {
		return err
	}
	orphan := map[uint64]bool{}
	for _, m := range maps {
		if m.offset == unix.XDP_UMEM_PGOFF_FILL_RING {
			orphan[m.inode] = true
		}
	}
	if len(orphan) == 0 {
		return nil
	}
	fds, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		return err
	}
	for _, fd := range fds {
		target, err := os.Readlink(fd)
		var inode uint64
		if err == nil {
			if _, err := fmt.Sscanf(target, "socket:[%d]", &inode); err == nil {
				delete(orphan, inode)
			}
		}
	}
	for _, m := range maps {
		if orphan[m.inode] {
			err = errors.Join(err, munmap(m))
		}
	}
	return err
}

func munmap(m mapping) error {
	_, _, errno := unix.Syscall(unix.SYS_MUNMAP, m.start, m.end-m.start, 0)
	if errno != 0 {
		return fmt.Errorf("munmap of a ring: %w", errno)
	}
	return nil
}
