package main_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"xlvs/control/api"
	"xlvs/dataplane/table"
	"xlvs/testenv"
)

// TestScripts runs testdata/script. Beside testscript's own commands there is
//
//	status N COMMAND...    the command must end with status N
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", filepath.Dir(program)+string(os.PathListSeparator)+e.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": expectStatus},
	})
}

func expectStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N COMMAND...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%v ended with status %d, want %d", args[1:], got, want)
	}
}

// faultLine is how editors expect a fault: file, line, column, what is wrong.
var faultLine = regexp.MustCompile(`^(.+\.yaml):([1-9][0-9]*):([1-9][0-9]*): (.{10,})$`)

// TestCheckBad runs `xlvs check` on every broken configuration that the loader is tested with.
func TestCheckBad(t *testing.T) {
	const dir = "../../control/config/testdata/bad"
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil || len(files) < 20 {
		t.Fatalf("%d broken configurations, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(program, "check", "-c", file)
			var out, text bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &text
			var exit *exec.ExitError
			if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 2 {
				t.Errorf("%v, want status 2", err)
			}
			if out.Len() > 0 {
				t.Errorf("standard output: %s", &out)
			}
			if text.Len() == 0 {
				t.Error("no message")
			}
			content, err := os.ReadFile(file)
			fatal(t, err)
			lines := bytes.Count(content, []byte("\n")) + 1
			for line := range strings.Lines(text.String()) {
				m := faultLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
				if m == nil || m[1] != file {
					t.Errorf("%q is not %s:line:column: message", line, file)
					continue
				}
				if n, _ := strconv.Atoi(m[2]); n > lines {
					t.Errorf("%q points behind the file's %d lines", line, lines)
				}
			}
		})
	}
}

// TestShow asks a running director with each of the commands that show something.
func TestShow(t *testing.T) {
	w := start(t, setup{lab: testenv.Options{Servers: 2}})
	w.answers(t)
	var st api.Status
	w.json(t, &st, "status")
	if st.PID != w.dir.Process.Cmd.Process.Pid || st.File != w.dir.File || st.Services != 18 || st.Backends != 36 || st.Up != 36 {
		t.Errorf("status: %+v", st)
	}
	for _, m := range w.Options.Modes {
		if st.Forwarded[m.String()] == 0 {
			t.Errorf("nothing was forwarded by %s: %v", m, st.Forwarded)
		}
	}
	if len(st.Interfaces) != 1 || !st.Interfaces[0].Up || st.Interfaces[0].Steered["service"] == 0 || len(st.Workers) != 1 || st.Workers[0].FlowsNew != 6 {
		t.Errorf("status: %+v, %+v", st.Interfaces, st.Workers)
	}
	var services []api.Service
	w.json(t, &services, "services")
	for _, s := range services {
		web, nat := strings.HasPrefix(s.Name, "web-"), s.Forward == table.NAT.String()
		if s.Slots != 65537 || s.Up != 2 || s.Backends != 2 || web != (s.Flows == 1) || web != (s.Bytes > 0) || (web && nat) != (s.ReplyBytes > 0) {
			t.Errorf("services: %+v", s)
		}
	}
	var backends []api.Backend
	w.json(t, &backends, "backends")
	slots := map[string]int{}
	for _, b := range backends {
		slots[b.Service] += b.Slots
		if !b.Up || b.NextHop == "" || b.Interface != "eth0" || b.Weight != 1 || b.Since == nil || b.Reason == "" {
			t.Errorf("backends: %+v", b)
		}
	}
	if len(services) != 18 || len(backends) != 36 || len(slots) != 18 {
		t.Errorf("%d services, %d backends, slots %v", len(services), len(backends), slots)
	}
	for _, c := range []struct {
		command string
		rows    int
		want    []string
	}{
		{"status", 0, []string{"36 of 36 backends up", "eth0", "native", "copy", "forwarded: dr "}},
		{"services", 19, []string{"SERVICE", "web-dr-v4", "dgram-nat-v6", "2001:db8::13"}},
		{"backends", 37, []string{"BACKEND", "nat2", st.Interfaces[0].Name, "status 200"}},
	} {
		out, status := w.xlvs(t, c.command, "--api", w.api())
		if n := strings.Count(out, "\n"); status != 0 || c.rows != 0 && n != c.rows {
			t.Errorf("xlvs %s: status %d, %d lines:\n%s", c.command, status, n, out)
		}
		for _, s := range c.want {
			if !strings.Contains(out, s) {
				t.Errorf("xlvs %s does not show %q:\n%s", c.command, s, out)
			}
		}
	}
}

// json runs a command with -o json. Keys that the API's types do not have are an error.
func (w *world) json(t *testing.T, into any, command string) {
	t.Helper()
	out, status := w.xlvs(t, command, "--api", w.api(), "-o", "json")
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil || status != 0 {
		t.Fatalf("xlvs %s -o json: status %d, %v:\n%s", command, status, err, out)
	}
}

// TestSecondDirector starts a director where one is running already: it must say so, whether they would share the API's socket or
// the interface alone, and disturb nothing.
func TestSecondDirector(t *testing.T) {
	w := start(t, setup{lab: testenv.Options{Modes: []table.Mode{table.NAT}, Servers: 1}})
	text, err := os.ReadFile(w.dir.File)
	fatal(t, err)
	other := strings.Replace(string(text), w.api(), filepath.Join(t.TempDir(), "other.sock"), 1)
	if other == string(text) {
		t.Fatalf("no %s in\n%s", w.api(), text)
	}
	for want, text := range map[string]string{"another director answers": string(text), "eth0": other} {
		file := filepath.Join(t.TempDir(), "second.yaml")
		fatal(t, os.WriteFile(file, []byte(text), 0o600))
		var out bytes.Buffer
		cmd := w.Director.Command(t.Context(), program, "run", "-c", file)
		cmd.Stdout, cmd.Stderr = &out, &out
		err := w.Director.Run(cmd)
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Errorf("%v, want status 1", err)
		}
		if !strings.HasPrefix(out.String(), "xlvs: ") || !strings.Contains(out.String(), want) {
			t.Errorf("it said %q, want %q", &out, want)
		}
	}
	w.answers(t)
}

// TestDemoNotRoot runs the demo as somebody else: one line says what it needs.
func TestDemoNotRoot(t *testing.T) {
	want := "xlvs: demo needs root: it makes network namespaces on this machine, and removes them again; run: sudo make demo\n"
	if got := asNobody(t, func(cmd *exec.Cmd) error { return cmd.Start() }, "/dev/null", "demo"); got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
}

// TestRunNotRoot runs a director without the capabilities that it needs: one line says which, and how to have them.
func TestRunNotRoot(t *testing.T) {
	file := filepath.Join(t.TempDir(), "director.yaml")
	fatal(t, os.WriteFile(file, []byte("interfaces: [{ name: none0 }]\n"), 0o644))
	want := "xlvs: run needs root, or the capabilities that docs/running.md lists; this process lacks CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON: run it with sudo\n"
	if got := asNobody(t, func(cmd *exec.Cmd) error { return cmd.Start() }, file, "run", "-c", "/proc/self/fd/4"); got != want {
		t.Errorf("printed %q, want %q", got, want)
	}
}

// asNobody runs the program as an unprivileged user, with file as its descriptor 4, and returns what it prints. The
// status must be 1. Others may not go through the directories of either file, so they get them open.
func asNobody(t *testing.T, start func(*exec.Cmd) error, file string, args ...string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/fd/3", args...)
	for _, name := range []string{program, file} {
		f, err := os.Open(name)
		fatal(t, err)
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	if os.Geteuid() == 0 {
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	fatal(t, start(cmd))
	if err, exit := cmd.Wait(), (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("%v: %v, want status 1", args, err)
	}
	return out.String()
}
