package offline

import (
	"strings"
	"testing"
)

// id=any fits the identification that there is, of the outermost IPv4 header and nothing else.
func TestAnyIdentification(t *testing.T) {
	const head = `config:
  interfaces: [{ name: eth0, mac: "02:00:00:00:00:01", addresses: [10.0.0.1/24] }]
  services: [{ name: web, address: 203.0.113.10, port: 80, protocol: tcp, forward: dr, backends: [{ name: web1, address: 10.0.0.11 }] }]
cases:
  - name: a
    packet: ip 198.51.100.7 > 203.0.113.10 id=4711 / tcp 40000 > 80 S
    expect: { out: "eth0 eth 02:00:00:00:00:01 > 02:00:0a:00:00:0b / `
	for want, out := range map[string]string{
		"":                           "ip 198.51.100.7 > 203.0.113.10 ttl=63 id=any / tcp 40000 > 80 S",
		"frame 1 is not as expected": "ip 198.51.100.7 > 203.0.113.10 ttl=62 id=any / tcp 40000 > 80 S",
		"want eth0 eth 02:00:00:00:00:01 > 02:00:0a:00:00:0b / ip 198.51.100.7 > 203.0.113.10 ttl=63 id=4711 / icmp": "ip 198.51.100.7 > 203.0.113.10 ttl=63 id=any / icmp 8/0",
	} {
		c, err := ParseCases("x", []byte(head+out+"\" }\n"))
		if err != nil {
			t.Fatal(err)
		}
		var said []string
		if err := c.Run(func(r CaseResult) { said = append(said, r.Failures...) }); err != nil {
			t.Fatal(err)
		}
		if all := strings.Join(said, "\n"); want == "" && all != "" || !strings.Contains(all, want) {
			t.Errorf("%s: %s", out, all)
		}
	}
	// A frame that was not sent has none.
	if got := anyID("ip 1.2.3.4 > 5.6.7.8 id=any", nil); got != "ip 1.2.3.4 > 5.6.7.8 id=0" {
		t.Error(got)
	}
}
