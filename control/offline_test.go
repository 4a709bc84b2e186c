package control

import (
	"net/netip"
	"strings"
	"testing"

	"xlvs/control/api"
	"xlvs/control/config"
	"xlvs/dataplane"
	"xlvs/dataplane/memio"
	"xlvs/dataplane/table"
)

const offlineConfig = `
interfaces:
  - { name: eth0, mac: "02:00:00:00:00:01", addresses: [192.0.2.1/24] }
  - { name: eth1, addresses: [10.0.0.1/24, "fe80::1/64", "2001:db8:1::1/64"], mtu: 9000 }
services:
  - name: web
    address: 203.0.113.10
    port: 80
    protocol: tcp
    forward: dr
    health: { type: tcp }
    backends:
      - { name: near, address: 10.0.0.11 }
      - { name: far, address: 198.51.100.11, mac: "02:aa:00:00:00:01" }
      - { name: asleep, address: 10.0.0.12, weight: 0 }
  - { name: tunnel, address: 203.0.113.11, port: 80, protocol: tcp, forward: tun, backends: [{ name: six, address: "2001:db8:1::11" }, { name: lost, address: "2001:db8:9::11" }] }
`

func offlineOf(t *testing.T, down ...string) *Offline {
	t.Helper()
	conf, err := config.Parse("test", []byte(offlineConfig))
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOffline(conf, down)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// Next hops come out of the configuration.
func TestOfflineNextHops(t *testing.T) {
	o := offlineOf(t)
	want := map[string]table.Backend{
		"near":   {Out: 1, MTU: 9000, Eth: table.Eth(table.MAC{2, 0, 10, 0, 0, 11}, table.MAC{2, 0, 0, 0, 0, 2})},
		"far":    {Out: 0, MTU: 1500, Eth: table.Eth(table.MAC{2, 0xaa, 0, 0, 0, 1}, table.MAC{2, 0, 0, 0, 0, 1})},
		"asleep": {Out: 1, MTU: 9000, Eth: table.Eth(table.MAC{2, 0, 10, 0, 0, 12}, table.MAC{2, 0, 0, 0, 0, 2})},
		"six":    {Out: 1, MTU: 9000, Eth: table.Eth(table.MAC{2, 0, 0, 0, 0, 0x11}, table.MAC{2, 0, 0, 0, 0, 2})},
	}
	for _, b := range o.Snapshot.Backends {
		w, ok := want[b.Name]
		if b.Name == "lost" {
			if b.Resolved {
				t.Error("a tunnel without an address to start from is resolved")
			}
			continue
		}
		if !ok || !b.Up || !b.Resolved || b.Out != w.Out || b.MTU != w.MTU || b.Eth != w.Eth {
			t.Errorf("%s: up %t, resolved %t, out %d, MTU %d, % x; want %d, %d, % x", b.Name, b.Up, b.Resolved, b.Out, b.MTU, b.Eth, w.Out, w.MTU, w.Eth)
		}
		if b.Name == "six" && b.TunSrc.Netip() != netip.MustParseAddr("2001:db8:1::1") {
			t.Errorf("tunnel from %v", b.TunSrc.Netip())
		}
	}
	if len(o.Warnings) != 1 || !strings.Contains(o.Warnings[0], "backend lost: interface eth0 has no IPv6 address to tunnel from") {
		t.Errorf("warnings: %q", o.Warnings)
	}
	if o.Checked[0] != [6]byte{2, 0, 0, 0, 0, 1} || o.Checked[1] != [6]byte{} {
		t.Errorf("MAC addresses to check: % x", o.Checked)
	}
}

// A director's rules hold its own addresses, and its subnets' broadcast addresses.
func TestOfflineRules(t *testing.T) {
	r := offlineOf(t).Rules
	if len(r.Services) != 2 || len(r.Replies) != 0 {
		t.Errorf("%+v", r)
	}
	for _, want := range []string{"192.0.2.1", "10.0.0.1", "2001:db8:1::1", "10.0.0.255"} {
		found := false
		for _, a := range r.Locals {
			found = found || a == netip.MustParseAddr(want)
		}
		if !found {
			t.Errorf("%s is missing in %v", want, r.Locals)
		}
	}
}

func TestOfflineDown(t *testing.T) {
	for _, names := range [][]string{{"near"}, {"web/near"}} {
		o := offlineOf(t, names...)
		for _, b := range o.Snapshot.Backends {
			if b.Up == (b.Name == "near") {
				t.Errorf("%v: %s is up: %t", names, b.Name, b.Up)
			}
		}
		if s := o.Snapshot.Services[0]; len(s.Members) != 1 {
			t.Errorf("%v: %d members", names, len(s.Members))
		}
	}
	conf, err := config.Parse("test", []byte(offlineConfig))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"nobody", "tunnel/near", "web"} {
		if _, err := NewOffline(conf, []string{name}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s down: %v", name, err)
		}
	}
}

// The explanation's slot is in truth the backend's: the table says so.
func TestExplain(t *testing.T) {
	o := offlineOf(t, "asleep")
	e := testEngine(t)
	if err := e.Publish(o.Snapshot); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for port := range uint16(200) {
		q := api.Question{Proto: "tcp", Src: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), 1000+port), Dst: netip.MustParseAddrPort("203.0.113.10:80")}
		x := o.Explain(e, q)
		s := &o.Snapshot.Services[0]
		if b := &o.Snapshot.Backends[s.Members[s.Slots[x.Slot]].Slot()]; b.Name != x.Backend || b.Addr.Netip() != x.Address || !x.Reached || x.Slots != len(s.Slots) {
			t.Fatalf("%+v, but slot %d is %s's", x, x.Slot, b.Name)
		}
		seen[x.Backend]++
		shares := map[string]api.Share{}
		sum := 0
		for _, b := range x.Backends {
			shares[b.Name] = b
			sum += b.Slots
		}
		if sum != x.Slots || len(x.Backends) != 3 || shares["asleep"].Up || shares["asleep"].Slots != 0 || shares["near"].Slots < x.Slots/3 {
			t.Fatalf("%+v", x)
		}
	}
	if seen["near"] < 50 || seen["far"] < 50 {
		t.Errorf("200 flows went %v", seen)
	}
	none := o.Explain(e, api.Question{Proto: "udp", Src: netip.MustParseAddrPort("1.2.3.4:5"), Dst: netip.MustParseAddrPort("203.0.113.10:80")})
	if none.Service != "" || none.Backends == nil {
		t.Errorf("%+v", none)
	}
}

// testEngine makes an engine that is never started.
func testEngine(t *testing.T) *dataplane.Engine {
	t.Helper()
	mem, err := dataplane.NewMemory(make([]byte, 2048), 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := dataplane.New(dataplane.Options{Flows: 1024, Workers: []dataplane.WorkerOptions{{CPU: -1, Memory: mem, Ports: []dataplane.Port{memio.New(mem), memio.New(mem)}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}
