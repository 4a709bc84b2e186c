package steer

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// somebodyElses returns an XDP program that is not ours.
func somebodyElses(t *testing.T) *ebpf.Program {
	t.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.XDP, License: "GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, xdpPass), asm.Return()},
	})
	must(t, err)
	t.Cleanup(func() { p.Close() })
	return p
}

func TestAttachAndCloseLeaveNothing(t *testing.T) {
	for _, c := range []struct {
		mode, want Mode
		kernel     uint32
	}{{Auto, Native, 1}, {Native, Native, 1}, {Generic, Generic, 2}} {
		t.Run(c.mode.String(), func(t *testing.T) {
			l := newLab(t)
			before := openFiles(t)
			s, err := Load()
			must(t, err)
			defer s.Close()
			a, err := s.Attach(l.near.Attrs().Index, "near", c.mode)
			must(t, err)
			if a.Mode() != c.want || a.NativeError() != nil {
				t.Errorf("became %s (%v), want %s", a.Mode(), a.NativeError(), c.want)
			}
			if x := l.xdp(t); !x.Attached || uint32(x.AttachMode) != c.kernel {
				t.Errorf("the kernel says %+v, want mode %d", *x, c.kernel)
			}
			must(t, errors.Join(a.Close(), a.Close()))
			if l.xdp(t).Attached {
				t.Error("XDP is left on the interface after closing the attachment")
			}
			_, err = s.Attach(l.near.Attrs().Index, "near", c.mode)
			must(t, err)
			must(t, errors.Join(s.Close(), s.Close()))
			if l.xdp(t).Attached {
				t.Error("XDP is left on the interface after closing the steerer")
			}
			if _, err := s.Attach(l.near.Attrs().Index, "near", c.mode); err == nil || s.Apply(Rules{}) == nil {
				t.Error("a closed steerer went on working")
			}
			if after := openFiles(t); after != before {
				t.Errorf("%d open files, %d before", after, before)
			}
		})
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(files)
}

func TestAutoBecomesGenericAndSaysWhy(t *testing.T) {
	l := newLab(t)
	// veth has no native XDP with frames that do not fit a page.
	must(t, netlink.LinkSetMTU(l.near, 9000))
	l.inFar(t, func() { must(t, netlink.LinkSetMTU(l.far, 9000)) })
	s, err := Load()
	must(t, err)
	defer s.Close()
	if _, err := s.Attach(l.near.Attrs().Index, "near", Native); err == nil || !strings.Contains(err.Error(), "MTU") {
		t.Errorf("native with a large MTU: %v", err)
	}
	a, err := s.Attach(l.near.Attrs().Index, "near", Auto)
	must(t, err)
	if a.Mode() != Generic || a.NativeError() == nil {
		t.Errorf("became %s, native error %v", a.Mode(), a.NativeError())
	}
}

func TestAttachRefusesToReplaceSomebodyElses(t *testing.T) {
	for flags, mode := range map[link.XDPAttachFlags]string{link.XDPDriverMode: "native", link.XDPGenericMode: "generic"} {
		t.Run("by link, "+mode, func(t *testing.T) {
			l, other := newLab(t), somebodyElses(t)
			theirs, err := link.AttachXDP(link.XDPOptions{Program: other, Interface: l.near.Attrs().Index, Flags: flags})
			must(t, err)
			defer theirs.Close()
			checkRefused(t, l, other)
		})
		t.Run("by netlink, "+mode, func(t *testing.T) {
			l, other := newLab(t), somebodyElses(t)
			must(t, netlink.LinkSetXdpFdWithFlags(l.near, other.FD(), int(flags)))
			checkRefused(t, l, other)
			must(t, netlink.LinkSetXdpFdWithFlags(l.near, -1, int(flags)))
			s, err := Load()
			must(t, err)
			defer s.Close()
			if _, err := s.Attach(l.near.Attrs().Index, "near", Auto); err != nil {
				t.Errorf("after the other went: %v", err)
			}
		})
	}
}

func checkRefused(t *testing.T, l *lab, other *ebpf.Program) {
	t.Helper()
	index, name := l.near.Attrs().Index, l.near.Attrs().Name
	s, err := Load()
	must(t, err)
	defer s.Close()
	d, err := LoadDecap(nil, nil)
	must(t, err)
	defer d.Close()
	info, err := other.Info()
	must(t, err)
	id, _ := info.ID()
	for _, mode := range []Mode{Auto, Native, Generic} {
		_, err := s.Attach(index, name, mode)
		if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), fmt.Sprint(id)) {
			t.Errorf("%s: %v; want it to name interface %s and program %d", mode, err, name, id)
		}
		if _, err := d.Attach(index, name, mode); !errors.Is(err, ErrBusy) {
			t.Errorf("decapsulator, %s: %v", mode, err)
		}
	}
	if x := l.xdp(t); !x.Attached || x.ProgId != uint32(id) {
		t.Errorf("the other program is gone: %+v", *x)
	}
}

func TestAttachToNothing(t *testing.T) {
	newLab(t)
	s, err := Load()
	must(t, err)
	defer s.Close()
	if _, err := s.Attach(4711, "gone0", Auto); !errors.Is(err, syscall.ENODEV) || !strings.Contains(err.Error(), "gone0") {
		t.Errorf("got %v", err)
	}
}

func TestCloseAfterTheInterfaceWent(t *testing.T) {
	l := newLab(t)
	s, err := Load()
	must(t, err)
	a, err := s.Attach(l.near.Attrs().Index, "near", Auto)
	must(t, err)
	must(t, netlink.LinkDel(l.near))
	if err := errors.Join(a.Close(), s.Close()); err != nil {
		t.Errorf("closing: %v", err)
	}
}

// Frames of a service reach the kernel while there is no socket; the rules hold on every interface; down and up
// change nothing.
func TestAttachedWithoutSocketsIsHarmless(t *testing.T) {
	for _, mode := range []Mode{Native, Generic} {
		t.Run(mode.String(), func(t *testing.T) {
			l := newLab(t)
			addAddr(t, l.near, "10.9.0.1/24")
			l.inFar(t, func() { addAddr(t, l.far, "10.9.0.2/24") })
			server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 9, 0, 1)})
			must(t, err)
			defer server.Close()
			to := server.LocalAddr().(*net.UDPAddr)

			s, err := Load()
			must(t, err)
			defer s.Close()
			a, err := s.Attach(l.near.Attrs().Index, "near", mode)
			must(t, err)
			must(t, a.SetMAC(l.near.Attrs().HardwareAddr))
			must(t, s.Apply(Rules{Services: []Key{{Addr: netip.MustParseAddr("10.9.0.1"), Port: uint16(to.Port), Proto: 17}}}))
			must(t, netlink.LinkSetDown(l.near))
			must(t, netlink.LinkSetUp(l.near))

			var client *net.UDPConn
			l.inFar(t, func() { client, err = net.DialUDP("udp4", nil, to) })
			must(t, err)
			defer client.Close()
			exchange(t, client, server)
			c, err := a.Counters()
			must(t, err)
			if c[Service] == 0 || c[NoSocket] != c[Service] || c[PassL2] == 0 {
				t.Errorf("counted %v; want service frames, all without socket, and broadcast ARP", c)
			}
		})
	}
}

// exchange sends datagrams until one arrives: the link may just have come up.
func exchange(t *testing.T, client, server *net.UDPConn) {
	t.Helper()
	buf := make([]byte, 64)
	eventually(t, "a datagram arrives", func() bool {
		if _, err := client.Write([]byte("hello")); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			return false
		}
		must(t, server.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		n, _, err := server.ReadFromUDP(buf)
		return err == nil && string(buf[:n]) == "hello"
	})
}
