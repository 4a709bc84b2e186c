package wire

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"xlvs/dataplane/table"
	"xlvs/perf"
	"xlvs/testenv"
	"xlvs/testenv/demo"
)

var modes = perf.Scenario{
	Name: "modes", Root: true,
	Short: "requests per second, CPU and bytes through the director by mode and size of the reply, beside proxies",
	Run:   runModes,
	Plots: []perf.Plot{
		{Title: "Bytes through the director for a request", Note: "With direct return, replies do not pass it.",
			Metric: []string{"bytes_through"}, X: "reply_bytes", Series: []string{"by"}, LogX: true, LogY: true},
		{Title: "CPU of the director for a request", Metric: []string{"cpu_per_request"}, X: "reply_bytes", Series: []string{"by"}, LogX: true, LogY: true},
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
}

// A service is a balancer at work.
type service struct {
	address string                 // that clients ask
	pid     int                    // of the balancer
	through func() (uint64, error) // bytes that it has taken in so far
	stop    func() error
}

// A modesLab is a lab with servers, and a directory for the balancers' files.
type modesLab struct {
	*testenv.Lab
	dir string
	exe string
}

func directorIn(m table.Mode) balancer {
	return balancer{m.String(), func(ctx context.Context, l *modesLab) (*service, error) {
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
		if err := d.Start(ctx, l.Lab, l.exe); err != nil {
			return nil, err
		}
		through := func() (n uint64, err error) {
			backends, err := d.API.Backends(ctx)
			for _, b := range backends {
				n += b.Bytes + b.ReplyBytes
			}
			return n, err
		}
		return &service{address: fmt.Sprintf("%s:%d", l.VIP(m, false), testenv.HTTPPort), pid: d.Process.Cmd.Process.Pid, through: through, stop: d.Stop}, nil
	}}
}

// proxied starts a proxy in the director's place. It takes the DR servers' own addresses.
func proxied(name string, command func(ctx context.Context, l *modesLab, listen string, servers []string) (*exec.Cmd, error)) balancer {
	return balancer{name, func(ctx context.Context, l *modesLab) (*service, error) {
		listen := fmt.Sprintf("10.0.0.1:%d", proxyPort)
		var servers []string
		for _, s := range l.Group(table.DR) {
			servers = append(servers, fmt.Sprintf("%s:%d", s.Addr(false), testenv.HTTPPort))
		}
		cmd, err := command(ctx, l, listen, servers)
		if err != nil {
			return nil, err
		}
		p, err := l.Director.Start(cmd)
		if err != nil {
			return nil, err
		}
		through := func() (uint64, error) {
			c, err := l.Director.Counters("eth0")
			return c.RxBytes, err
		}
		s := &service{address: listen, pid: cmd.Process.Pid, through: through, stop: func() error { p.Kill(); return nil }}
		return s, l.await(ctx, listen)
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

func runModes(ctx context.Context, r *perf.Run) (err error) {
	l := &modesLab{}
	if l.exe, err = executable(); err != nil {
		return err
	}
	if l.dir, err = os.MkdirTemp("", "xlvs-modes-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(l.dir)) }()
	if l.Lab, err = testenv.New(ctx, testenv.Options{Servers: 2, NoTaps: true}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.Close()) }()
	all := []balancer{directorIn(table.DR), directorIn(table.TUN), directorIn(table.NAT), proxied("splice_proxy", ownProxy)}
	if haproxyProgram() != "" {
		all = append(all, proxied("haproxy", haproxy))
	} else {
		r.Note("haproxy is left out: it is not installed")
	}
	length := time.Second
	if r.Quick {
		length = 200 * time.Millisecond
	}
	got := map[string]map[int]figures{}
	rounds := min(r.Runs, howHard(r.Quick).rounds)
	for round := range rounds {
		for i, b := range all {
			r.Progress(round*len(all)+i, rounds*len(all), b.name)
			if got[b.name] == nil {
				got[b.name] = map[int]figures{}
			}
			if err := b.measure(ctx, l, length, got[b.name]); err != nil {
				return fmt.Errorf("%s: %w", b.name, err)
			}
		}
	}
	for _, b := range all {
		for _, size := range replySizes {
			f, params := got[b.name][size], map[string]any{"by": b.name, "reply_bytes": size}
			r.Record(params, "requests", "requests/s", f["requests"])
			r.Record(params, "cpu_per_request", "µs", f["cpu"])
			r.Record(params, "bytes_through", "bytes/request", f["through"])
		}
	}
	return nil
}

// measure takes the figures for all sizes of one balancer.
func (b *balancer) measure(ctx context.Context, l *modesLab, length time.Duration, got map[int]figures) (err error) {
	s, err := b.start(ctx, l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	for _, size := range replySizes {
		if got[size] == nil {
			got[size] = figures{}
		}
		if err := s.ask(ctx, l, size, length, got[size]); err != nil {
			return fmt.Errorf("replies of %d bytes: %w", size, err)
		}
	}
	return nil
}
