package wire

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"xlvs/dataplane/table"
	"xlvs/dataplane/xsk"
	"xlvs/perf"
	"xlvs/testenv"
	"xlvs/testenv/demo"
)

var modes = perf.Scenario{
	Name: "modes", Root: true,
	Short: "requests per second, CPU and bytes through the director by mode and size of the reply, beside proxies",
	Run:   runModes,
	Plots: []perf.Plot{
		{Title: "Bytes through the director for a request", Note: "What its interface took in. With direct return (dr, tun), replies do not pass it: only requests and acknowledgements do.",
			Metric: []string{"bytes_through"}, X: "reply_bytes", Series: []string{"by"}, LogX: true, LogY: true},
		{Title: "CPU for a request", Note: "Of the balancer's threads and of those of the kernel that receive for it.", Metric: []string{"cpu_per_request"}, X: "reply_bytes", Series: []string{"by"}, LogX: true, LogY: true},
		{Title: "Requests per second", Metric: []string{"requests"}, X: "reply_bytes", Series: []string{"by"}, LogX: true, LogY: true},
	},
}

// executable tells where xlvs is; tests are another program and have it built.
var executable = os.Executable

var replySizes = []int{1000, 10_000, 100_000, 1_000_000}

const (
	clients   = 8 // at once, each on a connection that it keeps
	proxyPort = 8088
)

// A balancer stands between clients and servers: the director in one of its modes, or a proxy.
type balancer struct {
	name  string
	start func(ctx context.Context, m *modesLab) (*service, error)
	sizes []int // of replies, that are wanted
	got   map[int]*history
}

// A service is a balancer at work.
type service struct {
	address string // that clients ask
	pid     int    // of the balancer
	stop    func() error
}

// A modesLab is a lab with servers, and a directory for the balancers' files.
type modesLab struct {
	*testenv.Lab
	dir    string
	exe    string
	cores  cores
	kernel []int // threads of the kernel that receive for the balancer
}

func directorIn(m table.Mode) balancer {
	return balancer{name: m.String(), start: func(ctx context.Context, l *modesLab) (*service, error) {
		dir, err := os.MkdirTemp(l.dir, "director-")
		if err != nil {
			return nil, err
		}
		only := func(s testenv.Service) bool {
			return s.Mode == m && s.Addr.Is4() && s.Port == testenv.HTTPPort && s.Protocol == "tcp"
		}
		d, err := demo.NewDirector(l.Lab, dir, testenv.ConfigOptions{Only: only})
		if err != nil {
			return nil, err
		}
		if err := l.cores.lend(func() error { return d.Start(ctx, l.Lab, l.exe) }); err != nil {
			return nil, err
		}
		return &service{address: fmt.Sprintf("%s:%d", l.VIP(m, false), testenv.HTTPPort), pid: d.Process.Cmd.Process.Pid, stop: d.Stop}, nil
	}}
}

// proxied starts a proxy in the director's place. It takes the DR servers' own addresses.
func proxied(name string, command func(ctx context.Context, l *modesLab, listen string, servers []string) (*exec.Cmd, error)) balancer {
	return balancer{name: name, start: func(ctx context.Context, l *modesLab) (*service, error) {
		listen := fmt.Sprintf("10.0.0.1:%d", proxyPort)
		var servers []string
		for _, s := range l.Group(table.DR) {
			servers = append(servers, fmt.Sprintf("%s:%d", s.Addr(false), testenv.HTTPPort))
		}
		cmd, err := command(ctx, l, listen, servers)
		if err != nil {
			return nil, err
		}
		var p *testenv.Process
		err = l.cores.lend(func() (err error) { p, err = l.Director.Start(cmd); return err })
		if err != nil {
			return nil, err
		}
		s := &service{address: listen, pid: cmd.Process.Pid, stop: func() error { p.Kill(); return nil }}
		if err := l.await(ctx, listen); err != nil {
			return nil, errors.Join(err, s.stop())
		}
		return s, nil
	}}
}

// await waits until something listens.
func (l *modesLab) await(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		c, err := l.Client.DialContext(ctx, "tcp", address)
		if err == nil {
			return c.Close()
		}
		if ctx.Err() != nil {
			return fmt.Errorf("nothing listens on %s: %w", address, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ownProxy is xlvs's own proxy of a few lines (RunProxy), which has the kernel move the bytes.
func ownProxy(ctx context.Context, l *modesLab, listen string, servers []string) (*exec.Cmd, error) {
	return l.Director.Command(context.WithoutCancel(ctx), l.exe, append([]string{"perf", "proxy", listen}, servers...)...), nil
}

// haproxyProgram is where HAProxy is, or empty.
func haproxyProgram() string {
	path, err := exec.LookPath("haproxy")
	if err != nil {
		return ""
	}
	return path
}

func haproxy(ctx context.Context, l *modesLab, listen string, servers []string) (*exec.Cmd, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n")
	fmt.Fprintf(&b, "listen web\n  bind %s\n  balance roundrobin\n", listen)
	for i, s := range servers {
		fmt.Fprintf(&b, "  server s%d %s\n", i, s)
	}
	file := filepath.Join(l.dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
		return nil, err
	}
	return l.Director.Command(context.WithoutCancel(ctx), haproxyProgram(), "-db", "-f", file), nil
}

// balancers returns those that are wanted and that this machine has.
func balancers(r *perf.Run) []*balancer {
	all := []balancer{directorIn(table.DR), directorIn(table.TUN), directorIn(table.NAT), proxied("splice_proxy", ownProxy), proxied("haproxy", haproxy)}
	var wanted []*balancer
	for _, b := range all {
		b.sizes = slices.DeleteFunc(slices.Clone(replySizes), func(size int) bool { return !r.Wanted(b.params(size)) })
		switch {
		case len(b.sizes) == 0:
		case b.name == "haproxy" && haproxyProgram() == "":
			r.Note("haproxy is left out: it is not installed")
		default:
			b.got = map[int]*history{}
			for _, size := range b.sizes {
				b.got[size] = &history{}
			}
			wanted = append(wanted, &b)
		}
	}
	return wanted
}

func (b *balancer) params(size int) map[string]any {
	return map[string]any{"by": b.name, "reply_bytes": size}
}

func runModes(ctx context.Context, r *perf.Run) (err error) {
	all := balancers(r)
	if len(all) == 0 {
		return nil
	}
	c, restore, err := claimCores()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, restore()) }()
	l, closeLab, err := newModesLab(ctx, c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeLab()) }()
	length := time.Second
	if r.Quick {
		length = 200 * time.Millisecond
	}
	var names []string
	for _, b := range all {
		names = append(names, b.name)
	}
	err = turns(ctx, r, names, howHard(r).rounds, func(round, i int) error { return all[i].measure(ctx, l, length, round) })
	for _, b := range all {
		for _, size := range b.sizes {
			b.got[size].record(r, b.params(size), metric{"requests", "requests/s"}, metric{"cpu_per_request", "µs"}, metric{"bytes_through", "bytes/request"})
		}
	}
	quoteModes(r)
	r.Note("cpu_per_request is the time of the balancer's threads and of the kernel's that receive for it, on one core, with what it " +
		"costs to send as far as the cable; bytes_through is what its interface took in, health checks included")
	return err
}

// newModesLab builds a lab whose balancer has a core for itself and for what the kernel does for it.
func newModesLab(ctx context.Context, c cores) (l *modesLab, closeLab func() error, err error) {
	var u undo
	defer func() {
		if err != nil {
			err = errors.Join(err, u.all())
		}
	}()
	m := &modesLab{cores: c}
	if m.exe, err = executable(); err != nil {
		return nil, nil, err
	}
	if m.dir, err = os.MkdirTemp("", "xlvs-modes-"); err != nil {
		return nil, nil, err
	}
	u.add(func() error { return os.RemoveAll(m.dir) })
	if m.Lab, err = testenv.New(ctx, testenv.Options{Servers: 2, NoTaps: true}); err != nil {
		return nil, nil, err
	}
	u.add(m.Close)
	// By itself, veth has the sender's core do what the receiver's should: the clients' the balancer's, and the balancer's
	// what switch and servers do. A thread of the kernel polls the balancer's interface on its core, for which GRO makes NAPI;
	// the switch hands on what the balancer sends to the other core (RPS).
	if err := m.Director.SetFeatures("eth0", map[string]bool{"rx-gro": true}); err != nil {
		return nil, nil, err
	}
	var back func() error
	back, m.kernel, err = threadNAPI(m.Director, "eth0", c.forwarder)
	u.add(back)
	if err != nil {
		return nil, nil, err
	}
	err = m.Switch.Do(func() error {
		back, err := xsk.SetAttributes(m.Director.Name+"-0", []xsk.Attribute{{File: "queues/rx-0/rps_cpus", Value: cpuMask(c.station)}})
		u.add(back)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	return m, u.all, nil
}

// cpuMask is a core as files of the kernel have it: in hexadecimal words of 32 bits with commas between them.
func cpuMask(cpu int) string {
	return fmt.Sprintf("%x", 1<<(cpu%32)) + strings.Repeat(",00000000", cpu/32)
}

// measure takes the figures for all sizes of one balancer.
func (b *balancer) measure(ctx context.Context, l *modesLab, length time.Duration, round int) (err error) {
	s, err := b.start(ctx, l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	for _, size := range b.sizes {
		if err := s.ask(ctx, l, size, length, b.got[size].round(round)); err != nil {
			return fmt.Errorf("replies of %d bytes: %w", size, err)
		}
	}
	return nil
}
