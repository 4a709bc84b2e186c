package config

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// base is a valid configuration that tests change in one place.
const base = `interfaces:
  - name: eth0
services:
  - name: web
    address: 203.0.113.10
    port: 80
    protocol: tcp
    forward: dr
    backends:
      - { name: web1, address: 10.0.0.11 }
`

func TestBadConfigurations(t *testing.T) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil || len(files) < 30 {
		t.Fatalf("found %d broken configurations, want at least 30: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			_, err := Load(file)
			var all Errors
			if !errors.As(err, &all) {
				t.Fatalf("got %v, want Errors", err)
			}
			lines := strings.Count(string(mustRead(t, file)), "\n") + 1
			for _, e := range all {
				if e.File != file || e.Line < 1 || e.Line > lines || e.Column < 1 || e.Problem == "" || e.Remedy == "" {
					t.Errorf("incomplete or outside of the file: %#v", e)
				}
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".golden", filepath.ToSlash(err.Error())+"\n")
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if d := cmp.Diff(string(mustRead(t, file)), got); d != "" {
		t.Errorf("differs from %s (-update accepts it):\n%s", file, d)
	}
}

func mustRead(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestGoodConfigurations(t *testing.T) {
	files, err := filepath.Glob("testdata/good/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no configurations found: %v", err)
	}
	for _, file := range files {
		c, err := Load(file)
		if err != nil {
			t.Errorf("%v", err)
			continue
		}
		if err := c.Validate(); err != nil {
			t.Errorf("%s: what was parsed does not validate: %v", file, err)
		}
	}
}

func TestFullConfiguration(t *testing.T) {
	c, err := Load("testdata/good/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	one := 1
	want := &Config{Director: defaultDirector()}
	want.Director.CPUs, want.Director.Seed = []int{2, 3}, "fleet-wide-secret"
	want.Interfaces = []Interface{{
		Name: "eth0", Queues: Queues{All: true}, RSS: "auto", Attach: "auto", Bind: "auto", MAC: MAC{2, 0, 0, 0, 0, 1}, MTU: 1500,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("2001:db8::1/64")},
		VLANs: []VLAN{
			{Name: "eth0.100", ID: 100, MTU: 1500, Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24")}},
			{Name: "eth0.9.7", ID: 7, Outer: 9},
		},
	}}
	status := make([]int, 100)
	for i := range status {
		status[i] = 200 + i
	}
	want.Services = []Service{{
		Name: "web", Address: VIP{Addr: netip.MustParseAddr("203.0.113.10")}, Port: 80, Protocol: "tcp", Forward: "dr",
		Scheduler: "maglev", TableSize: 65537, NoBackend: "drop", Announce: "auto", Hash: "tuple",
		Echo: "on", Fragment: "fragment", MSSClamp: "off",
		Health: &Health{Type: "http", Path: "/healthz", Status: status, Interval: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3},
		Backends: []Backend{
			{Name: "web1", Address: netip.MustParseAddr("10.0.0.11"), Port: 80, Weight: &one},
			{Name: "web2", Address: netip.MustParseAddr("10.0.0.12"), Port: 80, Weight: &one, MAC: MAC{2, 0, 10, 0, 0, 12}},
		},
	}}
	if d := cmp.Diff(want, c, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Error(d)
	}
}

func TestAliasesAndMerges(t *testing.T) {
	c, err := Load("testdata/good/aliases.yaml")
	if err != nil {
		t.Fatal(err)
	}
	web, api, tls := c.Services[0], c.Services[1], c.Services[2]
	if web.Health.Path != "/healthz" || api.Health.Path != "/ready" || api.Health.Type != "http" {
		t.Errorf("health: %+v, %+v", web.Health, api.Health)
	}
	if len(api.Backends) != 2 || tls.Name != "web-tls" || tls.Port != 443 || tls.Address != web.Address {
		t.Errorf("got %+v and %+v", api, tls)
	}
	if &web.Backends[0] == &api.Backends[0] || tls.Backends[0].Port != 443 {
		t.Error("an alias shares memory with its anchor")
	}
}

func TestShortIntervalShortensTheTimeout(t *testing.T) {
	c, err := Parse("x", []byte(strings.Replace(base, "    backends:", "    health: { type: tcp, interval: 200ms }\n    backends:", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if h := c.Services[0].Health; h.Timeout != 200*time.Millisecond || h.Rise != 2 || h.Fall != 3 || h.Path != "" {
		t.Errorf("got %+v", h)
	}
}

func TestHostileFiles(t *testing.T) {
	aliases := "interfaces: [{name: eth0, addresses: &a [" + strings.Repeat("10.0.0.1/24,", 20000) + "]}"
	aliases += strings.Repeat(",{name: x, addresses: *a }", 100) + "]\n"
	cases := []struct{ name, data, want string }{
		{"flow depth", strings.Repeat("[", 1<<20), "x:1:33: values are nested too deeply"},
		{"block depth", strings.Repeat("- ", 1<<18), "x:1:1025: values are nested too deeply"},
		{"size", strings.Repeat("#", maxFileSize+1), "x:1:1: the file is larger than 64 MiB"},
		{"alias bomb", aliases, "aliases expand to more than 1048576 values"},
		{"alias of itself", "interfaces: &a [*a]\n", "x:1:17: interface number 1: no anchor &a stands before this alias"},
		{"merge of itself", "interfaces:\n  - &a\n    <<: *a\n", "no anchor &a stands before this alias"},
		{"not UTF-8", "a: é\nb: \xff\n", "x:2:4: the file is not UTF-8 text"},
		{"many errors", "interfaces:\n" + strings.Repeat("  - {name: eth0, mtu: 1}\n", 200), "there are 300 more problems"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("x", []byte(c.data))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %.300v, want %q", err, c.want)
			}
		})
	}
}

func TestLoadMissingFile(t *testing.T) {
	_, err := Load("testdata/missing.yaml")
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want one that wraps os.ErrNotExist", err)
	}
}

func TestValidateWithoutFile(t *testing.T) {
	c, err := Parse("x", []byte(base))
	if err != nil {
		t.Fatal(err)
	}
	c.Services[0].Forward = "masq"
	var one *Error
	if err := c.Validate(); !errors.As(err, &one) {
		t.Fatalf("got %v, want an Error", err)
	}
	want := "service web: forward is masq, which is unknown; did you mean nat? (possible: dr, nat, tun)"
	if got := one.Error(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestNearest(t *testing.T) {
	keys := []string{"name", "address", "port", "protocol", "backends"}
	for word, want := range map[string]string{
		"adress": "address", "prot": "port", "Backend": "backends", "nmae": "name", "x": "", "frobnicate": "", strings.Repeat("a", 100): "",
	} {
		if got := nearest(word, keys); got != want {
			t.Errorf("nearest to %q is %q, want %q", word, got, want)
		}
	}
}

func TestMAC(t *testing.T) {
	var m MAC
	if err := m.UnmarshalYAML([]byte(`"02:00:0a:00:00:0c"`)); err != nil || m.String() != "02:00:0a:00:00:0c" || m.IsZero() {
		t.Errorf("got %v, %v", m, err)
	}
	if err := m.UnmarshalText([]byte("02:00:0a:00:00:0c:00:01")); err == nil {
		t.Error("an EUI-64 is taken for an Ethernet address")
	}
	if text, err := (MAC{}).MarshalText(); len(text) != 0 || err != nil {
		t.Errorf("zero MAC: %q, %v", text, err)
	}
}

func TestQueues(t *testing.T) {
	for text, want := range map[string]string{"all": "all", "[0, 3]": "[0, 3]", "- 1\n- 2\n": "[1, 2]"} {
		var q Queues
		if err := q.UnmarshalYAML([]byte(text)); err != nil || q.String() != want {
			t.Errorf("%q: got %v, %v", text, q, err)
		}
	}
	if err := new(Queues).UnmarshalYAML([]byte("some")); err == nil {
		t.Error("a word other than all is taken")
	}
}

func FuzzParse(f *testing.F) {
	for _, pattern := range []string{"testdata/good/*.yaml", "testdata/bad/*.yaml"} {
		files, _ := filepath.Glob(pattern)
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("fuzz", data)
		if err == nil {
			if err := c.Validate(); err != nil {
				t.Fatalf("what was parsed does not validate: %v", err)
			}
			return
		}
		var all Errors
		if !errors.As(err, &all) || len(all) == 0 {
			t.Fatalf("the error is %T, not Errors", err)
		}
		for _, e := range all {
			if e.Line < 1 || e.Column < 1 || e.Problem == "" || e.Remedy == "" || strings.Contains(e.Error(), "\n") {
				t.Fatalf("incomplete: %#v", e)
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	var text strings.Builder
	text.WriteString("interfaces: [{name: eth0}]\nservices:\n")
	for i := range 1000 {
		fmt.Fprintf(&text, "- name: s%d\n  address: 203.0.113.10\n  port: %d\n  protocol: tcp\n  forward: dr\n  backends:\n", i, i+1)
		for j := range 10 {
			fmt.Fprintf(&text, "  - { name: b%d, address: 10.0.0.%d }\n", j, j+1)
		}
	}
	data := []byte(text.String())
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := Parse("bench", data); err != nil {
			b.Fatal(err)
		}
	}
}
