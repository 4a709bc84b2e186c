package main_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/arp"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"xlvs/dataplane/table"
	"xlvs/testenv"
	"xlvs/testenv/demo"
)

// TestStopLeavesNothing compares the director's host before and after a director has run there.
func TestStopLeavesNothing(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name string
		stay []string // what part of the names of features and settings may stay as the director had it
		end  func(*testing.T, *world)
	}{
		{"SIGTERM", nil, func(t *testing.T, w *world) {
			if err := w.dir.Stop(); err != nil {
				t.Error(err)
			}
			if _, err := os.Lstat(w.api()); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the API's socket: %v, want it to be gone", err)
			}
		}},
		{"SIGKILL", []string{"rx-vlan-", "/keep_addr_on_down"}, func(t *testing.T, w *world) {
			w.dir.Process.Kill()
			if st, err := os.Lstat(w.api()); err != nil || st.Mode().Type() != fs.ModeSocket {
				t.Errorf("the API's socket: %v, %v; the next director is to replace a stale one", st, err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before map[string][]string
			w := start(t, setup{
				lab:     testenv.Options{Layout: testenv.Routed, Servers: 2},
				prepare: func(l *testenv.Lab) error { before = hostState(t, l.Director); return nil },
			})
			w.answers(t)
			during, ids := hostState(t, w.Director), w.bpfObjects(t)
			for _, what := range []string{"links", "sysctl"} {
				if cmp.Equal(before[what], during[what]) {
					t.Errorf("a running director does not show in %s: this test sees too little", what)
				}
			}
			files := bpfFiles(t)
			c.end(t, w)
			until(t, "the kernel has removed the director's BPF objects", func() bool { return !anyExists(t, ids) })
			after := hostState(t, w.Director)
			for _, s := range []map[string][]string{before, after} {
				for _, what := range []string{"features", "sysctl"} {
					s[what] = slices.DeleteFunc(s[what], func(line string) bool {
						return slices.ContainsFunc(c.stay, func(part string) bool { return strings.Contains(line, part) })
					})
				}
			}
			if diff := cmp.Diff(before, after); diff != "" {
				t.Errorf("the host before (-) and after (+):\n%s", diff)
			}
			if diff := cmp.Diff(files, bpfFiles(t)); diff != "" {
				t.Errorf("the BPF file system before (-) and after (+):\n%s", diff)
			}
			w.run(t)
			w.answers(t)
		})
	}
}

// answers asks every web service once.
func (w *world) answers(t *testing.T) {
	t.Helper()
	c := w.Client.HTTPClient(testenv.HTTPOptions{})
	for _, m := range w.Options.Modes {
		for _, v6 := range []bool{false, true} {
			if _, err := ask(c, w.VIP(m, v6)); err != nil {
				t.Errorf("%s %t: %v", m, v6, err)
			}
		}
	}
}

// hostState lists what `ip link`, `ip address`, `ip route`, `ip rule`, `ip neighbour`, `ip maddress`, `ethtool -k` and
// sysctl(8) show of a host, but for what changes by itself: counters, and neighbours that the kernel finds and forgets.
func hostState(t *testing.T, h *testenv.Host) map[string][]string {
	t.Helper()
	s := map[string][]string{}
	add := func(what, format string, args ...any) { s[what] = append(s[what], fmt.Sprintf(format, args...)) }
	n := h.Netlink()
	links, err := n.LinkList()
	fatal(t, err)
	names := map[int]string{}
	for _, l := range links {
		a := l.Attrs()
		names[a.Index] = a.Name
		add("links", "%s %s flags %x mtu %d promisc %d allmulti %d qdisc-len %d xdp %+v", a.Name, a.HardwareAddr, a.RawFlags, a.MTU,
			a.Promisc, a.Allmulti, a.TxQLen, a.Xdp)
		addrs, err := n.AddrList(l, netlink.FAMILY_ALL)
		fatal(t, err)
		for _, a := range addrs {
			add("addresses", "%s", a)
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := n.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		fatal(t, err)
		for _, r := range routes {
			if r.Flags&unix.RTM_F_CLONED == 0 {
				add("routes", "%s table %d type %d", r, r.Table, r.Type)
			}
		}
		rules, err := n.RuleList(family)
		fatal(t, err)
		for _, r := range rules {
			add("rules", "%s", r)
		}
		neighbours, err := n.NeighList(0, family)
		fatal(t, err)
		proxies, err := n.NeighProxyList(0, family)
		fatal(t, err)
		for _, x := range append(neighbours, proxies...) {
			if (x.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) != 0 || x.Flags&^netlink.NTF_ROUTER != 0 || x.FlagsExt != 0) && !x.IP.IsMulticast() {
				add("neighbours", "%s %s dev %s state %x flags %x %x", x.IP, x.HardwareAddr, names[x.LinkIndex], x.State, x.Flags, x.FlagsExt)
			}
		}
	}
	fatal(t, h.Do(func() error {
		e, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer e.Close()
		for _, name := range names {
			features, err := e.Features(name)
			if err != nil {
				return err
			}
			for f, on := range features {
				add("features", "%s %s %t", name, f, on)
			}
		}
		return readFiles(add)
	}))
	for _, list := range s {
		slices.Sort(list)
	}
	return s
}

// readFiles reads the groups and settings of the calling thread's namespace.
func readFiles(add func(what, format string, args ...any)) error {
	for _, group := range []string{"dev_mcast", "igmp", "igmp6"} {
		b, err := os.ReadFile("/proc/thread-self/net/" + group)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			add("groups", "%s", strings.TrimSpace(line))
		}
	}
	return filepath.WalkDir("/proc/sys/net", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil //nolint:nilerr // some settings can only be written
		}
		add("sysctl", "%s %s", path, b)
		return nil
	})
}

func fatal(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bpfObjects lists the BPF programs, maps and links that the director's process holds, by their IDs.
func (w *world) bpfObjects(t *testing.T) []string {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fdinfo", w.dir.Process.Cmd.Process.Pid)
	fds, err := os.ReadDir(dir)
	fatal(t, err)
	var ids []string
	for _, fd := range fds {
		info, err := os.ReadFile(filepath.Join(dir, fd.Name()))
		if err != nil {
			continue // closed in the meantime
		}
		for line := range strings.Lines(string(info)) {
			if k, _, _ := strings.Cut(line, ":"); k == "prog_id" || k == "map_id" || k == "link_id" {
				ids = append(ids, strings.Join(strings.Fields(line), " "))
			}
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	kinds := map[string]bool{}
	for _, id := range ids {
		kinds[id[:strings.Index(id, ":")]] = true
	}
	if len(kinds) != 3 {
		t.Fatalf("a running director holds %v: this test sees too little", ids)
	}
	return ids
}

// anyExists tells whether any of the objects is still in the kernel.
func anyExists(t *testing.T, ids []string) bool {
	t.Helper()
	for _, s := range ids {
		kind, text, _ := strings.Cut(s, ": ")
		id, err := strconv.ParseUint(text, 10, 32)
		fatal(t, err)
		var object io.Closer
		switch kind {
		case "prog_id":
			object, err = ebpf.NewProgramFromID(ebpf.ProgramID(id))
		case "map_id":
			object, err = ebpf.NewMapFromID(ebpf.MapID(id))
		case "link_id":
			object, err = link.NewFromID(link.ID(id))
		}
		if err == nil {
			object.Close()
			return true
		}
		if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
	return false
}

// bpfFiles lists the BPF file system.
func bpfFiles(t *testing.T) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir("/sys/fs/bpf", func(path string, _ fs.DirEntry, err error) error {
		files = append(files, path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	fatal(t, err)
	return files
}

// TestVIPIsFoundBySolicitation looks at how the client found the virtual addresses: it was told by the director.
func TestVIPIsFoundBySolicitation(t *testing.T) {
	w := start(t, setup{lab: testenv.Options{Servers: 1}})
	mac, err := w.Director.MAC("eth0")
	fatal(t, err)
	eth0, err := w.Client.Netlink().LinkByName("eth0")
	fatal(t, err)
	eachRow(t, w, func(t *testing.T, m table.Mode, v6 bool) {
		vip := w.VIP(m, v6)
		entry := func() *netlink.Neigh {
			list, err := w.Client.Netlink().NeighList(eth0.Attrs().Index, netlink.FAMILY_ALL)
			fatal(t, err)
			for _, n := range list {
				if n.IP.Equal(net.IP(vip.AsSlice())) {
					return &n
				}
			}
			return nil
		}
		c := w.Client.HTTPClient(testenv.HTTPOptions{})
		for range 2 { // the second time after the entry was deleted
			if _, err := ask(c, vip); err != nil {
				t.Fatal(err)
			}
			n := entry()
			if n == nil || n.HardwareAddr.String() != mac.String() || n.State&netlink.NUD_PERMANENT != 0 {
				t.Fatalf("the client's entry for %s is %+v; the director is %s", vip, n, mac)
			}
			fatal(t, w.Client.Netlink().NeighDel(n))
		}
	})
}

// TestVIPConflict has a real server claim a virtual address by gratuitous ARP, as a second director would.
func TestVIPConflict(t *testing.T) {
	w := start(t, setup{lab: testenv.Options{Modes: []table.Mode{table.DR}, Servers: 1}})
	s := w.Server("dr1")
	mac, err := s.MAC("eth0")
	fatal(t, err)
	vip := w.VIP(table.DR, false)
	fatal(t, s.Do(func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		c, err := arp.Dial(eth0)
		if err != nil {
			return err
		}
		defer c.Close()
		claim, err := arp.NewPacket(arp.OperationRequest, mac, vip, make(net.HardwareAddr, 6), vip)
		if err != nil {
			return err
		}
		return c.WriteTo(claim, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	}))
	w.await(t, "another station claims the address", func(e demo.Event) bool { return e.Event == "vip.conflict" && e.MAC == mac.String() })
}
