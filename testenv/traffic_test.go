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

func TestLinkFlap(t *testing.T) {
	l := newLab(t, Options{Layout: Routed, Servers: 1, Modes: []table.Mode{table.DR, table.TUN}, Decap: noDecap})
	if err := l.Director.Sysctl(map[string]string{"net.ipv6.conf.all.keep_addr_on_down": "1"}); err != nil {
		t.Fatal(err)
	}
	for _, up := range []bool{false, true} {
		for _, ifname := range l.DirectorInterfaces {
			if err := l.Director.SetLink(ifname, up); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := l.RestoreRoutes(); err != nil {
		t.Fatal(err)
	}
	c := l.Director.HTTPClient(HTTPOptions{Timeout: time.Second})
	for _, s := range l.Servers {
		for _, v6 := range families {
			until(t, s.Name+" is reachable again", func() bool {
				_, err := get(c, s.Addr(v6), HTTPPort, "/healthz")
				return err == nil
			})
		}
	}
}
