package main_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"

	"xlvs/testenv/demo"
)

// TestDemo runs the demo as its users do, and looks at what it shows and leaves.
func TestDemo(t *testing.T) {
	needRoot(t)
	cmd := exec.CommandContext(t.Context(), program, "demo", "-o", "json")
	var out, text bytes.Buffer
	cmd.Stdout = &out
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	report, err := cmd.StderrPipe()
	fatal(t, err)
	fatal(t, cmd.Start())
	for lines := bufio.NewScanner(report); lines.Scan(); {
		fmt.Fprintln(&text, lines.Text())
		if strings.HasPrefix(lines.Text(), "Steady state") {
			// What a connection brings that a server has reset. It does not stop the demo.
			fatal(t, cmd.Process.Signal(syscall.SIGPIPE))
		}
	}
	if err := cmd.Wait(); err != nil {
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
	for _, s := range []string{"director:", "interfaces:", "web-dr-v4", "web-dr-v6", "web-tun-v4", "web-tun-v6", "web-nat-v4", "web-nat-v6", "nat3"} {
		if !regexp.MustCompile(`(?m)^ {4,}.*\b` + s).MatchString(text.String()) {
			t.Errorf("the configuration is shown without %s", s)
		}
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

// TestDemoReaderLeaves stops reading in the middle of the configuration, as head does. The lab must go all the same.
func TestDemoReaderLeaves(t *testing.T) {
	needRoot(t)
	r, w, err := os.Pipe()
	fatal(t, err)
	cmd := exec.CommandContext(t.Context(), program, "demo")
	var text bytes.Buffer
	cmd.Stdout, cmd.Stderr = w, &text
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	fatal(t, cmd.Start())
	fatal(t, w.Close())
	_, err = bufio.NewReaderSize(r, 16).ReadString('\n')
	fatal(t, errors.Join(err, r.Close()))
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 1 || text.String() != "xlvs: demo: interrupted; the lab is removed\n" {
		t.Errorf("%v, printed %q", err, &text)
	}
	lab := fmt.Sprintf("/run/netns/xlvs-%d-*", cmd.Process.Pid)
	if left, err := filepath.Glob(lab); err != nil || len(left) > 0 {
		t.Errorf("the demo leaves %v, %v", left, err)
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
