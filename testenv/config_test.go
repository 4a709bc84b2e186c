package testenv

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xlvs/control/config"
	"xlvs/dataplane/table"
)

// planned is a lab with addresses and servers but no hosts: enough to write a configuration.
func planned(layout Layout) *Lab {
	l := &Lab{
		Options:            Options{Layout: layout, Modes: []table.Mode{table.DR, table.TUN, table.NAT}},
		plan:               plan{layout},
		DirectorInterfaces: []string{"eth0"},
	}
	for _, m := range l.Options.Modes {
		for n := 1; n <= 2; n++ {
			l.Servers = append(l.Servers, &Server{
				Host: &Host{Name: serverName(m, n)}, Mode: m, lab: l,
				v4: l.plan.server(m, n, false), v6: l.plan.server(m, n, true),
			})
		}
	}
	return l
}

func TestConfigIsValid(t *testing.T) {
	for _, layout := range []Layout{Switched, Routed} {
		for name, o := range map[string]ConfigOptions{
			"default": {},
			"all": {
				API: "/run/lab/api.sock", LogFile: "/run/lab/log.json", LogLevel: "debug", CPUs: []int{0, 1}, Flows: 1024,
				TableSize: 251, Interval: time.Second, CrossTunnel: true, Extra: "  idle: { mode: busy }",
			},
			"unchecked": {NoHealth: true},
		} {
			l := planned(layout)
			text := l.Config(o)
			c, err := config.Parse("lab.yaml", []byte(text))
			if err != nil {
				t.Errorf("%s, %s: %v\n%s", layout, name, err, text)
				continue
			}
			if len(c.Services) != 18 || len(c.Interfaces) != 1 {
				t.Errorf("%s, %s: %d services on %d interfaces, want 18 on 1", layout, name, len(c.Services), len(c.Interfaces))
			}
		}
	}
}

func TestConfigText(t *testing.T) {
	want := `director:
  flows: 65536
  seed: lab
interfaces:
  - name: eth0
services:
  - name: web-tun-v4
    address: "203.0.113.12"
    port: 80
    protocol: tcp
    forward: tun
    health: { type: http, path: /healthz, port: 80, interval: 200ms, timeout: 200ms, rise: 2, fall: 2 }
    backends:
      - { name: tun1, address: "2001:db8:3::2:1", port: 80 }
      - { name: tun2, address: "2001:db8:3::2:2", port: 80 }
  - name: dgram-nat-v6
    address: "2001:db8:f::13"
    port: 7
    protocol: udp
    forward: nat
    health: { type: http, path: /healthz, port: 8080, interval: 200ms, timeout: 200ms, rise: 2, fall: 2 }
    backends:
      - { name: nat1, address: "2001:db8:2::3:1", port: 7007 }
      - { name: nat2, address: "2001:db8:2::3:2", port: 7007 }
`
	got := planned(Routed).Config(ConfigOptions{CrossTunnel: true, Only: func(s Service) bool {
		return s.Name == "web-tun-v4" || s.Name == "dgram-nat-v6"
	}})
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Every address of a plan belongs to one host only, also with as many servers as a lab may have.
func TestPlanHasNoAddressTwice(t *testing.T) {
	for _, layout := range []Layout{Switched, Routed} {
		p := plan{layout}
		seen := map[string]bool{}
		add := func(a string) {
			if seen[a] {
				t.Errorf("%s: %s is used twice", layout, a)
			}
			seen[a] = true
		}
		for _, v6 := range families {
			add(p.client(v6).String())
			for _, a := range p.director(v6) {
				add(a.String())
			}
			if layout == Routed {
				for _, s := range []segment{access, front, back, far} {
					add(router(s, v6).String())
				}
			}
			for _, m := range []table.Mode{table.DR, table.TUN, table.NAT} {
				add(p.vip(m, v6).String())
				for n := 1; n <= 250; n++ {
					add(p.server(m, n, v6).String())
				}
			}
		}
	}
}
