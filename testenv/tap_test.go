package testenv

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"xlvs/dataplane/table"
)

// The director takes the VIP itself here. What is counted is frames, not the super-packets of offloads.
func TestTapIsExact(t *testing.T) {
	t.Run("tcx", func(t *testing.T) { tapIsExact(t, Options{}) })
	t.Run("clsact", func(t *testing.T) { tapIsExact(t, Options{noTCX: true}) })
}

func tapIsExact(t *testing.T, o Options) {
	o.Servers, o.Decap = 1, noDecap
	l := newLab(t, o)
	filters := tapFilters(t, l)
	if want := map[bool]int{true: 4}[o.noTCX]; filters != want {
		t.Fatalf("%d filters at the switch, want %d: one for each direction of the director's cable and the client's", filters, want)
	}
	mac, err := l.Director.MAC("eth0")
	if err != nil {
		t.Fatal(err)
	}
	const datagrams, size = 2000, 100
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
		exchange(t, l, netip.AddrPortFrom(vip, 9), datagrams, size)
		requests := Crossed{RequestPackets: datagrams, RequestBytes: datagrams * (size + header)}
		replies := Crossed{ReplyPackets: datagrams, ReplyBytes: datagrams * (size + header)}
		for what, c := range map[string]struct {
			read func(netip.Addr) (Crossed, error)
			want Crossed
		}{
			"entered the director": {l.Crossed, requests},
			"left the director":    {l.DirectorTap.Left, replies},
			"entered the client":   {l.ClientTap.Entered, replies},
			"left the client":      {l.ClientTap.Left, requests},
		} {
			if got, err := c.read(vip); err != nil || got != c.want {
				t.Errorf("%s for %s: %+v, %v; want %+v", what, vip, got, err, c.want)
			}
		}
		tapCountsSegments(t, l, vip)
	}
	if _, err := l.Crossed(netip.MustParseAddr("192.0.2.1")); err == nil {
		t.Error("an address that is no VIP has counters")
	}
	if err := errors.Join(l.DirectorTap.Close(), l.ClientTap.Close()); err != nil {
		t.Error(err)
	}
	if n := tapFilters(t, l); n != 0 {
		t.Errorf("closed taps leave %d filters", n)
	}
}

// tapFilters counts the filters of taps that are not attached with tcx.
func tapFilters(t *testing.T, l *Lab) (n int) {
	t.Helper()
	for _, h := range []*Host{l.Director, l.Client} {
		port, err := l.Switch.link(h.port("eth0"))
		if err != nil {
			t.Fatal(err)
		}
		for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
			list, err := l.Switch.Netlink().FilterList(port, parent)
			if err != nil {
				t.Fatal(err)
			}
			n += len(list)
		}
	}
	return n
}

// exchange sends n datagrams and waits for each one's echo, so that no queue can overflow.
func exchange(t *testing.T, l *Lab, to netip.AddrPort, n, size int) {
	t.Helper()
	server, err := l.Director.ListenPacket("udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	c, err := l.Client.Dial("udp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	deadline := time.Now().Add(10 * time.Second)
	if err := errors.Join(c.SetDeadline(deadline), server.SetDeadline(deadline)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, size)
	for range n {
		if _, err := c.Write(buf); err != nil {
			t.Fatal(err)
		}
		_, from, err := server.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := server.WriteTo(buf, from); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
}

// tapCountsSegments moves 2 MiB with segmentation offload on. The sender's socket says how many segments, and
// how many bytes in them, retransmissions included, the tap has to count.
func tapCountsSegments(t *testing.T, l *Lab, vip netip.Addr) {
	t.Helper()
	const total = 2 << 20
	before, err := l.ClientTap.Left(vip)
	if err != nil {
		t.Fatal(err)
	}
	client, server := tcpPair(t, l, netip.AddrPortFrom(vip, 99))
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyN(io.Discard, server, total)
		done <- errors.Join(err, oneByte(server.Write))
	}()
	if _, err := client.Write(make([]byte, total)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(<-done, oneByte(client.Read)); err != nil {
		t.Fatal(err)
	}
	// Ethernet, IP, and TCP with a timestamp; the SYN has 8 bytes of options more.
	header := uint64(14 + 20 + 32)
	if vip.Is6() {
		header += 20
	}
	var want, got Crossed
	defer func() {
		if got != want {
			t.Logf("%s: counted %+v, sent %+v", vip, got, want)
		}
	}()
	until(t, "the tap agrees with the sender's TCP", func() bool {
		segments, size := sent(t, client)
		want = Crossed{RequestPackets: segments, RequestBytes: size + segments*header + 8}
		if got, err = l.ClientTap.Left(vip); err != nil {
			t.Fatal(err)
		}
		got.RequestPackets -= before.RequestPackets
		got.RequestBytes -= before.RequestBytes
		return got == want
	})
}

func oneByte(readOrWrite func([]byte) (int, error)) error {
	_, err := readOrWrite([]byte{0})
	return err
}

// tcpPair connects the client with a listener on the director.
func tcpPair(t *testing.T, l *Lab, addr netip.AddrPort) (client, server net.Conn) {
	t.Helper()
	ln, err := l.Director.Listen("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = l.Client.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

// sent returns how many TCP segments a connection has sent, and how many bytes of payload in them.
func sent(t *testing.T, c net.Conn) (segments, size uint64) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	if e := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); e != nil || err != nil {
		t.Fatal(errors.Join(e, err))
	}
	return uint64(info.Segs_out), info.Bytes_sent
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
