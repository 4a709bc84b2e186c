package offline

import (
	"path/filepath"
	"testing"
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
