package testenv

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"xlvs/dataplane/table"
)

func prefixOf(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// Servers hold the VIPs but must not claim them: a client that asks for one without a director gets no answer.
func TestServersKeepSilentAboutVIPs(t *testing.T) {
	l := newLab(t, Options{Decap: noDecap})
	eth0, err := l.Client.link("eth0")
	if err != nil {
		t.Fatal(err)
	}
	// Three attempts, as always, but not a second each.
	if err := l.Client.Sysctl(map[string]string{
		"net.ipv4.neigh.eth0.retrans_time_ms": "200",
		"net.ipv6.neigh.eth0.retrans_time_ms": "200",
	}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, m := range l.Options.Modes {
		for _, v6 := range families {
			vip := l.VIP(m, v6)
			wg.Go(func() {
				_, err := l.Client.Dial("tcp", netip.AddrPortFrom(vip, HTTPPort).String())
				if !errors.Is(err, syscall.EHOSTUNREACH) {
					t.Errorf("%s: dialling gave %v, want no route to host", vip, err)
				}
				if mac := neighbourMAC(t, l.Client, eth0.Attrs().Index, vip); mac != nil {
					t.Errorf("%s was answered for by %s", vip, mac)
				}
			})
		}
	}
	wg.Wait()
}

func neighbourMAC(t *testing.T, h *Host, index int, a netip.Addr) net.HardwareAddr {
	t.Helper()
	family := netlink.FAMILY_V4
	if a.Is6() {
		family = netlink.FAMILY_V6
	}
	list, err := h.nl.NeighList(index, family)
	if err != nil {
		t.Error(err)
	}
	for _, n := range list {
		if got, ok := netip.AddrFromSlice(n.IP); ok && got.Unmap() == a {
			return n.HardwareAddr
		}
	}
	return nil
}

// With the VIP pinned to a DR server's MAC address, the client does what a director in DR mode would.
func TestDRServerServesTheVIP(t *testing.T) {
	l := newLab(t, Options{Servers: 2, Modes: []table.Mode{table.DR}})
	s := l.Server("dr2")
	mac, err := s.MAC("eth0")
	if err != nil {
		t.Fatal(err)
	}
	payload := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	want := fmt.Sprintf("%d %x\n", len(payload), sha256.Sum256(payload))
	for _, v6 := range families {
		vip := s.VIP(v6)
		if err := l.Client.SetNeighbour("eth0", vip, mac); err != nil {
			t.Fatal(err)
		}
		c := l.Client.HTTPClient(HTTPOptions{})
		if body, err := get(c, vip, HTTPPort, "/"); err != nil || body != "dr2\n" {
			t.Errorf("%s: %q, %v", vip, body, err)
		}
		if body, err := get(c, vip, HTTPPort, "/bytes/100000"); err != nil || len(body) != 100000 || body[251] != 0 {
			t.Errorf("%s: %d bytes, %v", vip, len(body), err)
		}
		resp, err := c.Post(fmt.Sprintf("http://%s/upload", netip.AddrPortFrom(vip, HTTPPort)), "", bytes.NewReader(payload))
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != want || resp.Header.Get(BackendHeader) != "dr2" {
			t.Errorf("%s: upload answered %q by %q, %v", vip, got, resp.Header.Get(BackendHeader), err)
		}
		echo(t, l.Client, "tcp", netip.AddrPortFrom(vip, EchoPort))
		echo(t, l.Client, "udp", netip.AddrPortFrom(vip, EchoPort))
		if x, err := l.Crossed(vip); err != nil || x != (Crossed{}) {
			t.Errorf("the director saw %+v, %v of what it took no part in", x, err)
		}
	}
	if s.Requests() != 8 || l.Server("dr1").Requests() != 0 {
		t.Errorf("dr2 served %d requests, dr1 %d; want 8 and 0", s.Requests(), l.Server("dr1").Requests())
	}
}

func echo(t *testing.T, from *Host, network string, to netip.AddrPort) {
	t.Helper()
	c, err := from.Dial(network, to.String())
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Errorf("%s %s: %v", network, to, err)
	}
	// A connected UDP socket takes only what comes from the address it called.
	if n, err := c.Read(buf); err != nil || string(buf[:n]) != "hello" {
		t.Errorf("%s %s answered %q, %v", network, to, buf[:n], err)
	}
}

func TestStopResetsAndStartServes(t *testing.T) {
	l := newLab(t, Options{Servers: 1, Modes: []table.Mode{table.NAT}})
	s := l.Server("nat1")
	addr := netip.AddrPortFrom(s.Addr(false), NATEchoPort)
	c, err := l.Director.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if s.Running() {
		t.Error("a stopped server says that it runs")
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read on a connection of a stopped server: %v, want a reset", err)
	}
	if _, err := l.Director.Dial("tcp", addr.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial to a stopped server: %v, want refused", err)
	}
	for range 2 { // the second does nothing
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
	echo(t, l.Director, "tcp", addr)
	echo(t, l.Director, "udp", addr)
	echo(t, l.Director, "tcp", netip.AddrPortFrom(s.Addr(true), NATEchoPort))
}

// The director takes the VIP itself here, and with offloads on: what the tap counts must agree with what
// the kernel's own counters say of frames, and not with its super-packets.
func TestTapIsExact(t *testing.T) {
	l := newLab(t, Options{Servers: 1, Decap: noDecap})
	mac, err := l.Director.MAC("eth0")
	if err != nil {
		t.Fatal(err)
	}
	const datagrams, size = 5000, 100
	for _, v6 := range families {
		header := uint64(14 + 20 + 8)
		if v6 {
			header += 20
		}
		vip := l.VIP(table.DR, v6)
		if err := l.Director.AddAddr("lo", host(vip)); err != nil {
			t.Fatal(err)
		}
		if err := l.Client.SetNeighbour("eth0", vip, mac); err != nil {
			t.Fatal(err)
		}
		sendDatagrams(t, l, netip.AddrPortFrom(vip, 9), datagrams, size)
		want := Crossed{RequestPackets: datagrams, RequestBytes: datagrams * (size + header)}
		if got, err := l.Crossed(vip); err != nil || got != want {
			t.Errorf("entered the director for %s: %+v, %v; want %+v", vip, got, err, want)
		}
		if got, err := l.ClientTap.Left(vip); err != nil || got != want {
			t.Errorf("left the client for %s: %+v, %v; want %+v", vip, got, err, want)
		}
		tapCountsSegments(t, l, vip)
	}
	if _, err := l.Crossed(netip.MustParseAddr("192.0.2.1")); err == nil {
		t.Error("an address that is no VIP has counters")
	}
}

func sendDatagrams(t *testing.T, l *Lab, to netip.AddrPort, n, size int) {
	t.Helper()
	sink, err := l.Director.ListenPacket("udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	c, err := l.Client.Dial("udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range n {
		if _, err := c.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
}

// tapCountsSegments moves 4 MiB with segmentation offload on and expects frames of at most the MTU.
func tapCountsSegments(t *testing.T, l *Lab, vip netip.Addr) {
	t.Helper()
	const total, mtu = 4 << 20, 1500
	before, err := l.Crossed(vip)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := l.Director.Listen("tcp", netip.AddrPortFrom(vip, 99).String())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := l.Client.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	received := make(chan int64, 1)
	go func() {
		n, _ := io.Copy(io.Discard, s)
		received <- n
	}()
	if _, err := c.Write(make([]byte, total)); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if n := <-received; n != total {
		t.Fatalf("%d bytes arrived", n)
	}
	after, err := l.Crossed(vip)
	if err != nil {
		t.Fatal(err)
	}
	packets, size := after.RequestPackets-before.RequestPackets, after.RequestBytes-before.RequestBytes
	if least := uint64(total / mtu); packets < least || packets > least*3/2 {
		t.Errorf("%s: %d bytes counted as %d frames", vip, total, packets)
	}
	if perFrame := (size - total) / packets; perFrame < 54 || perFrame > 100 {
		t.Errorf("%s: %d bytes of headers a frame", vip, perFrame)
	}
	if after.ReplyPackets != before.ReplyPackets {
		t.Errorf("%s: the director's own answers entered it: %+v", vip, after)
	}
	if out, err := l.DirectorTap.Left(vip); err != nil || out.ReplyPackets == 0 {
		t.Errorf("%s: no answers left the director: %+v, %v", vip, out, err)
	}
}

// On the way through a NAT director replies carry the server's own address: they cross, health checks do not.
func TestTapTellsRepliesFromHealthChecks(t *testing.T) {
	for _, layout := range []Layout{Switched, Routed} {
		l := newLab(t, Options{Layout: layout, Servers: 1, Modes: []table.Mode{table.NAT}})
		s, vip := l.Server("nat1"), l.VIP(table.NAT, false)
		c := l.Director.HTTPClient(HTTPOptions{})
		if _, err := get(c, s.Addr(false), NATHTTPPort, "/healthz"); err != nil {
			t.Fatal(err)
		}
		if x, err := l.Crossed(vip); err != nil || x != (Crossed{}) {
			t.Errorf("%s: a health check counts as %+v, %v", layout, x, err)
		}
		u, err := s.Dial("udp", netip.AddrPortFrom(l.plan.client(false), 9).String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Write([]byte("reply")); err != nil {
			t.Fatal(err)
		}
		u.Close()
		want := Crossed{ReplyPackets: 1, ReplyBytes: 14 + 20 + 8 + 5}
		if x, err := l.Crossed(vip); err != nil || x != want {
			t.Errorf("%s: a reply counts as %+v, %v; want %+v", layout, x, err, want)
		}
	}
}

// A DR server's answers take the router's own leg, a NAT server's the director.
func TestRoutedReplyPaths(t *testing.T) {
	l := newLab(t, Options{Layout: Routed, Servers: 1, Modes: []table.Mode{table.DR, table.TUN}, Decap: noDecap})
	for _, v6 := range families {
		dr := l.Server("dr1")
		// What the director would do in DR mode, done by the router.
		if err := l.Router.AddRoute(host(dr.VIP(v6)), dr.Addr(v6), "eth2"); err != nil {
			t.Fatal(err)
		}
		c := l.Client.HTTPClient(HTTPOptions{})
		if body, err := get(c, dr.VIP(v6), HTTPPort, "/"); err != nil || strings.TrimSpace(body) != "dr1" {
			t.Errorf("%s: %q, %v", dr.VIP(v6), body, err)
		}
		if x, err := l.Crossed(dr.VIP(v6)); err != nil || x != (Crossed{}) {
			t.Errorf("%s: %+v, %v crossed the director", dr.VIP(v6), x, err)
		}
		if x, err := l.ClientTap.Entered(dr.VIP(v6)); err != nil || x.ReplyPackets == 0 {
			t.Errorf("%s: the client got %+v, %v", dr.VIP(v6), x, err)
		}
		// Without that route, the prefix of the VIPs leads to the director.
		tun := l.Server("tun1")
		u, err := l.Client.Dial("udp", netip.AddrPortFrom(tun.VIP(v6), 9).String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Write([]byte("request")); err != nil {
			t.Fatal(err)
		}
		u.Close()
		until(t, "the request reaches the director", func() bool {
			x, err := l.Crossed(tun.VIP(v6))
			return err == nil && x.RequestPackets == 1
		})
		// The director reaches TUN servers over the router's back leg.
		c = l.Director.HTTPClient(HTTPOptions{})
		if _, err := get(c, tun.Addr(v6), HTTPPort, "/healthz"); err != nil {
			t.Error(err)
		}
	}
}
