package main_test

import (
	"net/netip"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"xlvs/control/api"
	"xlvs/dataplane/frametest"
	"xlvs/dataplane/table"
	"xlvs/testenv"
)

// TestShed floods a director that gets no CPU time for a moment, again and again: that is as overloaded as one can be, on any machine.
// It must shed SYNs, say so, and go on serving a connection that was there before.
func TestShed(t *testing.T) {
	w := start(t, setup{lab: testenv.Options{Modes: []table.Mode{table.DR}, Servers: 1}})
	vip := netip.AddrPortFrom(w.VIP(table.DR, false), testenv.EchoPort)
	conn, err := w.Client.Dial("tcp", vip.String())
	fatal(t, err)
	defer conn.Close()
	fatal(t, echo(conn, payload(100)))
	if n := w.drops(t)["shed"]; n != 0 {
		t.Errorf("%d packets were shed before there was a flood", n)
	}
	f := newFlooder(t, w, vip)
	until(t, "packets are shed", func() bool {
		fatal(t, w.dir.Process.Signal(syscall.SIGSTOP))
		f.syns(t, 2500) // the receive ring holds 2048
		fatal(t, w.dir.Process.Signal(syscall.SIGCONT))
		f.syns(t, 2000)
		if err := echo(conn, payload(1000)); err != nil {
			t.Fatalf("a connection from before the flood: %v", err)
		}
		return w.drops(t)["shed"] > 0
	})
	var st api.Status
	w.json(t, &st, "status")
	if n := st.Interfaces[0].Steered["shed"]; n == 0 || n != st.Drops["shed"] {
		t.Errorf("%d packets shed on the interface, %d in all", n, st.Drops["shed"])
	}
	if out, _ := w.xlvs(t, "status", "--api", w.api()); !strings.Contains(out, "shed ") {
		t.Errorf("xlvs status does not show what was shed:\n%s", out)
	}
	until(t, "clients are let in again", func() bool {
		c, err := w.Client.Dial("tcp", vip.String())
		if err == nil {
			err = echo(c, payload(10))
			c.Close()
		}
		return err == nil
	})
	fatal(t, w.dir.Stop())
	log, err := os.ReadFile(w.dir.Log)
	fatal(t, err)
	if !regexp.MustCompile(`"event":"drop.summary".*"shed":[1-9]`).Match(log) {
		t.Error("the log does not tell what was shed")
	}
}

// A flooder sends SYNs from addresses of RFC 2544's benchmarks, each from another.
type flooder struct {
	fd   int
	spec frametest.Spec
	next uint32
}

func newFlooder(t *testing.T, w *world, vip netip.AddrPort) *flooder {
	t.Helper()
	mac, err := w.Director.MAC("eth0")
	fatal(t, err)
	own, err := w.Client.MAC("eth0")
	fatal(t, err)
	f := &flooder{spec: frametest.Spec{DstMAC: [6]byte(mac), SrcMAC: [6]byte(own), Dst: vip, Flags: frametest.SYN}}
	fatal(t, w.Client.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		if f.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Bind(f.fd, &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index})
	}))
	t.Cleanup(func() { unix.Close(f.fd) })
	return f
}

func (f *flooder) syns(t *testing.T, n int) {
	t.Helper()
	for range n {
		f.next++
		f.spec.Src = netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, byte(f.next >> 8), byte(f.next)}), uint16(1024+f.next>>16))
		_, err := unix.Write(f.fd, f.spec.Build())
		fatal(t, err)
	}
}
