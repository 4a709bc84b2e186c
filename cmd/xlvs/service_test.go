package main_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/unit"
	"golang.org/x/sys/unix"

	"xlvs/control/api"
	"xlvs/testenv"
)

// capabilities are what docs/running.md and the unit say that a director needs.
var capabilities = map[string]uintptr{
	"CAP_NET_ADMIN": unix.CAP_NET_ADMIN, "CAP_NET_RAW": unix.CAP_NET_RAW, "CAP_BPF": unix.CAP_BPF,
	"CAP_PERFMON": unix.CAP_PERFMON, "CAP_IPC_LOCK": unix.CAP_IPC_LOCK,
}

// TestNotRoot runs a director as nobody with those capabilities and no locked memory by limit, under what stands for a service manager.
func TestNotRoot(t *testing.T) {
	w := start(t, setup{lab: testenv.Options{Servers: 2}})
	fatal(t, w.dir.Stop())
	const nobody = 65534
	dir := filepath.Dir(w.dir.File)
	fatal(t, os.Chmod(filepath.Dir(dir), 0o755))
	fatal(t, os.Chown(dir, nobody, nobody))
	fatal(t, os.Chown(w.dir.Log, nobody, nobody))
	mine := filepath.Join(dir, "xlvs")
	text, err := os.ReadFile(program)
	fatal(t, err)
	fatal(t, os.WriteFile(mine, text, 0o755))
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	fatal(t, err)
	defer manager.Close()
	fatal(t, os.Chown(filepath.Join(dir, "notify"), nobody, nobody))
	fatal(t, manager.SetReadDeadline(time.Now().Add(patience)))
	told := func() string {
		b := make([]byte, 256)
		n, err := manager.Read(b)
		fatal(t, err)
		return string(b[:n])
	}

	cmd := w.Director.Command(t.Context(), "/bin/sh", "-c", `ulimit -l 0 && exec "$@"`, "sh", mine, "run", "-c", w.dir.File)
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	for _, c := range capabilities {
		cmd.SysProcAttr.AmbientCaps = append(cmd.SysProcAttr.AmbientCaps, c)
	}
	p, err := w.Director.Start(cmd)
	fatal(t, err)
	if s := told(); s != "READY=1" {
		t.Errorf("the first that the service manager hears is %q", s)
	}
	until(t, "every backend is up", func() bool {
		st, err := w.dir.API.Status(t.Context()) // it answers at once: the director is ready
		fatal(t, err)
		return st.Up == st.Backends
	})
	until(t, "every next hop is known", func() bool {
		all, err := w.dir.API.Backends(t.Context())
		fatal(t, err)
		return !slices.ContainsFunc(all, func(b api.Backend) bool { return b.Unreached != "" })
	})
	w.answers(t)
	fatal(t, p.Signal(syscall.SIGTERM))
	if s := told(); s != "STOPPING=1" {
		t.Errorf("at the end the service manager hears %q", s)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("it ended with %v: %s", err, &out)
	}
}

// TestUnit reads the systemd unit: its commands must be those of this program, and what it may do what a director needs.
func TestUnit(t *testing.T) {
	f, err := os.Open("../../deploy/xlvs.service")
	fatal(t, err)
	defer f.Close()
	options, err := unit.DeserializeOptions(f)
	fatal(t, err)
	found := map[string]string{}
	for _, o := range options {
		found[o.Name] = o.Value
	}
	none := filepath.Join(t.TempDir(), "none")
	for key, c := range map[string]struct {
		want string
		edit []string
	}{
		"ExecStart":  {"cannot read the configuration", []string{"/etc/xlvs/director.yaml", none}},
		"ExecReload": {"no director answers", []string{"reload", "reload --api " + none}},
	} {
		args, ok := strings.CutPrefix(found[key], "/usr/local/bin/xlvs ")
		edited := strings.Replace(args, c.edit[0], c.edit[1], 1)
		if !ok || edited == args {
			t.Errorf("%s=%s", key, found[key])
			continue
		}
		out, err := exec.Command(program, strings.Fields(edited)...).CombinedOutput()
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 1 || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: xlvs %s: %v, %s; want …%s…", key, edited, err, out, c.want)
		}
	}
	may := strings.Fields(found["CapabilityBoundingSet"])
	for name := range capabilities {
		if !slices.Contains(may, name) {
			t.Errorf("the unit lacks %s", name)
		}
	}
	text, err := os.ReadFile("../../docs/running.md")
	fatal(t, err)
	for _, name := range may {
		if !strings.Contains(string(text), name) {
			t.Errorf("docs/running.md does not say what %s is for", name)
		}
	}
	if found["Type"] != "notify" || found["RestartPreventExitStatus"] != "2" {
		t.Errorf("%v", found)
	}
}
