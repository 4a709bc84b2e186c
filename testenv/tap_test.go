package testenv

import (
	"errors"
	"io"
	"net/netip"
	"testing"
	"time"

	"xlvs/dataplane/table"
)

// The director takes the VIP itself here, and with offloads on: what the tap counts must agree with what
// the kernel's own counters say of frames, and not with its super-packets.
func TestTapIsExact(t *testing.T) {
	l := newLab(t, Options{Servers: 1, Decap: noDecap})
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
	if left, err := l.ClientTap.Left(vip); err != nil || left.RequestPackets != after.RequestPackets || left.RequestBytes != after.RequestBytes {
		t.Errorf("%s: %+v, %v left the client and %+v entered the director", vip, left, err, after)
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
