package testenv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// threadNamespaces returns the network namespaces that threads of this process are in.
func threadNamespaces(t *testing.T) map[string]int {
	t.Helper()
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, task := range tasks {
		ns, err := os.Readlink(filepath.Join("/proc/self/task", task.Name(), "ns/net"))
		if err != nil {
			continue // the thread has ended
		}
		found[ns]++
	}
	return found
}

func emptyLab(t *testing.T) *Lab {
	t.Helper()
	needRoot(t)
	l, err := NewEmpty(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func addHost(t *testing.T, l *Lab, name string) *Host {
	t.Helper()
	h, err := l.AddHost(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestDoComesHome(t *testing.T) {
	before := threadNamespaces(t)
	if len(before) != 1 {
		t.Fatalf("threads are in %v before the test", before)
	}
	l := emptyLab(t)
	a, b := addHost(t, l, "a"), addHost(t, l, "b")
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			h, other := a, b
			if i%2 == 0 {
				h, other = b, a
			}
			err := h.Do(func() error {
				if i%10 == 0 {
					return other.Do(func() error { return inNamespace(other) })
				}
				if i%10 == 1 {
					runtime.Goexit()
				}
				runtime.Gosched()
				return inNamespace(h)
			})
			if i%10 == 1 && err == nil {
				t.Error("a function that ended its goroutine counts as done")
			} else if i%10 != 1 && err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	until(t, "all threads are back in the first namespace", func() bool {
		after := threadNamespaces(t)
		for ns := range before {
			delete(after, ns)
		}
		return len(after) == 0
	})
}

// inNamespace compares the namespace of the calling thread with the one that carries the host's name.
func inNamespace(h *Host) error {
	here, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	there, err := os.Stat(filepath.Join(netnsDir, h.Namespace))
	if err != nil {
		return err
	}
	if !os.SameFile(here, there) {
		return fmt.Errorf("the thread is not in %s", h.Namespace)
	}
	return nil
}

func TestDoReturnsTheError(t *testing.T) {
	l := emptyLab(t)
	want := errors.New("as it is")
	if err := addHost(t, l, "a").Do(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("got %v", err)
	}
}

func TestSysctlStaysInTheNamespace(t *testing.T) {
	const path = "/proc/sys/net/ipv4/ip_default_ttl"
	outside, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	l := emptyLab(t)
	a, b := addHost(t, l, "a"), addHost(t, l, "b")
	if err := a.Sysctl(map[string]string{"net.ipv4.ip_default_ttl": "33"}); err != nil {
		t.Fatal(err)
	}
	read := func(h *Host) (v string) {
		if err := h.Do(func() error {
			raw, err := os.ReadFile(path)
			v = strings.TrimSpace(string(raw))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return v
	}
	if got := read(a); got != "33" {
		t.Errorf("a has %s, want 33", got)
	}
	if got := read(b); got == "33" {
		t.Error("b has a's setting")
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, outside) {
		t.Errorf("the setting outside changed from %q to %q (%v)", outside, now, err)
	}
	if err := a.Sysctl(map[string]string{"net.ipv4.no_such_setting": "1"}); err == nil {
		t.Error("an unknown setting is no error")
	}
}

func TestConnectQueuesMTUAndCounters(t *testing.T) {
	l := emptyLab(t)
	a, b := addHost(t, l, "a"), addHost(t, l, "b")
	if err := l.Connect(a, "eth0", b, "up0", LinkOptions{MTU: 1400, Queues: 2}); err != nil {
		t.Fatal(err)
	}
	for h, name := range map[*Host]string{a: "eth0", b: "up0"} {
		link, err := h.link(name)
		if err != nil {
			t.Fatal(err)
		}
		if at := link.Attrs(); at.MTU != 1400 || at.NumRxQueues != 2 || at.NumTxQueues != 2 {
			t.Errorf("%s of %s: MTU %d, %d/%d queues", name, h.Name, at.MTU, at.NumRxQueues, at.NumTxQueues)
		}
	}
	for h, addr := range map[*Host]string{a: "10.9.0.1/24", b: "10.9.0.2/24"} {
		name := map[*Host]string{a: "eth0", b: "up0"}[h]
		if err := h.AddAddr(name, prefixOf(addr)); err != nil {
			t.Fatal(err)
		}
	}
	sink, err := b.ListenPacket("udp", "10.9.0.2:9")
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	c, err := a.Dial("udp", "10.9.0.2:9")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	before, err := b.Counters("up0")
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "ten datagrams are counted", func() bool {
		now, err := b.Counters("up0")
		return err == nil && now.RxPackets >= before.RxPackets+10
	})
	if err := a.SetLink("eth0", false); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("hello")); err == nil {
		t.Error("sending over an interface that is down works")
	}
}

func TestDialNeedsAnAddress(t *testing.T) {
	l := emptyLab(t)
	if _, err := addHost(t, l, "a").Dial("tcp", "localhost:80"); err == nil {
		t.Error("a name was looked up, in whatever namespace")
	}
}

func TestProcessSeesItsNamespace(t *testing.T) {
	l := emptyLab(t)
	a, b := addHost(t, l, "a"), addHost(t, l, "b")
	if err := l.Connect(a, "wan7", b, "eth0", LinkOptions{}); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd := a.Command(t.Context(), "sh", "-c", "ls /sys/class/net; cat /proc/net/dev")
	cmd.Stdout = &out
	if err := a.Run(cmd); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(out.String(), "wan7"); n != 2 {
		t.Errorf("wan7 appears %d times, want 2:\n%s", n, out.String())
	}
	if _, err := os.Stat("/sys/class/net/wan7"); err == nil {
		t.Error("the interface shows outside")
	}
}

func TestProcessEnds(t *testing.T) {
	l := emptyLab(t)
	a := addHost(t, l, "a")
	if _, err := a.Start(a.Command(t.Context(), "/no/such/program")); err == nil {
		t.Error("a missing program started")
	}
	ctx, cancel := context.WithCancel(t.Context())
	byContext, err := a.Start(a.Command(ctx, "sleep", "60"))
	if err != nil {
		t.Fatal(err)
	}
	byLab, err := a.Start(a.Command(t.Context(), "sleep", "60"))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := byContext.Wait(); err == nil {
		t.Error("a process whose context ended left in peace")
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-byLab.Done():
	case <-time.After(time.Second):
		t.Error("the process outlived its lab")
	}
	if err := byLab.Signal(os.Interrupt); err != nil {
		t.Errorf("signal to an ended process: %v", err)
	}
	if _, err := a.Start(a.Command(t.Context(), "true")); !errors.Is(err, ErrClosed) {
		t.Errorf("start on a closed lab: %v", err)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	needRoot(t)
	pid := os.Getpid()
	warmUp, err := New(t.Context(), Options{Servers: 1, Decap: noDecap}) // the runtime's own descriptors come with first use
	if err != nil {
		t.Fatal(err)
	}
	if err := warmUp.Close(); err != nil {
		t.Fatal(err)
	}
	before := openFiles(t)
	for range 2 {
		l, err := New(t.Context(), Options{Layout: Routed, Decap: noDecap})
		if err != nil {
			t.Fatal(err)
		}
		c, err := l.Client.Dial("tcp", net.JoinHostPort(l.Server("dr1").Addr(false).String(), "80"))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		c.Close()
	}
	if n := namespacesOf(t, pid); len(n) != 0 {
		t.Errorf("namespaces left: %v", n)
	}
	if m := labMounts(t, pid); len(m) != 0 {
		t.Errorf("mounts left: %v", m)
	}
	if _, err := os.Stat(lockPath(pid)); !os.IsNotExist(err) {
		t.Errorf("the lock is still there: %v", err)
	}
	until(t, "all descriptors are closed", func() bool { return openFiles(t) <= before })
	until(t, "no thread is in a namespace of the lab", func() bool { return len(threadNamespaces(t)) == 1 })
}

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
