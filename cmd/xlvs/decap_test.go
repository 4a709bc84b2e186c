package main_test

import (
	"bytes"
	"fmt"
	"io"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"xlvs/dataplane/table"
	"xlvs/testenv"
)

// output collects what a process prints, and may be read meanwhile.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func waitFor(what string, cond func() bool) error {
	for deadline := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("timed out: %s", what)
		}
	}
	return nil
}

// decapProcess is `xlvs decap` on a real server.
type decapProcess struct {
	cmd *exec.Cmd
	out output
}

// startDecap runs in the server's namespace, as the Decapper of a lab.
func startDecap(d testenv.Decapsulation, extra ...string) (*decapProcess, error) {
	args := []string{"decap", "--interface", d.Interface}
	for _, a := range d.Outer {
		args = append(args, "--outer", a.String())
	}
	for _, a := range d.Inner {
		args = append(args, "--vip", a.String())
	}
	p := &decapProcess{cmd: exec.Command(program, append(args, extra...)...)}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	if err := waitFor("the decapsulator is ready", func() bool { return strings.Contains(p.out.String(), "decapsulating on") }); err != nil {
		_ = p.cmd.Process.Kill()
		return nil, fmt.Errorf("%w: %s", err, p.out.String())
	}
	return p, nil
}

// Close ends the process as an operator does.
func (p *decapProcess) Close() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("xlvs decap: %w: %s", err, p.out.String())
	}
	return nil
}

// Real TCP and UDP go through every encapsulation, over both families, to servers that run `xlvs decap`.
func TestDecapServers(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		tunnel   string
		overhead int // beside the outer IP header
		cross    bool
	}{
		{"{ type: ipip }", 0, false},
		{"{ type: gue }", 12, false}, {"{ type: gue, checksum: true }", 12, true},
		{"{ type: gue, checksum: false, port: 7000 }", 12, true},
		{"{ type: gre }", 4, false}, {"{ type: gre, checksum: true }", 8, true},
	} {
		t.Run(c.tunnel, func(t *testing.T) {
			var mu sync.Mutex
			var running []*decapProcess
			port := "6080"
			if strings.Contains(c.tunnel, "7000") {
				port = "7000"
			}
			w := start(t, setup{
				lab: testenv.Options{Servers: 2, Modes: []table.Mode{table.TUN}, Decap: func(d testenv.Decapsulation) (io.Closer, error) {
					p, err := startDecap(d, "--gue-port", port)
					if err != nil {
						return nil, err
					}
					mu.Lock()
					defer mu.Unlock()
					running = append(running, p)
					return p, nil
				}},
				config: testenv.ConfigOptions{CrossTunnel: c.cross},
				edit:   replace("    forward: tun\n", "    forward: tun\n    tunnel: "+c.tunnel+"\n"),
			})
			for _, v6 := range []bool{false, true} {
				limit := w.mtu() - 20 - c.overhead
				if v6 != c.cross {
					limit -= 20
				}
				vip := w.VIP(table.TUN, v6)
				transfer(t, w, vip)
				parallel(t, w, table.TUN, vip) // a few flows may all have the same server
				datagrams(t, w, vip, limit)
			}
			for _, p := range running {
				p.asks(t)
			}
		})
	}
}

// asks has the process print its counters.
func (p *decapProcess) asks(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	if err := waitFor("counters after SIGUSR1", func() bool { return strings.Contains(p.out.String(), "stripped=") }); err != nil {
		t.Fatal(err)
	}
	out := p.out.String()
	if strings.Contains(out, "stripped=0 ") || !strings.Contains(out, "drop_ecn=0 drop_error=0 ") || !strings.Contains(out, "pass_malformed=0") {
		t.Errorf("the decapsulator counted %s", out)
	}
}

// When it ends, however, the interface is as it was.
func TestDecapLeavesNothing(t *testing.T) {
	needRoot(t)
	l, err := testenv.New(t.Context(), testenv.Options{Servers: 1, Modes: []table.Mode{table.TUN}, NoServices: true,
		Decap: func(testenv.Decapsulation) (io.Closer, error) { return io.NopCloser(nil), nil }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}()
	host := l.Server("tun1").Host
	attached := func() (yes bool) {
		if err := host.Do(func() error {
			link, err := netlink.LinkByName("eth0")
			yes = err == nil && link.Attrs().Xdp != nil && link.Attrs().Xdp.Attached
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return yes
	}
	for _, how := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGKILL} {
		for _, mode := range []string{"native", "generic"} {
			var p *decapProcess
			if err := host.Do(func() (err error) {
				p, err = startDecap(testenv.Decapsulation{Interface: "eth0", Outer: []netip.Addr{l.Server("tun1").Addr(false)},
					Inner: []netip.Addr{l.VIP(table.TUN, false)}}, "--attach", mode, "--stats", "10ms")
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if !attached() {
				t.Fatalf("%s: nothing is attached while it runs", mode)
			}
			if err := waitFor("counters by --stats", func() bool { return strings.Count(p.out.String(), "stripped=") >= 2 }); err != nil {
				t.Fatal(err)
			}
			if err := p.cmd.Process.Signal(how); err != nil {
				t.Fatal(err)
			}
			err := p.cmd.Wait()
			if how != syscall.SIGKILL && err != nil {
				t.Errorf("after %v: %v: %s", how, err, p.out.String())
			}
			if err := waitFor("the program is gone", func() bool { return !attached() }); err != nil {
				t.Errorf("after %v in %s mode: %v", how, mode, err)
			}
		}
	}
}
