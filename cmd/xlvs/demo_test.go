package main_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"xlvs/testenv/demo"
)

// TestDemo runs the demo as its users do, and looks at what it shows and leaves.
func TestDemo(t *testing.T) {
	needRoot(t)
	cmd := exec.CommandContext(t.Context(), program, "demo", "-o", "json")
	var out, text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &text
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &text)
	}
	var r demo.Result
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Rows) != 6 {
		t.Fatalf("%d rows", len(r.Rows))
	}
	for _, row := range r.Rows {
		nat := row.Mode == "nat"
		if row.Failures != 0 || row.Requests == 0 || len(row.Backends) != 3 || row.ToDirector.Packets == 0 || row.ToClient.Packets == 0 {
			t.Errorf("%+v", row)
		}
		if nat && row.Crossed != row.ToClient || !nat && row.Crossed != (demo.Traffic{}) {
			t.Errorf("%s %s: %+v came to the client, %+v crossed the director", row.Mode, row.Family, row.ToClient, row.Crossed)
		}
		for name, n := range row.Backends {
			if share := float64(n) / float64(row.Requests); share < 0.2 || share > 0.5 {
				t.Errorf("%s %s: %s has a share of %.2f", row.Mode, row.Family, name, share)
			}
		}
	}
	if f := r.Kill.Faults(); len(f) > 0 || r.Kill.Kept == 0 {
		t.Errorf("%v, %+v", f, r.Kill)
	}
	for line := range strings.Lines(text.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 120 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if left, err := os.ReadDir(cmdTemp(cmd)); err != nil || len(left) > 0 {
		t.Errorf("the demo leaves %v, %v", left, err)
	}
}

func cmdTemp(cmd *exec.Cmd) string {
	for _, e := range cmd.Env {
		if dir, ok := strings.CutPrefix(e, "TMPDIR="); ok {
			return dir
		}
	}
	return ""
}
