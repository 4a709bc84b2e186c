package main_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netns"
)

const (
	tutorial          = "../../docs/tutorial.md"
	tutorialNamespace = "xlvs-tut-"
	tutorialSocket    = "/run/xlvs-tutorial.sock"
)

var shBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// tutorialScript joins the page's sh blocks into one script, each introduced by a line "@@ N" on its output.
func tutorialScript(page string) (script string, blocks int) {
	var b strings.Builder
	b.WriteString("set -e\n")
	for i, m := range shBlock.FindAllStringSubmatch(page, -1) {
		fmt.Fprintf(&b, "echo '@@ %d'\n%s", i+1, m[1])
		blocks++
	}
	b.WriteString("echo '@@ end'\n")
	return b.String(), blocks
}

// needTutorialTools skips on a machine that cannot run the page, and fails there in CI.
func needTutorialTools(t *testing.T) {
	t.Helper()
	missing := ""
	if os.Geteuid() != 0 {
		missing = "needs root: the tutorial makes network namespaces"
	}
	for _, tool := range []string{"bash", "ip", "curl", "sysctl"} {
		if _, err := exec.LookPath(tool); err != nil && missing == "" {
			missing = "needs " + tool + ", which the tutorial uses"
		}
	}
	if missing != "" && os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	if missing != "" {
		t.Skip(missing)
	}
}

// TestTutorial runs every command of docs/tutorial.md in order, as a reader would, and looks at what the
// commands print.
//
//	client ──┐            ┌── web1
//	director ┴── switch ──┴── web2     all in namespaces xlvs-tut-*
func TestTutorial(t *testing.T) {
	needTutorialTools(t)
	page, err := os.ReadFile(tutorial)
	if err != nil {
		t.Fatal(err)
	}
	script, blocks := tutorialScript(string(page))
	if blocks == 0 {
		t.Fatalf("%s has no sh block", tutorial)
	}
	refuseLeftovers(t)
	dir := t.TempDir()
	linkProgram(t, dir)
	t.Cleanup(func() { removeTutorial(t) })

	output := runTutorial(t, script, dir)
	checkTutorialOutput(t, output)
	if left := tutorialNamespaces(t); len(left) > 0 {
		t.Errorf("the tutorial's own clean-up leaves %v", left)
	}
}

// refuseLeftovers does not remove what it finds: a reader may be in the middle of the tutorial.
func refuseLeftovers(t *testing.T) {
	t.Helper()
	if left := tutorialNamespaces(t); len(left) > 0 {
		t.Fatalf("namespaces %s exist: somebody is in the middle of the tutorial, or left it; remove them with `ip netns del NAME`",
			strings.Join(left, ", "))
	}
}

func tutorialNamespaces(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("/run/netns/" + tutorialNamespace + "*")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range paths {
		names = append(names, filepath.Base(p))
	}
	return names
}

// linkProgram puts the program into dir/bin, where the script finds it.
func linkProgram(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program, filepath.Join(dir, "bin", "xlvs")); err != nil {
		t.Fatal(err)
	}
}

// runTutorial returns what the script printed, by block number; its failure ends the test with all of it.
func runTutorial(t *testing.T, script, dir string) map[string]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	// A process group of its own, so that what the script started in the background ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	// Background processes of a script that failed hold its output open; Wait must not wait for them.
	cmd.WaitDelay = 5 * time.Second
	err := cmd.Run()
	if cmd.Process != nil {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
	}
	if err != nil || !strings.Contains(out.String(), "@@ end") {
		log, _ := os.ReadFile(filepath.Join(dir, "director.log"))
		t.Fatalf("the tutorial's script ended with %v (the last @@ N is the block that failed):\n%s\ndirector.log:\n%s", err, &out, log)
	}
	parts := map[string]string{}
	for _, p := range strings.Split(out.String(), "@@ ")[1:] {
		n, text, _ := strings.Cut(p, "\n")
		parts[n] = text
	}
	return parts
}

var shareLine = regexp.MustCompile(`(?m)^ *(\d+) (web[12])$`)

// shares reads the output of `sort | uniq -c` in a block.
func shares(t *testing.T, text string) map[string]int {
	t.Helper()
	got := map[string]int{}
	for _, m := range shareLine.FindAllStringSubmatch(text, -1) {
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		got[m[2]] = n
	}
	return got
}

func checkTutorialOutput(t *testing.T, blocks map[string]string) {
	t.Helper()
	var counted []map[string]int
	for n := 1; blocks[strconv.Itoa(n)] != "" || n <= len(blocks); n++ {
		if s := shares(t, blocks[strconv.Itoa(n)]); len(s) > 0 {
			counted = append(counted, s)
		}
	}
	if len(counted) != 2 {
		t.Fatalf("want the shares of the servers twice, have %v", counted)
	}
	both, one := counted[0], counted[1]
	if both["web1"] == 0 || both["web2"] == 0 || both["web1"]+both["web2"] != 40 {
		t.Errorf("with both servers up, 40 requests were answered by %v", both)
	}
	if one["web1"] != 0 || one["web2"] != 20 {
		t.Errorf("with web1 dead, 20 requests were answered by %v", one)
	}
}

// removeTutorial removes what a script that failed half-way has left.
func removeTutorial(t *testing.T) {
	for _, name := range tutorialNamespaces(t) {
		if err := netns.DeleteNamed(name); err != nil {
			t.Errorf("remove namespace %s: %v", name, err)
		}
	}
	if err := os.Remove(tutorialSocket); err != nil && !os.IsNotExist(err) {
		t.Errorf("remove %s: %v", tutorialSocket, err)
	}
}

func TestTutorialScript(t *testing.T) {
	script, n := tutorialScript("text\n```sh\na\nb\n```\n```text\nno\n```\n```sh\nc\n```\n")
	if want := "set -e\necho '@@ 1'\na\nb\necho '@@ 2'\nc\necho '@@ end'\n"; n != 2 || script != want {
		t.Errorf("%d blocks:\n%s", n, script)
	}
}
