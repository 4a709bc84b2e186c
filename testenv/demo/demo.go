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
	"time"

	"xlvs/dataplane/table"
	"xlvs/testenv"
)

// Options of a demo.
type Options struct {
	Binary string         // the xlvs program
	Layout testenv.Layout // how the lab is wired
	Out    io.Writer      // what is going on and what came of it, for people
}

// A Result is what a demo has measured.
type Result struct {
	Rows []Row `json:"rows"`
	Kill Kill  `json:"kill"`
}

// run is a demo under way.
type run struct {
	Options
	lab *testenv.Lab
	dir *Director
}

func (r *run) say(format string, args ...any) { fmt.Fprintf(r.Out, format+"\n", args...) }

// Run builds the lab, runs the director and measures. It takes about 20 seconds, needs root, and leaves nothing
// behind, but for a directory with configuration and log when it fails. What one that was killed has left, the next one removes. What Result.Faults finds is no error.
func Run(ctx context.Context, o Options) (res *Result, err error) {
	r := &run{Options: o}
	files, err := newWorkdir()
	if err != nil {
		return nil, err
	}
	defer func() {
		if ctx.Err() != nil {
			err = errors.New("interrupted; the lab is removed")
		}
		if err != nil && ctx.Err() == nil {
			err = errors.Join(fmt.Errorf("%w (configuration and log are kept in %s)", err, files.path), files.keep())
			return
		}
		err = errors.Join(err, files.remove())
	}()
	if r.lab, err = testenv.New(ctx, testenv.Options{Layout: o.Layout}); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.lab.Close()) }()
	r.say("A %s lab in network namespaces of this machine: a client, a director, %d servers.", o.Layout, len(r.lab.Servers))
	if err := r.start(ctx, files.path); err != nil {
		return nil, err
	}
	if res, err = r.measure(ctx); err != nil {
		return nil, err
	}
	return res, r.dir.Stop()
}

// start shows the whole configuration, runs the director on it and tells what became of its interfaces.
func (r *run) start(ctx context.Context, files string) (err error) {
	web := func(s testenv.Service) bool { return s.Port == testenv.HTTPPort }
	if r.dir, err = NewDirector(r.lab, files, testenv.ConfigOptions{LogFlows: true, Only: web}); err != nil {
		return err
	}
	text, err := os.ReadFile(r.dir.File)
	if err != nil {
		return err
	}
	r.say("\nConfiguration: %s\n\n%s", r.dir.File, indent(string(text)))
	r.say("$ ip netns exec %s %s run -c %s", r.lab.Director.Namespace, filepath.Base(r.Binary), r.dir.File)
	if err := r.dir.Start(ctx, r.lab, r.Binary); err != nil {
		return err
	}
	st, err := r.dir.API.Status(ctx)
	if err != nil {
		return err
	}
	for _, i := range st.Interfaces {
		r.say("%s: XDP %s, AF_XDP %s mode; %d of %d backends up", i.Name, i.Attach, i.Bind, st.Up, st.Backends)
	}
	return nil
}

func indent(text string) string {
	return "    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ") + "\n"
}

func (r *run) measure(ctx context.Context) (*Result, error) {
	res := &Result{}
	r.say("\nSteady state: %d requests for %d bytes in each row, %d at a time, each on a new connection.", requestsARow, bodyBytes, concurrency)
	for _, m := range []table.Mode{table.DR, table.TUN, table.NAT} {
		for _, v6 := range []bool{false, true} {
			row, err := steady(ctx, r.lab, m, v6)
			if err != nil {
				return nil, err
			}
			r.say("  %-3s %s http://%s: %d ms", row.Mode, row.Family, row.Service, row.TookMS)
			res.Rows = append(res.Rows, row)
		}
	}
	r.say("")
	res.printRows(r.Out)

	victim := r.lab.Group(table.DR)[0]
	d := &Drill{Lab: r.lab, Director: r.dir, Service: serviceOf(r.lab, table.DR), Victim: victim.Name,
		Kill: victim.Stop, Revive: victim.Start, Lull: 1500 * time.Millisecond, Say: r.say}
	r.say("\nA server dies: %d requests a second to http://%s, each on a new connection; %d connections stay open.",
		killRate, d.Service.Key(), keptOpen)
	var err error
	if res.Kill, err = d.Run(ctx); err != nil {
		return nil, err
	}
	r.say("")
	res.Kill.print(r.Out)
	return res, nil
}
