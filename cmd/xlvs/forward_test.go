package main_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xlvs/dataplane/table"
	"xlvs/testenv"
)

// TestForward sends real TCP and UDP through every mode and family, in every way to wire and run a director. All
// hosts leave checksum offload on, as veth has it.
func TestForward(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name string
		setup
		outer6 func(inner6 bool) bool // as of everything
		check  func(*testing.T, *world)
	}{
		{name: "switched"},
		{name: "routed", setup: setup{lab: testenv.Options{Layout: testenv.Routed}}, check: bothInterfaces},
		{name: "cross-family tunnels", setup: setup{
			lab:    testenv.Options{Modes: []table.Mode{table.TUN}},
			config: testenv.ConfigOptions{CrossTunnel: true},
		}, outer6: func(inner6 bool) bool { return !inner6 }},
		{name: "two queues", setup: setup{lab: testenv.Options{Queues: 2}}, check: repliesAtAnotherWorker},
		{name: "two queues, routed", setup: setup{lab: testenv.Options{Queues: 2, Layout: testenv.Routed}}, check: repliesAtAnotherWorker},
		{name: "generic XDP", setup: setup{
			edit:    replace("  - name: eth0\n", "  - name: eth0\n    attach: generic\n"),
			prepare: noSuperPackets,
		}, check: attachedGeneric},
		{name: "busy polling", setup: setup{config: testenv.ConfigOptions{Extra: "  idle: { mode: busy }"}}},
		{name: "jumbo frames", setup: setup{lab: testenv.Options{MTU: 3000}, config: testenv.ConfigOptions{Extra: "  memory: { frame_size: 4096 }"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t, c.setup)
			everything(t, w, c.outer6)
			if c.check != nil {
				c.check(t, w)
			}
		})
	}
}

// everything sends all kinds of traffic through every mode and family. outer6 is the family of TUN's outer header; nil: the inner one.
func everything(t *testing.T, w *world, outer6 func(inner6 bool) bool) {
	t.Helper()
	if outer6 == nil {
		outer6 = func(inner6 bool) bool { return inner6 }
	}
	eachRow(t, w, func(t *testing.T, m table.Mode, v6 bool) {
		limit := w.mtu()
		if m == table.TUN {
			limit -= 20
			if outer6(v6) {
				limit -= 20
			}
		}
		vip := w.VIP(m, v6)
		transfer(t, w, vip)
		if n := w.drops(t)["too_big"]; m == table.TUN && n == 0 {
			t.Error("no packet was too big for the tunnel: path MTU discovery was not tested")
		}
		parallel(t, w, m, vip)
		datagrams(t, w, vip, limit)
		if m == table.TUN {
			learnsPathMTU(t, w, vip, limit)
		}
	})
	for reason, n := range w.drops(t) {
		if reason != "too_big" {
			t.Errorf("the director dropped %d packets: %s", n, reason)
		}
	}
}

func (w *world) mtu() int {
	if w.Options.MTU != 0 {
		return w.Options.MTU
	}
	return 1500
}

func url(vip netip.Addr, path string) string {
	return "http://" + netip.AddrPortFrom(vip, testenv.HTTPPort).String() + path
}

func payload(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n), byte(n >> 8)})
	_, _ = r.Read(b) // never fails
	return b
}

// transfer moves 1 MiB in each direction, on one connection each.
func transfer(t *testing.T, w *world, vip netip.Addr) {
	t.Helper()
	const size = 1 << 20
	c := w.Client.HTTPClient(testenv.HTTPOptions{})
	resp, err := c.Get(url(vip, fmt.Sprintf("/bytes/%d", size)))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got := sha256.New()
	if _, err := io.Copy(got, resp.Body); err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, size)
	for i := range sent {
		sent[i] = byte(i % 251)
	}
	if want := sha256.Sum256(sent); !bytes.Equal(got.Sum(nil), want[:]) {
		t.Error("a download of 1 MiB does not have the SHA-256 of what was sent")
	}

	body := payload(size)
	resp, err = c.Post(url(vip, "/upload"), "application/octet-stream", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if want := fmt.Sprintf("%d %x\n", size, sha256.Sum256(body)); err != nil || string(answer) != want {
		t.Errorf("an upload of 1 MiB arrived as %q, %v; want %q", answer, err, want)
	}
}

// parallel holds 100 connections open at once, and has each one echo.
func parallel(t *testing.T, w *world, m table.Mode, vip netip.Addr) {
	t.Helper()
	const n = 100
	before := map[string]uint64{}
	for _, s := range w.Group(m) {
		before[s.Name] = s.Connections()
	}
	var wg, open sync.WaitGroup
	open.Add(n)
	for i := range n {
		wg.Go(func() {
			c, err := w.Client.Dial("tcp", netip.AddrPortFrom(vip, testenv.EchoPort).String())
			open.Done()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			open.Wait()
			if err := echo(c, payload(1000+i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, s := range w.Group(m) {
		if s.Connections() == before[s.Name] {
			t.Errorf("of %d connections, %s got none", n, s.Name)
		}
	}
}

// echo writes b and reads it back.
func echo(c net.Conn, b []byte) error {
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := c.Write(b); err != nil {
		return err
	}
	got := make([]byte, len(b)+1)
	n := 0
	for n < len(b) || n == 0 {
		m, err := c.Read(got[n:])
		if err != nil {
			return fmt.Errorf("echo of %d bytes: %w", len(b), err)
		}
		if n += m; m == 0 {
			break // an empty datagram
		}
	}
	if !bytes.Equal(got[:n], b) {
		return fmt.Errorf("%d bytes came back as %d others", len(b), n)
	}
	return nil
}

// datagrams echoes UDP of all kinds of lengths, up to IP packets of limit bytes.
func datagrams(t *testing.T, w *world, vip netip.Addr, limit int) {
	t.Helper()
	limit -= 20 + 8
	if vip.Is6() {
		limit -= 20
	}
	c := dialUDP(t, w, vip)
	for _, n := range []int{0, 1, 2, 3, 17, 18, 19, 100, 511, 512, 1200, limit - 1, limit} {
		if err := echo(c, payload(n)); err != nil {
			t.Errorf("UDP: %v", err)
		}
	}
}

func dialUDP(t *testing.T, w *world, vip netip.Addr) *net.UDPConn {
	t.Helper()
	c, err := w.Client.Dial("udp", netip.AddrPortFrom(vip, testenv.EchoPort).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// learnsPathMTU sends datagrams that do not fit into the tunnel: the director's ICMP teaches the client how large they may be.
func learnsPathMTU(t *testing.T, w *world, vip netip.Addr, limit int) {
	t.Helper()
	level, discover, mtu := unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_MTU
	header := 20 + 8
	if vip.Is6() {
		level, discover, mtu = unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_MTU
		header = 40 + 8
	}
	c := dialUDP(t, w, vip)
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	sockopt := func(f func(fd int) error) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) { err = f(int(fd)) }), err)
	}
	if err := sockopt(func(fd int) error { return unix.SetsockoptInt(fd, level, discover, unix.IP_PMTUDISC_DO) }); err != nil {
		t.Fatal(err)
	}
	big := payload(w.mtu() - header)
	until(t, "the kernel refuses datagrams that do not fit into the tunnel", func() bool {
		_, err := c.Write(big)
		return errors.Is(err, syscall.EMSGSIZE)
	})
	got := 0
	if err := sockopt(func(fd int) (err error) { got, err = unix.GetsockoptInt(fd, level, mtu); return err }); err != nil || got != limit {
		t.Errorf("the path MTU is %d, %v; want %d", got, err, limit)
	}
}

// noSuperPackets makes the director's cable carry frames as a wire does. In generic mode veth hands over the super-packets of
// the sender's segmentation offload, which fit into no chunk of packet memory; in native mode it segments them first.
func noSuperPackets(l *testenv.Lab) error {
	return l.Switch.SetFeatures("director-0", map[string]bool{"tx-tcp-segmentation": false, "tx-tcp6-segmentation": false})
}

func bothInterfaces(t *testing.T, w *world) {
	st, err := w.dir.API.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range st.Workers[0].Ports {
		if p.RxPackets == 0 || p.TxPackets == 0 {
			t.Errorf("nothing went one of the ways through %s: %+v", p.Interface, p)
		}
	}
}

func attachedGeneric(t *testing.T, w *world) {
	st, err := w.dir.API.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if a := st.Interfaces[0].Attach; a != "generic" {
		t.Errorf("attached %s", a)
	}
}

// repliesAtAnotherWorker looks for a NAT flow whose requests one worker receives, and whose replies another one.
func repliesAtAnotherWorker(t *testing.T, w *world) {
	received := func() (n []uint64) {
		st, err := w.dir.API.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range st.Workers {
			n = append(n, k.RxPackets)
		}
		return n
	}
	var tried []string
	for range 40 {
		c := dialUDP(t, w, w.VIP(table.NAT, false))
		before := received()
		const n = 10
		for range n {
			if err := echo(c, payload(100)); err != nil {
				t.Fatal(err)
			}
		}
		after := received()
		got := []uint64{after[0] - before[0], after[1] - before[1]}
		if got[0] == n && got[1] == n {
			return
		}
		tried = append(tried, fmt.Sprint(got))
	}
	t.Errorf("no flow had its requests at one worker and its replies at the other; the workers received %s", strings.Join(tried, " "))
}
