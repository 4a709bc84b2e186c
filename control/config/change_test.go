package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const changeable = `director:
  flows: 65536
  seed: secret
  idle: { mode: adaptive, spin: 50us }
  log: { level: info, file: /var/log/xlvs.log, flow_sample: 10 }
interfaces:
  - name: eth0
    queues: [0, 1]
    vlans: [{ name: eth0.7, id: 7, addresses: [10.7.0.1/24] }]
  - { name: eth1 }
services:
  - { name: web, address: 203.0.113.10, port: 80, protocol: tcp, forward: dr }
`

// What a running director does not take is named, each value with its place.
func TestFixed(t *testing.T) {
	old, err := Parse("old", []byte(changeable))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "lb.yaml")
	for _, c := range []struct {
		name string
		edit []string // old, new…
		want []string // empty: it can be had
	}{
		{"nothing", nil, nil},
		{"order of keys", []string{"  flows: 65536\n  seed: secret\n", "  seed: secret\n  flows: 65536\n"}, nil},
		{"what can be had", []string{"level: info", "level: debug", "/var/log/", "/srv/", "flow_sample: 10", "flow_sample: 10, flow_rate: 5",
			"director:\n", "director:\n  timeouts: { udp: 5s }\n", "forward: dr", "forward: tun"}, nil},
		{"offline use", []string{"[0, 1]\n", "[0, 1]\n    mac: \"02:00:00:00:00:01\"\n    addresses: [10.0.0.1/24]\n    mtu: 9000\n", "10.7.0.1", "10.7.0.2"}, nil},
		{"a value", []string{"65536", "32768"}, []string{"2:10: director: flows has changed from 65536 to 32768; "}},
		{"a default given", []string{"flows: 65536", "flows: 65536\n  cpus: []\n  shed: auto"}, nil},
		{"back to the default", []string{"  flows: 65536\n", ""}, []string{"2:3: director: flows has changed from 65536 to 1048576; "}},
		{"a section back to its defaults", []string{"  idle: { mode: adaptive, spin: 50us }\n", "", "flow_sample: 10 ", "flow_sample: 9"}, []string{"4:61: director.log: flow_sample has changed from 10 to 9; "}},
		{"a secret", []string{"secret", "another"}, []string{"3:9: director: seed has changed; "}},
		{"several", []string{"65536", "32768", "50us", "1ms", "[0, 1]", "all", "id: 7", "id: 8"},
			[]string{"2:10: director: flows ", "4:33: director.idle: spin has changed from 50µs to 1ms; ", "8:13: interface eth0: queues has changed from [0, 1] to all; ", "9:12: interface eth0: vlans has changed; "}},
		{"another name", []string{"name: eth1", "name: eth2"}, []string{"7:3: interface eth1: it is no longer there; ", "10:13: interface eth2: it is new; "}},
		{"one less", []string{"  - { name: eth1 }\n", ""}, []string{"7:3: interface eth1: it is no longer there; "}},
		{"order of interfaces", []string{"  - { name: eth1 }\n", "", "interfaces:\n", "interfaces:\n  - { name: eth1 }\n"}, []string{"7:3: interfaces: their order has changed; "}},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := changeable
			for i := 0; i < len(c.edit); i += 2 {
				if !strings.Contains(text, c.edit[i]) {
					t.Fatalf("the test's change of %q changes nothing", c.edit[i])
				}
				text = strings.Replace(text, c.edit[i], c.edit[i+1], 1)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			next, places, err := LoadPlaces(path)
			if err != nil {
				t.Fatal(err)
			}
			err = Fixed(old, next)
			var changes Changes
			if !errors.As(err, &changes) {
				if err != nil || len(c.want) > 0 {
					t.Errorf("%v, want %q", err, c.want)
				}
				return
			}
			located := places.Locate(changes)
			if len(located) != len(c.want) {
				t.Fatalf("%v, want %q", located, c.want)
			}
			for i, e := range located {
				if want := path + ":" + c.want[i]; !strings.HasPrefix(e.Error(), want) || !strings.HasSuffix(e.Error(), restartRemedy) {
					t.Errorf("%v, want %s…", e, want)
				}
			}
			if strings.Contains(err.Error(), path) || strings.Contains(err.Error()+located.Error(), "secret") || !strings.Contains(err.Error(), changes[0].Problem) {
				t.Errorf("without places: %v", err)
			}
		})
	}
}
