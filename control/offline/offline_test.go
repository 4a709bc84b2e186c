package offline

import (
	"errors"
	"path/filepath"
	"testing"

	"xlvs/control/config"
)

// TestCases runs testdata/cases: what becomes of a packet, feature by feature.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/cases/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no case files: %v", err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			f, err := LoadCases(name)
			if err != nil {
				t.Fatal(err)
			}
			err = f.Run(func(r CaseResult) {
				for _, m := range r.Failures {
					t.Errorf("%s:%d: %s: %s", name, r.Line, r.Name, m)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Whatever a file says, loading and running its cases gives results or an error that says where.
func FuzzParseCases(f *testing.F) {
	f.Add([]byte("config:\n  interfaces: [{ name: eth0 }]\ncases:\n  - name: a\n    packet: ip 1.2.3.4 > 5.6.7.8\n    expect: { verdict: pass, out: [] }\n"))
	f.Add([]byte("config: x.yaml\neach: [{ as: a, b: c }]\ncases:\n  - name: a\n    steps: [{ packet: { proto: tcp }, at: 1s, in: eth0, wire: 3 }]\n"))
	f.Add([]byte("config:\n  interfaces: [{ name: eth0 }]\ncases: [{ name: &x a, down: [*x], packet: *x }]\n"))
	f.Add([]byte("config: { interfaces: [{ name: eth0 }] }\ncases:\n  - name: a\n    steps:\n      - { packet: raw 00, down: [b], at: 3s }\n      - { packet: raw 00, down: [], expect: { backend: [b, ''], flow: hit } }\n"))
	f.Add([]byte("{ cases: [{ name: a, packet: 'ip 1.2.3.4 > 5.6.7.8', expect: { reason: \"${x}\" } }], config: { services: [] } }"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := ParseCases("cases.yaml", text)
		if err == nil && len(text) < 2000 {
			err = c.Run(func(CaseResult) {})
		}
		var faults config.Errors
		if err != nil && !errors.As(err, &faults) {
			t.Fatal(err)
		}
		for _, e := range faults {
			if e.Line < 1 || e.Column < 1 || e.Problem == "" {
				t.Fatalf("%q", e)
			}
		}
	})
}
