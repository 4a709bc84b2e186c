package offline

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xlvs/control/config"
)

const (
	checkConfig = `interfaces:
  - { name: eth0, mac: "02:00:00:00:00:01", addresses: [10.0.0.1/24] }
  - { name: eth1, mac: "02:00:00:00:00:02" }
services:
  - { name: web, address: 203.0.113.10, port: 80, protocol: tcp, forward: dr, backends: [{ name: web1, address: 10.0.0.11 }, { name: web2, address: 10.0.0.12 }] }
  - { name: dns, address: 203.0.113.10, port: 53, protocol: udp, forward: dr, backends: [{ name: dns1, address: 10.0.0.13 }] }
`
	checkHead  = "config: d.yaml\ncases:\n"
	flowConfig = `{ interfaces: [{ name: eth0 }], services: [{ name: web, address: 203.0.113.10, port: 80, protocol: tcp, forward: dr, backends: [{ name: web1, address: 10.0.0.11 }] }] }`
	syn        = "packet: ip 1.2.3.4 > 203.0.113.10 / tcp 1 > 80 S"
	inFlow     = "[{ name: a, " + syn + ", expect: { verdict: forward, backend: web1 } }]"
)

// faultsOf loads a case file and returns what is wrong with it, without the file's name.
func faultsOf(t *testing.T, text string) string {
	t.Helper()
	dir := t.TempDir()
	fatal(t, os.WriteFile(filepath.Join(dir, "d.yaml"), []byte(checkConfig), 0o600))
	fatal(t, os.WriteFile(filepath.Join(dir, "bad.yaml"), []byte("interfaces:\n  - { nam: eth0 }\n"), 0o600))
	name := filepath.Join(dir, "c.yaml")
	fatal(t, os.WriteFile(name, []byte(text), 0o600))
	f, err := LoadCases(name)
	if err == nil {
		fatal(t, f.Run(func(r CaseResult) {
			for _, m := range r.Failures {
				t.Errorf("%s\n%s: %s", text, r.Name, m)
			}
		}))
		return ""
	}
	var faults config.Errors
	if !errors.As(err, &faults) {
		t.Fatalf("%v: not of the file", err)
	}
	return strings.ReplaceAll(strings.ReplaceAll(err.Error(), name+":", ""), dir+"/", "")
}

// Each of these would pass for ever, or fail and puzzle. All that is wrong with a file is told at once, and how to right it.
func TestRefusedCases(t *testing.T) {
	const (
		drops  = "backend_gone, fragment, fragment_overlap, fragment_timeout, frame_too_large, icmp, icmp_limited, malformed, martian, no_backend, no_flow, no_headroom, no_memory, no_neighbour, not_ours, reply_no_flow, too_big, ttl, tx_full"
		passes = "pass_control, pass_extension, pass_l2, pass_local, pass_malformed, pass_not_ip, pass_other, pass_vip_other"
		write  = "; docs/replay.md says how cases are written"
		one    = "  - name: a\n    " + syn + "\n"
	)
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"misspelt names": {checkHead + one + "    expect: { verdict: forwarded, flow: news, service: wbe, backend: [web1, wbe2] }\n", []string{
			`5:24: case a: there is no verdict "forwarded"; did you mean forward? (possible: drop, forward, hold, pass, reply)`,
			`5:41: case a: there is no flow "news"; did you mean new? (possible: hit, new, none)`,
			`5:56: case a: there is no service "wbe"; did you mean web? (possible: dns, web)`,
			`5:77: case a: there is no backend "wbe2"; did you mean web2? (possible: dns1, web1, web2)`,
		}},
		"names that are not none's": {checkHead + one + "    expect: { service: none, backend: none }\n", []string{
			`5:24: case a: there is no service "none"; write "" to say that there is none`,
			`5:39: case a: there is no backend "none"; write "" to say that there is none`,
		}},
		"another service's backend": {checkHead + one + "    expect: { service: dns, backend: web1 }\n", []string{`5:38: case a: there is no backend of service dns "web1"; use dns1`}},
		"reasons":                   {checkHead + one + "    expect: { verdict: drop, reason: no_flwo }\n", []string{`5:38: case a: there is no reason of drop "no_flwo"; did you mean no_flow? (possible: ` + drops + ")"}},
		"reasons of another verdict": {checkHead + one + "    expect: { verdict: pass, reason: no_flow }\n", []string{
			`5:38: case a: there is no reason of pass "no_flow"; use one of ` + passes}},
		"an empty list": {checkHead + one + "    expect: { backend: [] }\n", []string{`5:24: case a: backend is an empty list, which no backend is in; name backends, or write "" for none`}},
		"no expectation": {checkHead + one + "  - name: b\n    " + syn + "\n    expect: {}\n  - name: c\n    steps:\n      - " + syn + "\n      - " + syn + "\n        expect:\n", []string{
			"3:5: case a: it expects nothing, so it could not fail; give it an `expect`",
			"5:5: case b: it expects nothing, so it could not fail; give it an `expect`",
			"6:13: case b: expect says nothing; say what is to become of the packet, or leave `expect` out",
			"8:5: case c: it expects nothing, so it could not fail; give it an `expect`",
		}},
		"time": {checkHead + "  - name: a\n    steps:\n      - { at: 5, " + syn + " }\n      - { at: 10s, " + syn + " }\n      - { at: 2s, " + syn + ", expect: { flow: hit } }\n", []string{
			`5:15: case a: at: "5" is not a duration; write 300ms or 15m`,
			"7:15: case a: at: 2s is before the step before, at 10s; time counts from the beginning of the case, and does not run backwards",
		}},
		"interfaces and lengths": {checkHead + "  - name: a\n    in: eth7\n    wire: 5\n    " + syn + "\n    expect: { out: [eth7 raw 00, eth0 ip 1.2.3.4 > 5.6.7.8, eth0 eth x] }\n", []string{
			`4:9: case a: there is no interface "eth7"; did you mean eth0? (possible: eth0, eth1)`,
			"5:11: case a: wire: 5 is less than the 54 bytes that the packet has; it is for packets of which a part is missing",
			`7:21: case a: out: frame 1 begins with "eth7", which is no interface; write INTERFACE FRAME; did you mean eth0? (possible: eth0, eth1)`,
			"7:34: case a: out: frame 2 has no Ethernet header; write INTERFACE eth SRC > DST / …: frames are compared from their first byte",
			"7:61: case a: out: frame 3: eth x: something is missing" + write,
		}},
		"what is down": {checkHead + "  - name: a\n    down: [web/web3]\n    steps:\n      - " + syn + "\n        down: dns/web1\n        expect: { flow: new }\n", []string{
			`4:12: case a: there is no backend "web/web3"; did you mean web/web1? (possible: dns/dns1, dns1, web/web1, web/web2, web1, web2)`,
			`7:15: case a: there is no backend "dns/web1"; use one of dns/dns1, dns1, web/web1, web/web2, web1, web2`,
		}},
		"variables": {"config: d.yaml\neach: [{ as: x, vip: 203.0.113.10 }, { as: y, vip: 203.0.113.10 }]\ncases:\n  - { name: a, packet: \"ip 1.2.3.4 > ${vpi}\", expect: { flow: none } }\n", []string{
			"4:24: case a: ${vpi} has no value; did you mean vip? (possible: as, vip)"}},
		"no variables at all": {checkHead + "  - { name: a, packet: \"ip 1.2.3.4 > ${vip}\", expect: { flow: none } }\n", []string{
			"3:24: case a: ${vip} has no value; give it one in a mapping of `each`"}},
		"steps and a packet": {checkHead + "  - name: a\n    in: eth1\n    steps: [{ " + syn + ", expect: { flow: new } }]\n  - name: b\n    steps: []\n    expect: { flow: new }\n", []string{
			"3:5: case a: it has both `steps` and a packet, or what belongs to one, of its own; put all but name, down and each into `steps`",
			"6:5: case b: there is no packet; give it one with `packet`",
		}},
		"packets": {checkHead + "  - { name: a, packet: { src: 1.2.3.4 }, expect: { flow: none } }\n  - { name: b, packet: \"\", expect: { flow: none } }\n  - { packet: ip 1.2.3.4 > 5.6.7.8 / tpc 1, expect: { flow: none } }\n", []string{
			"3:24: case a: the packet has neither proto nor hex; write proto: tcp, udp or icmp, or a line of layers" + write,
			"4:24: case b: the packet is empty" + write,
			"5:5: case number 3: it has no name; give it one with `name`",
			`5:15: case number 3: tpc 1: there is no layer "tpc"` + write,
		}},
		"types, and a key": {checkHead + "  - { name: [a], packet: 5 }\n  - { name: b, packet: x, expect: forward }\n  - text\n  - { name: c, stesp: [] }\n", []string{
			"3:13: a list stands where a text belongs" + write,
			"4:35: a text stands where a mapping belongs" + write,
			"5:5: a text stands where a mapping belongs" + write,
			"6:16: unknown key stesp; did you mean steps? (possible: at, down, each, expect, in, name, packet, steps, wire)",
		}},
		"nothing":              {"# nothing\n", []string{"1:1: the file is empty" + write}},
		"a list":               {"- a\n", []string{"1:1: the file is no mapping with config and cases" + write}},
		"two documents":        {checkHead + one + "    expect: { flow: new }\n---\nconfig: d.yaml\n", []string{"7:1: the file has a second YAML document; remove the --- before it, or make it a file of its own"}},
		"no such config":       {"config: e.yaml\ncases: " + inFlow, []string{"1:9: cannot read the configuration: open e.yaml: no such file or directory; write `config: FILE`, relative to this file, or the configuration itself below `config:`"}},
		"config as a text":     {"config: |\n  interfaces: []\ncases: " + inFlow, []string{"1:9: the configuration is a text; write it as a mapping below `config:`, without the |"}},
		"config as a list":     {"config: [d.yaml]\ncases: " + inFlow, []string{"1:9: config is neither a file's name nor a mapping; write `config: FILE`"}},
		"a wrong config":       {"config: bad.yaml\ncases: [{ name: a }]\n", []string{"2:9: case a: there is no packet; give it one with `packet`", "2:9: case a: it expects nothing, so it could not fail; give it an `expect`", "bad.yaml:2:7: interface number 1: unknown key nam; did you mean name? (possible: addresses, attach, bind, channels, mac, mtu, name, queues, rss, vlans)"}},
		"a config in brackets": {"config: { interfaces: [{ name: eth0 }],\n  é: 1, servces: [] }\ncases: " + inFlow, []string{"2:3: unknown key é; use one of director, interfaces, services", "2:9: unknown key servces; did you mean services? (possible: director, interfaces, services)"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(strings.Join(c.want, "\n"), strings.TrimSpace(faultsOf(t, c.text))); diff != "" {
				t.Errorf("%s\n(-want +got):\n%s", c.text, diff)
			}
		})
	}
}

// A configuration may stand in the file in any style.
func TestInlineConfigurations(t *testing.T) {
	for name, text := range map[string]string{
		"in a line":        "config: " + flowConfig + "\ncases: " + inFlow + "\n",
		"in several lines": "config: " + strings.ReplaceAll(flowConfig, ", services", ",\n\n  # more\n  services") + "\ncases: " + inFlow + "\n",
		"all in brackets":  "{ config: " + flowConfig + ", cases: " + inFlow + " }\n",
		"last of all":      "{ cases: " + inFlow + ",\n\"config\": " + flowConfig + "\n}\n",
		"as a block":       "config:\n\n# it\n  " + strings.ReplaceAll(strings.TrimSpace(checkConfig), "\n", "\n  ") + "\n\n# end\ncases: " + strings.ReplaceAll(inFlow, "web1", "[web1, web2]") + "\n",
		"of one key":       "config:\n  interfaces: [{ name: eth0 }]\ncases:\n  - { name: a, " + syn + ", expect: { verdict: pass } }\n",
		"with line ends of DOS and a mark of its encoding": "\ufeffconfig: " + flowConfig + "\r\ncases: " + inFlow + "\r\n",
	} {
		if faults := faultsOf(t, text); faults != "" {
			t.Errorf("%s: %s\n%s", name, faults, text)
		}
	}
}

// An empty text stands for none, and other ways to say things stay possible.
func TestAcceptedCases(t *testing.T) {
	for _, text := range []string{
		checkHead + "  - { name: a, packet: ip 1.2.3.4 > 5.6.7.8, expect: { verdict: pass, service: \"\", backend: \"\", flow: none, reason: pass_other, out: [] } }\n",
		checkHead + "  - { name: a, packet: &p ip 1.2.3.4 > 5.6.7.8, expect: &e { verdict: pass } }\n  - { name: b, packet: *p, expect: *e }\n",
		checkHead + "  - name: a\n    steps:\n      - { at: 1s, " + syn + " }\n      - { at: 1s, wire: 54, " + syn + ", expect: { reason: service } }\n",
	} {
		if faults := faultsOf(t, text); faults != "" {
			t.Errorf("%s\n%s", faults, text)
		}
	}
}
