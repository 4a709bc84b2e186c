package main

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// needRights fails, before anything else can for the lack of them, unless this process may do what a director does: docs/running.md
// has the list. CAP_BPF and CAP_PERFMON are parts of CAP_SYS_ADMIN.
func needRights() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&header, &sets[0]); err != nil {
		return nil // what is missing, if anything, will be told of later
	}
	has := func(c int) bool { return sets[c/32].Effective&(1<<(c%32)) != 0 }
	var missing []string
	for _, need := range []struct {
		c, or int
		name  string
	}{
		{unix.CAP_NET_ADMIN, unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"},
		{unix.CAP_NET_RAW, unix.CAP_NET_RAW, "CAP_NET_RAW"},
		{unix.CAP_BPF, unix.CAP_SYS_ADMIN, "CAP_BPF"},
		{unix.CAP_PERFMON, unix.CAP_SYS_ADMIN, "CAP_PERFMON"},
	} {
		if !has(need.c) && !has(need.or) {
			missing = append(missing, need.name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("run needs root, or the capabilities that docs/running.md lists; this process lacks %s: run it with sudo", strings.Join(missing, ", "))
}
