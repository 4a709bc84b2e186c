package main_test

import (
	"bytes"
	"net"
	"testing"
	"time"

	"xlvs/dataplane/table"
	"xlvs/testenv"
)

// TestLargeDatagrams echoes UDP datagrams of several fragments through every mode and family, by one queue and by two, and
// through tunnels of the other family.
func TestLargeDatagrams(t *testing.T) {
	for _, c := range []struct {
		name string
		setup
	}{
		{name: "switched"},
		{name: "two queues, routed", setup: setup{lab: testenv.Options{Queues: 2, Layout: testenv.Routed}}},
		{name: "cross-family tunnels", setup: setup{lab: testenv.Options{Modes: []table.Mode{table.TUN}}, config: testenv.ConfigOptions{CrossTunnel: true}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t, c.setup)
			eachRow(t, w, func(t *testing.T, m table.Mode, v6 bool) {
				vip := w.VIP(m, v6)
				for range 4 { // of different ports, and so to different backends
					conn := dialUDP(t, w, vip)
					for _, n := range []int{4000, 1473, 9000, 4000} {
						// Of an IPv6 datagram that is too big for the tunnel the first tells the client of the smaller path MTU.
						until(t, "a large datagram comes back", func() bool { return echoes(conn, payload(n)) })
					}
				}
			})
			for reason, n := range w.drops(t) {
				if reason != "too_big" && reason != "fragment" {
					t.Errorf("the director dropped %d packets: %s", n, reason)
				}
			}
		})
	}
}

// echoes reports whether b comes back soon. What else comes is the answer to an earlier datagram.
func echoes(c net.Conn, b []byte) bool {
	if _, err := c.Write(b); err != nil {
		return false
	}
	if err := c.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		return false
	}
	for got := make([]byte, 1<<16); ; {
		n, err := c.Read(got)
		if err != nil {
			return false
		}
		if bytes.Equal(got[:n], b) {
			return true
		}
	}
}
