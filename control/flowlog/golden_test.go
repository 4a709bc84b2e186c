package flowlog

import (
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/events.jsonl anew")

// TestEverySample compares a line of every event, byte by byte, with the golden file.
func TestEverySample(t *testing.T) {
	c := &clock{epoch}
	l, path := openTest(t, Options{Level: "debug"}, c)
	for k, r := range samples() {
		if r == nil {
			t.Fatalf("event %s has no sample", kinds[k].name)
		}
		if int(r.kind()) != k {
			t.Fatalf("the sample of %s writes %s", kinds[k].name, kinds[r.kind()].name)
		}
		l.Emit(r)
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/events.jsonl"
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("events differ from %s (go test -update after a wanted change):\n%s", golden, d)
	}
}
