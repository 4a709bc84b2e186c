package config

import (
	"fmt"
	"math/bits"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"xlvs/dataplane/table"
)

// Limits that the data plane and the kernel set.
const (
	minFlows, maxFlows = 1 << 10, 1 << 26
	maxInterfaces      = table.MaxPorts
	maxVLANs           = table.MaxVLANs // over all interfaces
	maxVLAN            = 4094           // 4095 is reserved: IEEE 802.1Q, table 9-2
	maxServices        = table.MaxServices
	maxBackends        = table.MaxBackends // over all services
	maxCPU             = 8191              // NR_CPUS of the largest kernels
	maxQueue           = 4095
	maxInterfaceName   = 15                  // IFNAMSIZ without its final zero, linux/if.h
	maxSocketPath      = 107                 // sun_path without its final zero, unix(7)
	maxTimeout         = 24 * 24 * time.Hour // the data plane counts milliseconds in 31 bits
	maxName            = 128
)

// A validator checks a Config whose defaults are filled in.
type validator struct{ *report }

func (v *validator) config(c *Config) {
	if v.bad[c] {
		return
	}
	v.director(&c.Director)
	v.interfaces(c)
	if len(c.Services) > maxServices {
		v.value(&c.Services, "", fmt.Sprintf("there are %d services", len(c.Services)), fmt.Sprintf("a director serves at most %d; move some to another", maxServices))
	}
	names, keys, backends := make(map[string]position), make(map[serviceKey]string), 0
	for i := range c.Services {
		s := &c.Services[i]
		if v.bad[s] {
			continue
		}
		where := label("service", i, s.Name)
		v.name(&s.Name, s, where, "service", names)
		v.service(s, where)
		v.uniqueAddress(s, where, keys)
		backends += len(s.Backends)
	}
	v.loops(c, keys)
	if backends > maxBackends {
		v.value(&c.Services, "", fmt.Sprintf("there are %d backends in all", backends), fmt.Sprintf("a director has at most %d; move some services to another", maxBackends))
	}
}

func (v *validator) director(d *Director) {
	where := "director"
	for i, cpu := range d.CPUs {
		if v.number(&d.CPUs[i], where, "a CPU", cpu, 0, maxCPU, d) && slices.Contains(d.CPUs[:i], cpu) {
			v.value(&d.CPUs[i], where, fmt.Sprintf("CPU %d is listed twice", cpu), "list each CPU once: a worker has a core to itself")
		}
	}
	v.number(&d.Flows, where, "flows", d.Flows, minFlows, maxFlows, d)
	v.number(&d.Realtime, where, "realtime", d.Realtime, 0, 99, d)
	if d.MemoryLimit != 0 {
		v.number(&d.MemoryLimit, where, "memory_limit", d.MemoryLimit, 64, 1<<20, d)
	}
	switch {
	case !filepath.IsAbs(d.API):
		v.value(&d.API, where, fmt.Sprintf("api is %s, which is not an absolute path", shorten(d.API)), "write the socket's whole path, such as /run/xlvs.sock", d)
	case len(d.API) > maxSocketPath:
		v.value(&d.API, where, fmt.Sprintf("the path of api has %d bytes", len(d.API)), fmt.Sprintf("a unix socket's path has at most %d (unix(7)); use a shorter one", maxSocketPath), d)
	case isDirectory(d.API):
		v.value(&d.API, where, fmt.Sprintf("api is %s, which is a directory", shorten(d.API)), "write the socket's whole path, such as "+filepath.Join(d.API, "xlvs.sock"), d)
	}
	v.word(&d.Idle.Mode, where+": idle", "mode", d.Idle.Mode, []string{"adaptive", "busy"}, &d.Idle)
	v.duration(&d.Idle.Spin, where+": idle", "spin", d.Idle.Spin, time.Nanosecond, time.Second, &d.Idle)
	v.word(&d.BusyPoll, where, "busy_poll", d.BusyPoll, []string{"auto", "on", "off"}, d)
	v.word(&d.Shed, where, "shed", d.Shed, []string{"auto", "off"}, d)
	v.log(&d.Log, where+": log")
	if d.Log.File == d.API {
		v.value(&d.Log.File, where+": log", fmt.Sprintf("file is %s, which is the socket of api", shorten(d.Log.File)), "write another path", d)
	}
	v.timeouts(&d.Timeouts, where+": timeouts")
	v.memory(&d.Memory, where+": memory")
}

func (v *validator) log(l *Log, where string) {
	v.word(&l.Level, where, "level", l.Level, []string{"debug", "info", "warn", "error"}, l)
	switch {
	case l.File == "":
		v.value(&l.File, where, "file is empty", "write stderr, stdout or an absolute path", l)
	case l.File == "stderr" || l.File == "stdout":
	case !filepath.IsAbs(l.File):
		remedy := "write stderr, stdout or the whole path, such as /var/log/xlvs.json"
		if near := nearest(l.File, []string{"stderr", "stdout"}); near != "" {
			remedy = "did you mean " + near + "?"
		}
		v.value(&l.File, where, fmt.Sprintf("file is %s, which is neither stderr nor stdout nor an absolute path", shorten(l.File)), remedy, l)
	case isDirectory(l.File):
		v.value(&l.File, where, fmt.Sprintf("file is %s, which is a directory", shorten(l.File)), "write the file's whole path, such as "+filepath.Join(l.File, "xlvs.json"), l)
	}
	v.number(&l.FlowSample, where, "flow_sample", l.FlowSample, 0, 1<<30, l)
	v.number(&l.FlowRate, where, "flow_rate", l.FlowRate, 0, 1<<30, l)
}

// isDirectory tells whether an absolute path can name nothing but a directory, or names one on this machine.
func isDirectory(path string) bool {
	if last := path[strings.LastIndexByte(path, '/')+1:]; last == "" || last == "." || last == ".." {
		return true
	}
	at, err := os.Stat(path)
	return err == nil && at.IsDir()
}

func (v *validator) memory(m *Memory, where string) {
	v.powerOfTwo(&m.Frames, where, "frames", m.Frames, 128, 1<<20, m)
	v.powerOfTwo(&m.FrameSize, where, "frame_size", m.FrameSize, 2048, 4096, m)
	v.powerOfTwo(&m.Ring, where, "ring", m.Ring, 64, 1<<15, m)
	if m.Ring > 0 && m.Frames < 2*m.Ring && !v.bad[&m.Ring] {
		v.value(&m.Frames, where, fmt.Sprintf("%d frames cannot fill the receive and transmit rings of %d descriptors", m.Frames, m.Ring),
			fmt.Sprintf("use at least %d frames, or a smaller ring", 2*m.Ring), &m.Ring, m)
	}
}

// name checks the name of a service, backend or interface: it appears in logs, metrics and
// commands, and must say which one is meant.
func (v *validator) name(field *string, parent any, where, noun string, seen map[string]position) {
	name := *field
	if v.bad[field] {
		return
	}
	switch first, twice := seen[name]; {
	case name == "":
		remedy := "give it one: name: " + noun + "1"
		if noun == "interface" {
			remedy = "write name: with what ip link calls it, such as eth0"
		}
		v.value(field, where, "the "+noun+" has no name", remedy, parent)
	case len(name) > maxName:
		v.value(field, where, fmt.Sprintf("the name has %d bytes", len(name)), fmt.Sprintf("use at most %d", maxName), parent)
	case strings.ContainsFunc(name, func(r rune) bool { return r == '/' || unicode.IsSpace(r) || !unicode.IsPrint(r) }):
		v.value(field, where, "the name contains a space, a slash or an unprintable character", "use letters, digits, - _ and .", parent)
	case twice:
		on, remedy := "", "rename one of them"
		if first.line > 0 {
			on = fmt.Sprintf(" on line %d", first.line)
		}
		if _, trunk := parent.(*Interface); trunk {
			remedy = "list each interface once"
		}
		v.value(field, where, "another "+noun+on+" has this name", remedy, parent)
	default:
		seen[name] = v.at[field]
	}
}

// word checks a value that is one of few words.
func (v *validator) word(field *string, where, key, got string, choices []string, parent any) bool {
	if slices.Contains(choices, got) {
		return true
	}
	if !v.given(field) && got == "" {
		v.value(field, where, key+" is missing", "write "+key+": with one of "+sorted(choices), parent)
		return false
	}
	v.value(field, where, fmt.Sprintf("%s is %s, which is unknown", key, shorten(got)), choose(got, choices), parent)
	return false
}

func (v *validator) number(field *int, where, key string, got, least, most int, parent any) bool {
	if got < least || got > most {
		v.value(field, where, fmt.Sprintf("%s is %d", key, got), fmt.Sprintf("use %d to %d", least, most), parent)
		return false
	}
	return true
}

func (v *validator) powerOfTwo(field *int, where, key string, got, least, most int, parent any) {
	if got >= least && got <= most && got&(got-1) == 0 {
		return
	}
	below := min(max(least, 1<<(bits.Len(uint(max(got, 1)))-1)), most)
	near := fmt.Sprint(below)
	if below < most && got > least {
		near += fmt.Sprintf(" or %d", 2*below)
	}
	v.value(field, where, fmt.Sprintf("%s is %d, which is not a power of two from %d to %d", key, got, least, most), "use "+near, parent)
}

// short leaves out the zeros that Duration.String appends: 1h, not 1h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func (v *validator) duration(field *time.Duration, where, key string, got, least, most time.Duration, parent any) bool {
	if got < least || got > most {
		v.value(field, where, fmt.Sprintf("%s is %s", key, short(got)), fmt.Sprintf("use %s to %s", short(least), short(most)), parent)
		return false
	}
	return true
}

// unicast checks an address of a service, backend or interface and returns whether it can be used.
func (v *validator) unicast(field *netip.Addr, where string, parent any) bool {
	return v.unicastAt(*field, field, where, parent)
}

// unicastAt checks an address that field points to, or to a value with.
func (v *validator) unicastAt(a netip.Addr, field any, where string, parent any) bool {
	problem, remedy := "", "use a unicast address that hosts on the network can reach"
	switch {
	case !a.IsValid():
		problem, remedy = "address is missing", "write address: with an IPv4 or IPv6 address"
	case a.Zone() != "":
		problem, remedy = fmt.Sprintf("address %s has a zone", a), "use an address that is not link-local, without %"+a.Zone()+": next hops are looked up by the address alone"
	case a.Is6() && a.IsLinkLocalUnicast():
		problem, remedy = fmt.Sprintf("address %s is link-local, so that it could be behind any interface", a), "use a global or a unique local address (fd00::/8)"
	case a.Is4In6():
		problem, remedy = fmt.Sprintf("address %s is IPv4 written as IPv6", a), "write "+a.Unmap().String()
	case a.IsMulticast():
		problem = fmt.Sprintf("address %s is multicast", a)
	case a.IsUnspecified():
		problem = fmt.Sprintf("address %s is the unspecified address", a)
	case a.IsLoopback():
		problem = fmt.Sprintf("address %s is a loopback address", a)
	case a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		problem = fmt.Sprintf("address %s is the broadcast address", a)
	}
	if problem != "" {
		v.value(field, where, problem, remedy, parent)
	}
	return problem == "" && !v.bad[field]
}

func (v *validator) mac(field *MAC, where string, parent any) {
	if field[0]&1 == 1 {
		v.value(field, where, fmt.Sprintf("mac %s is a multicast or broadcast address", field), "use the address of one network card: its first octet is even", parent)
	}
}
