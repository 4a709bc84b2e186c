package main_test

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ndp"
	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"xlvs/dataplane/table"
	"xlvs/testenv"
	"xlvs/testenv/demo"
)

// TestFailedStartIsSilent: a director that cannot start must not take the virtual addresses from one that works.
func TestFailedStartIsSilent(t *testing.T) {
	w := start(t, setup{lab: testenv.Options{Modes: []table.Mode{table.DR}, Servers: 1}})
	if err := w.dir.Stop(); err != nil {
		t.Fatal(err)
	}
	mac, err := w.Director.MAC("eth0")
	fatal(t, err)
	announced := watchAnnouncements(t, w.Client, "eth0", mac)
	attached := func() int {
		return w.count(t, func(e demo.Event) bool { return e.Event == "interface.attached" || e.Event == "vip.announced" })
	}
	before := attached()
	holder := filepath.Join(t.TempDir(), "held.sock")
	other, err := net.Listen("unix", holder)
	fatal(t, err)
	defer other.Close()
	for _, c := range []struct{ name, api, want string }{
		{"unusable", w.dir.File + "/api.sock", "there is no directory " + w.dir.File},
		{"another director's", holder, "another director answers on " + holder},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.rewrite(t, replace(strconv.Quote(w.api()), strconv.Quote(c.api)))
			defer w.rewrite(t, replace(strconv.Quote(c.api), strconv.Quote(w.api())))
			cmd := w.Director.Command(t.Context(), program, "run", "-c", w.dir.File)
			var out strings.Builder
			cmd.Stdout, cmd.Stderr = &out, &out
			p, err := w.Director.Start(cmd)
			fatal(t, err)
			if err := p.Wait(); err == nil || !strings.Contains(out.String(), c.want) {
				t.Errorf("ended with %v and %q, want …%s…", err, &out, c.want)
			}
			events, err := w.dir.Events()
			fatal(t, err)
			if last := events[len(events)-1]; last.Event != "director.stop" || last.Level != "error" || !strings.Contains(last.Reason, c.want) {
				t.Errorf("the log ends with %+v", last)
			}
		})
	}
	if n := announced.Load(); n > 0 || attached() != before {
		t.Errorf("%d announcements of virtual addresses, %d more events of an attached director", n, attached()-before)
	}
	w.run(t) // and one that does start is seen
	until(t, "announcements are seen", func() bool { return announced.Load() > 0 })
	if attached() == before {
		t.Error("a director that starts does not say so: this test sees too little")
	}
}

// watchAnnouncements counts the gratuitous ARP packets and neighbour advertisements that reach an interface from a MAC address.
func watchAnnouncements(t *testing.T, h *testenv.Host, ifname string, from net.HardwareAddr) *atomic.Int64 {
	t.Helper()
	var n atomic.Int64
	var c *packet.Conn
	fatal(t, h.Do(func() error {
		ifc, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		c, err = packet.Listen(ifc, packet.Raw, unix.ETH_P_ALL, nil)
		return err
	}))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 1<<16); ; {
			size, _, err := c.ReadFrom(b)
			if err != nil {
				return // it is closed
			}
			if size >= 14 && net.HardwareAddr(b[6:12]).String() == from.String() && isAnnouncement(b[:size]) {
				n.Add(1)
			}
		}
	}()
	t.Cleanup(func() { c.Close(); <-done })
	return &n
}

func isAnnouncement(frame []byte) bool {
	switch b := frame[14:]; {
	case frame[12] == 8 && frame[13] == 6:
		var p arp.Packet
		return p.UnmarshalBinary(b) == nil && p.SenderIP == p.TargetIP && p.SenderIP != netip.Addr{}
	case frame[12] == 0x86 && frame[13] == 0xdd && len(b) > 40 && b[6] == unix.IPPROTO_ICMPV6:
		m, err := ndp.ParseMessage(b[40:])
		na, ok := m.(*ndp.NeighborAdvertisement)
		return err == nil && ok && !na.Solicited
	}
	return false
}

// TestSocketIsRemoved: the director makes its API's socket anew, at once when it is told to look.
func TestSocketIsRemoved(t *testing.T) {
	w := start(t, setup{lab: testenv.Options{Modes: []table.Mode{table.DR}, Servers: 1}, warnings: true})
	fatal(t, os.Remove(w.api()))
	fatal(t, w.dir.Process.Signal(syscall.SIGHUP))
	w.await(t, "the socket has been made anew", func(e demo.Event) bool {
		return e.Event == "control.warning" && strings.Contains(e.Error, "has been made anew")
	})
	if out, status := w.xlvs(t, "status", "--api", w.api()); status != 0 {
		t.Errorf("xlvs status: %d, %s", status, out)
	}
}
