package main_test

import (
	"net/netip"
	"strings"
	"testing"

	"xlvs/dataplane/table"
	"xlvs/testenv"
)

// Every address of a prefix answers ARP and neighbour solicitations, and NAT's replies come from it; services of
// single addresses inside of the prefix go their own way.
func TestPrefixEndToEnd(t *testing.T) {
	w := start(t, setup{lab: testenv.Options{Servers: 2}, edit: func(c string) string {
		c = strings.ReplaceAll(c, `address: "10.0.0.13"`, `address: "10.0.0.8/29"`)
		return strings.ReplaceAll(c, `address: "2001:db8::13"`, `address: "2001:db8::10/124"`)
	}})
	for _, vip := range []string{"10.0.0.8", "10.0.0.13", "10.0.0.15", "2001:db8::10", "2001:db8::13", "2001:db8::1f"} {
		a := netip.MustParseAddr(vip)
		transfer(t, w, a)
		datagrams(t, w, a, w.mtu())
		servedBy(t, w, a, table.NAT)
	}
	for _, m := range []table.Mode{table.DR, table.TUN} {
		for _, v6 := range []bool{false, true} {
			servedBy(t, w, w.VIP(m, v6), m)
		}
	}
	for reason, n := range w.drops(t) {
		if reason != "too_big" {
			t.Errorf("the director dropped %d packets: %s", n, reason)
		}
	}
}

// servedBy asks for the server's name, and wants one of a mode.
func servedBy(t *testing.T, w *world, vip netip.Addr, m table.Mode) {
	t.Helper()
	c := w.Client.HTTPClient(testenv.HTTPOptions{})
	defer c.CloseIdleConnections()
	name, err := ask(c, vip)
	if err != nil || !strings.HasPrefix(name, m.String()) {
		t.Errorf("%s is served by %q, %v; want a server of %s", vip, name, err, m)
	}
}
