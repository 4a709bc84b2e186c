package testenv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"xlvs/dataplane/table"
)

func TestMain(m *testing.M) {
	if os.Getenv(crashEnv) != "" {
		crash()
		return
	}
	goleak.VerifyTestMain(m)
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("needs root: labs are made of network namespaces")
	}
	t.Skip("needs root: labs are made of network namespaces")
}

// newLab makes a lab that ends with the test.
func newLab(t *testing.T, o Options) *Lab {
	t.Helper()
	needRoot(t)
	start := time.Now()
	l, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	if d := time.Since(start); d > 3*time.Second {
		t.Errorf("the lab took %v to come up; it should take less than 3 s", d)
	}
	return l
}

func get(c *HTTPClient, addr netip.Addr, port uint16, path string) (body string, err error) {
	resp, err := c.Get(fmt.Sprintf("http://%s%s", netip.AddrPortFrom(addr, port), path))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// noDecap is for tests that send nothing through tunnels.
func noDecap(Decapsulation) (io.Closer, error) { return io.NopCloser(nil), nil }

func TestServersAreReachable(t *testing.T) {
	for _, layout := range []Layout{Switched, Routed} {
		t.Run(layout.String(), func(t *testing.T) {
			l := newLab(t, Options{Layout: layout, Decap: noDecap})
			if len(l.Servers) != 9 {
				t.Fatalf("%d servers, want 9", len(l.Servers))
			}
			for _, from := range []*Host{l.Client, l.Director} {
				c := from.HTTPClient(HTTPOptions{Timeout: 3 * time.Second})
				for _, s := range l.Servers {
					if s.Mode == table.NAT && from == l.Client {
						continue // answers go to the director, which only forwards what it knows
					}
					port, _ := s.ports()
					for _, v6 := range families {
						body, err := get(c, s.Addr(v6), port, "/")
						if err != nil || strings.TrimSpace(body) != s.Name {
							t.Errorf("%s -> %s: %q, %v", from.Name, s.Addr(v6), body, err)
						}
					}
				}
				if n := c.Counts(); n.Failures != 0 || n.Requests != n.Connections || n.Requests == 0 {
					t.Errorf("%s: counts %+v", from.Name, n)
				}
			}
		})
	}
}

// Run in a mount namespace of its own, where /run/netns is fresh: the first `ip netns add` after a lab came up must
// not take the lab's mounts away from it.
func TestNetnsDirIsSharedFirst(t *testing.T) {
	needRoot(t)
	done := make(chan error, 1)
	go onThreadToEnd(func() { done <- shareFreshDir() })
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func shareFreshDir() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := errors.Join(
		unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""),
		unix.Mount("tmpfs", "/run", "tmpfs", 0, ""),
		shareNetns(), // makes a mount of the directory
		shareNetns(), // finds it done
	); err != nil {
		return err
	}
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	var found int
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, " "+netnsDir+" ") && strings.Contains(line, " shared:") && strings.Contains(line, " - tmpfs ") {
			found++
		}
	}
	if found != 1 {
		return fmt.Errorf("%s is a shared mount %d times, want once:\n%s", netnsDir, found, b)
	}
	return nil
}

// TestNewSaysWhatItNeeds makes a lab in a process that is not root's.
func TestNewSaysWhatItNeeds(t *testing.T) {
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	cmd := exec.Command("/proc/self/fd/3") // the way to the binary's name may be closed to others
	cmd.ExtraFiles = []*os.File{self}
	cmd.Env = append(os.Environ(), crashEnv+"=1")
	if os.Geteuid() == 0 {
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "error: a lab needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN): ") {
		t.Errorf("%v, %s", err, out)
	}
}

func TestNewRefusesNonsense(t *testing.T) {
	for _, n := range []int{-1, 251} {
		if _, err := New(t.Context(), Options{Servers: n}); err == nil || !strings.Contains(err.Error(), "servers a mode") {
			t.Errorf("%d servers: %v", n, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := New(ended, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("after its end a context gives %v", err)
	}
}

func TestContextClosesLab(t *testing.T) {
	needRoot(t)
	ctx, cancel := context.WithCancel(t.Context())
	l, err := New(ctx, Options{Servers: 1, Modes: []table.Mode{table.DR}})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := l.Close(); err != nil { // waits for the one that the context started
		t.Error(err)
	}
	if _, err := os.Stat(netnsDir + "/" + l.Client.Namespace); !os.IsNotExist(err) {
		t.Errorf("namespace is still there: %v", err)
	}
	if err := l.Client.Do(func() error { return nil }); err == nil {
		t.Error("Do works on a closed lab")
	}
}

func TestOptionsShapeTheDirectorsLinks(t *testing.T) {
	l := newLab(t, Options{Layout: Routed, Servers: 1, MTU: 1400, Queues: 2, Decap: noDecap, NoTaps: true, NoServices: true})
	for _, ifname := range l.DirectorInterfaces {
		for h, name := range map[*Host]string{l.Director: ifname, l.Switch: l.Director.port(ifname)} {
			link, err := h.link(name)
			if err != nil {
				t.Fatal(err)
			}
			if a := link.Attrs(); a.MTU != 1400 || a.NumRxQueues != 2 || a.NumTxQueues != 2 {
				t.Errorf("%s of %s: MTU %d, %d/%d queues", name, h.Name, a.MTU, a.NumRxQueues, a.NumTxQueues)
			}
		}
	}
	if l.Servers[0].Running() {
		t.Error("services run although nobody wanted them")
	}
	if _, err := l.Crossed(l.VIP(table.DR, false)); err == nil {
		t.Error("a lab without taps counts")
	}
}

// Labs of one process have the same addresses and do not see each other.
func TestLabsSideBySide(t *testing.T) {
	var labs [3]*Lab
	for i := range labs {
		labs[i] = newLab(t, Options{Servers: 1, Modes: []table.Mode{table.DR}})
	}
	c := labs[0].Client.HTTPClient(HTTPOptions{KeepAlive: true})
	for range 3 {
		if _, err := get(c, labs[0].Server("dr1").Addr(false), HTTPPort, "/"); err != nil {
			t.Fatal(err)
		}
	}
	if n := c.Counts(); n != (HTTPCounts{Connections: 1, Requests: 3}) {
		t.Errorf("counts %+v, want one connection and three requests", n)
	}
	for i, want := range []uint64{3, 0, 0} {
		if got := labs[i].Server("dr1").Requests(); got != want {
			t.Errorf("lab %d served %d requests, want %d", i, got, want)
		}
	}
	for i := range labs { // the first one's end must not take the names of the others
		if err := labs[i].Close(); err != nil {
			t.Error(err)
		}
		for _, other := range labs[i+1:] {
			if _, err := other.Client.Counters("eth0"); err != nil {
				t.Error(err)
			}
			if _, err := os.Stat(netnsDir + "/" + other.Client.Namespace); err != nil {
				t.Error(err)
			}
		}
	}
}
