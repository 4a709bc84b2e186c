// Package demo shows the director at work on one machine: a lab of network namespaces, the real program,
// and real HTTP between real kernels in all three modes and both families. Then it kills a server under load.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"xlvs/dataplane/table"
	"xlvs/testenv"
)

// Options of a demo.
type Options struct {
	Binary   string         // the xlvs program
	Layout   testenv.Layout // how the lab is wired
	Progress io.Writer      // what is going on, for people
}

// A Result is what a demo has measured.
type Result struct {
	Rows []Row `json:"rows"`
	Kill Kill  `json:"kill"`
}

var modes = []table.Mode{table.DR, table.TUN, table.NAT}

// Run builds the lab, runs the director and measures. It takes about 20 seconds, needs root, and leaves
// nothing behind, but for a directory with configuration and log when it fails. What Result.Faults finds is no error.
func Run(ctx context.Context, o Options) (r *Result, err error) {
	say := func(format string, args ...any) { fmt.Fprintf(o.Progress, format+"\n", args...) }
	dir, err := os.MkdirTemp("", "xlvs-demo-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err == nil || ctx.Err() != nil {
			err = errors.Join(err, os.RemoveAll(dir))
			return
		}
		err = fmt.Errorf("%w (configuration and log are kept in %s)", err, dir)
	}()
	lab, err := testenv.New(ctx, testenv.Options{Layout: o.Layout})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lab.Close()) }()
	say("A %s lab in network namespaces of this machine: a client, a director, %d servers.", o.Layout, len(lab.Servers))
	d, err := NewDirector(lab, dir, testenv.ConfigOptions{LogFlows: true, Only: func(s testenv.Service) bool { return s.Port == testenv.HTTPPort }})
	if err != nil {
		return nil, err
	}
	if err := start(ctx, say, lab, d, o.Binary); err != nil {
		return nil, err
	}
	if r, err = measure(ctx, say, lab, d); err != nil {
		return nil, err
	}
	return r, d.Stop()
}

// start shows the configuration, runs the director on it and tells what became of its interfaces.
func start(ctx context.Context, say func(string, ...any), lab *testenv.Lab, d *Director, binary string) error {
	text, err := os.ReadFile(d.File)
	if err != nil {
		return err
	}
	say("\nConfiguration: %s\n\n%s", d.File, indent(excerpt(string(text))))
	say("$ ip netns exec %s %s run -c %s", lab.Director.Namespace, filepath.Base(binary), d.File)
	if err := d.Start(ctx, lab, binary); err != nil {
		return err
	}
	st, err := d.API.Status(ctx)
	if err != nil {
		return err
	}
	for _, i := range st.Interfaces {
		say("%s: XDP %s, AF_XDP %s mode, %d of %d backends up", i.Name, i.Attach, i.Bind, st.Up, st.Backends)
	}
	return nil
}

// excerpt cuts a configuration after its first service.
func excerpt(text string) string {
	parts := strings.SplitAfter(text, "  - name: web-")
	if len(parts) < 3 {
		return text
	}
	first := strings.TrimSuffix(parts[0]+parts[1], "  - name: web-")
	return first + fmt.Sprintf("  # … and %d more services: the other modes, and IPv6\n", len(parts)-2)
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ") + "\n"
}

func measure(ctx context.Context, say func(string, ...any), lab *testenv.Lab, d *Director) (*Result, error) {
	r := &Result{}
	say("\nSteady state: %d requests in each row, %d at a time, each on a new connection, for %d bytes.", requestsARow, concurrency, bodyBytes)
	for _, m := range modes {
		for _, v6 := range []bool{false, true} {
			row, err := steady(ctx, lab, m, v6)
			if err != nil {
				return nil, err
			}
			say("  %-3s %s %s: %d requests in %d ms, %d failed", row.Mode, row.Family, row.Service, row.Requests, row.TookMS, row.Failures)
			r.Rows = append(r.Rows, row)
		}
	}
	say("")
	r.printRows(sayer(say))
	victim := lab.Group(table.DR)[0].Name
	say("\nA server dies: %d requests/s to %s, each on a new connection; %d connections stay open. %s is killed.",
		killRate, serviceOf(lab, table.DR).Key(), keptOpen, victim)
	dr := &drill{lab: lab, dir: d, say: say}
	var err error
	r.Kill, err = dr.run(ctx, table.DR)
	if err == nil {
		say("")
		r.printKill(sayer(say))
	}
	return r, err
}
