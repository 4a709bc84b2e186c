package main_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"xlvs/dataplane/table"
	"xlvs/testenv"
	"xlvs/testenv/demo"
)

// program is the real xlvs, built once for all tests.
var program string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "xlvs-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "xlvs")
	// -buildvcs=false: the checkout may belong to another user, whose repository git refuses to read.
	build := exec.Command(cmp.Or(os.Getenv("GO"), "go"), "build", "-buildvcs=false", "-o", program, "xlvs/cmd/xlvs")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build xlvs: %v\n%s", err, out)
		return 1
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	return code
}

func needRoot(t *testing.T) {
	t.Helper()
	const why = "needs root: it runs a director in network namespaces"
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// A setup is what a test wants to run in. The zero value is a switched lab with all modes, all backends up.
type setup struct {
	lab      testenv.Options
	config   testenv.ConfigOptions
	edit     func(string) string // changes the configuration before the director reads it
	prepare  func(*testenv.Lab) error
	warnings bool // control.warning may be logged: the test breaks something
}

// A world is a lab with a director in it.
type world struct {
	*testenv.Lab
	dir        *demo.Director
	configured testenv.ConfigOptions // to write the configuration once more
	warnings   bool
}

// start builds the lab and runs the director. Both end with the test, which fails if the director does not end
// well or has warned of something.
func start(t *testing.T, s setup) *world {
	t.Helper()
	needRoot(t)
	files := t.TempDir() // asked for before the clean-up below is registered, it is removed after it
	// The context of the test ends before its clean-up begins, and would take the lab away from under the director.
	lab, err := testenv.New(context.WithoutCancel(t.Context()), s.lab)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Lab: lab, warnings: s.warnings}
	t.Cleanup(func() { w.end(t) })
	if w.dir, err = demo.NewDirector(lab, files, s.config); err != nil {
		t.Fatal(err)
	}
	w.configured = s.config
	w.configured.API, w.configured.LogFile = w.api(), w.dir.Log
	if s.edit != nil {
		w.rewrite(t, s.edit)
	}
	if s.prepare != nil {
		if err := s.prepare(lab); err != nil {
			t.Fatal(err)
		}
	}
	w.run(t)
	return w
}

// run starts the director, for the first time or again.
func (w *world) run(t *testing.T) {
	t.Helper()
	if err := w.dir.Start(t.Context(), w.Lab, program); err != nil {
		t.Fatal(err)
	}
}

func (w *world) end(t *testing.T) {
	defer func() {
		if err := w.Lab.Close(); err != nil {
			t.Error(err)
		}
	}()
	if w.dir == nil || w.dir.Process == nil {
		return
	}
	select {
	case <-w.dir.Process.Done():
	default:
		if err := w.dir.Stop(); err != nil {
			t.Error(err)
		}
	}
	w.checkLog(t)
	if t.Failed() {
		log, _ := os.ReadFile(w.dir.Log)
		var lines []string
		for line := range strings.Lines(string(log)) {
			if !strings.Contains(line, `"event":"flow.`) {
				lines = append(lines, line)
			}
		}
		t.Logf("the director printed %q and logged, at last:\n%s", w.dir.Output(), strings.Join(lines[max(0, len(lines)-40):], ""))
	}
}

func (w *world) checkLog(t *testing.T) {
	events, err := w.dir.Events()
	if err != nil {
		t.Error(err)
	}
	for _, e := range events {
		if e.Event == "control.warning" && !w.warnings {
			t.Errorf("the director warned: %+v", e)
		}
	}
}

// rewrite changes the configuration file, which the director does not notice until it is told.
func (w *world) rewrite(t *testing.T, edit func(string) string) {
	t.Helper()
	old, err := os.ReadFile(w.dir.File)
	if err != nil {
		t.Fatal(err)
	}
	text := edit(string(old))
	if text == string(old) {
		t.Fatal("the test's change to the configuration changes nothing")
	}
	if err := os.WriteFile(w.dir.File, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// replace returns an edit.
func replace(old, new string) func(string) string {
	return func(s string) string { return strings.ReplaceAll(s, old, new) }
}

// count returns how many events of the log match.
func (w *world) count(t *testing.T, match func(demo.Event) bool) (n int) {
	t.Helper()
	events, err := w.dir.Events()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range events {
		if match(e) {
			n++
		}
	}
	return n
}

// await waits for an event.
func (w *world) await(t *testing.T, what string, match func(demo.Event) bool) demo.Event {
	t.Helper()
	e, err := w.dir.AwaitEvent(t.Context(), what, match)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// drops returns what the director has dropped so far, by reason.
func (w *world) drops(t *testing.T) map[string]uint64 {
	t.Helper()
	st, err := w.dir.API.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return st.Drops
}

// patience is how long tests wait for what must happen, on a machine that is busy with something else, too.
const patience = 30 * time.Second

// until waits for a condition.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// eachRow runs a subtest for each mode and family of the lab.
func eachRow(t *testing.T, w *world, test func(t *testing.T, m table.Mode, v6 bool)) {
	for _, m := range w.Options.Modes {
		for _, v6 := range []bool{false, true} {
			name := m.String() + "-v4"
			if v6 {
				name = m.String() + "-v6"
			}
			t.Run(name, func(t *testing.T) { test(t, m, v6) })
		}
	}
}

// xlvs runs a command of the program against the running director, and returns its output and exit status.
func (w *world) xlvs(t *testing.T, args ...string) (stdout string, status int) {
	t.Helper()
	cmd := exec.Command(program, args...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out) + string(exit.Stderr), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(out), 0
}

// api is the path of the director's socket.
func (w *world) api() string { return filepath.Join(filepath.Dir(w.dir.File), "api.sock") }
