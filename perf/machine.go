package perf

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"xlvs/dataplane"
)

// A Machine is where figures were measured, as far as it bears on them. Empty fields are not known there.
type Machine struct {
	CPU       string     `json:"cpu"`
	MHz       float64    `json:"mhz"`
	Cores     int        `json:"cores"` // that the process may use
	L2        string     `json:"l2,omitempty"`
	L3        string     `json:"l3,omitempty"`
	MemoryMiB int        `json:"memory_mib"`
	Kernel    string     `json:"kernel"`
	Virtual   bool       `json:"virtual"` // a hypervisor runs it: other guests take time and cache
	Go        string     `json:"go"`
	Governor  string     `json:"governor,omitempty"`
	THP       string     `json:"thp"`  // /sys/kernel/mm/transparent_hugepage/enabled
	Load      [3]float64 `json:"load"` // averages over 1, 5 and 15 minutes when the run began
}

// ThisMachine describes the machine it runs on.
func ThisMachine() Machine {
	m := Machine{Go: runtime.Version() + " " + runtime.GOOS + "/" + runtime.GOARCH}
	info := cpuinfo()
	m.CPU = info["model name"]
	m.MHz, _ = strconv.ParseFloat(info["cpu MHz"], 64)
	m.Virtual = strings.Contains(" "+info["flags"]+" ", " hypervisor ")
	if cpus, err := dataplane.AllowedCPUs(); err == nil {
		m.Cores = len(cpus)
	}
	m.L2, m.L3 = cacheSize(2), cacheSize(3)
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	m.Governor = firstLine("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
	if _, after, ok := strings.Cut(firstLine("/sys/kernel/mm/transparent_hugepage/enabled"), "["); ok {
		m.THP, _, _ = strings.Cut(after, "]")
	}
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		m.MemoryMiB = int(si.Totalram * uint64(si.Unit) >> 20)
	}
	for i, f := range strings.Fields(firstLine("/proc/loadavg")) {
		if i < len(m.Load) {
			m.Load[i], _ = strconv.ParseFloat(f, 64)
		}
	}
	return m
}

// cpuinfo returns the first processor's part of /proc/cpuinfo.
func cpuinfo() map[string]string {
	out := map[string]string{}
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return out
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() && s.Text() != "" {
		k, v, _ := strings.Cut(s.Text(), ":")
		out[strings.TrimSpace(k)] = strings.TrimSpace(v)
	}
	return out
}

func cacheSize(level int) string {
	dirs, _ := filepath.Glob("/sys/devices/system/cpu/cpu0/cache/index*")
	for _, d := range dirs {
		if firstLine(d+"/level") == strconv.Itoa(level) {
			return firstLine(d + "/size")
		}
	}
	return ""
}

func firstLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line)
}
