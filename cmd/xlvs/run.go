package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"xlvs/control"
	"xlvs/control/api"
	"xlvs/control/config"
	"xlvs/control/flowlog"
	"xlvs/dataplane"
	"xlvs/dataplane/datapath"
	"xlvs/dataplane/steer"
	"xlvs/dataplane/xsk"
)

func runCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "run -c FILE", Short: "Run the director in the foreground", Args: noArgs,
		Long: "Run the director in the foreground until SIGTERM or SIGINT. SIGHUP reads the configuration file again\n" +
			"and reopens the log file; a faulty file is refused whole, and everything goes on as before.",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := needConfig(c, file); err != nil {
				return err
			}
			conf, err := config.Load(file)
			if err != nil {
				return err
			}
			if err := needRights(); err != nil {
				return err
			}
			return run(c.Context(), file, conf)
		},
	}
	configFlag(cmd, &file)
	return cmd
}

// A director is the running process: datapath below, controller above, API beside.
type director struct {
	file string
	conf *config.Config
	log  *flowlog.Log
	api  *api.Server
	path *datapath.Datapath
	ctl  *control.Controller

	reload sync.Mutex // one at a time
}

// run is the director's life, start to end.
func run(ctx context.Context, file string, conf *config.Config) (err error) {
	start := time.Now()
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	ends := make(chan os.Signal, 1) // only to name the signal: main has ctx end with it
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(ends)
	// When a reader of the log is gone, writing fails, and lines are lost; it is not the end.
	signal.Ignore(syscall.SIGPIPE)
	limitMemory(conf.Director.MemoryLimit)
	d := &director{file: file, conf: conf}
	if d.log, err = openLog(&conf.Director.Log); err != nil {
		return err
	}
	defer func() {
		reason := "ended"
		select {
		case s := <-ends:
			reason = unix.SignalName(s.(syscall.Signal))
		default:
		}
		if err != nil {
			reason = err.Error()
		}
		d.log.Emit(flowlog.DirectorStop{Reason: reason, Failed: err != nil, Uptime: time.Since(start)})
		err = errors.Join(err, d.log.Close())
	}()
	// Whatever may fail comes before Attach: from there on the director takes the virtual addresses from whoever has them.
	if d.api, err = api.Listen(conf.Director.API); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.api.Close()) }()
	if d.path, err = datapath.Open(pathOptions(conf)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.path.Close()) }()
	d.logStart()
	runtime.GOMAXPROCS(dataplane.Processors(d.path.Engine.Workers()))
	d.ctl, err = control.New(control.Options{Config: conf, File: file, Version: version, Engine: d.path.Engine, Datapath: d, MaxMTU: d.path.MaxMTU(), Log: d.log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.ctl.Close()) }()
	return d.serve(ctx, start, hup)
}

// limitMemory has the runtime keep within so many MiB, unless the environment has told it already, or there is no limit.
func limitMemory(mib int) {
	if _, told := os.LookupEnv("GOMEMLIMIT"); mib > 0 && !told {
		debug.SetMemoryLimit(int64(mib) << 20)
	}
}

// serve starts the workers, lets traffic in, and waits for the end.
func (d *director) serve(ctx context.Context, start time.Time, hup <-chan os.Signal) error {
	if err := d.path.Engine.Start(); err != nil {
		return err
	}
	if err := d.path.Attach(); err != nil {
		return err
	}
	for _, i := range d.path.Interfaces() {
		d.log.Emit(flowlog.InterfaceAttached{Interface: i.Name, Queues: len(i.Queues), Attach: i.Attach.String(), Bind: i.Bind})
		if i.RSS.Entries > 0 {
			d.log.Emit(flowlog.InterfaceRSS{Interface: i.Name, Entries: i.RSS.Entries, Moved: i.RSS.Moved})
		}
	}
	if err := d.ctl.Attached(); err != nil {
		return err
	}
	warn := func(err error) { d.log.Emit(flowlog.Warning{Part: "api", Err: err}) }
	d.api.Serve(d, warn)
	loop, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.ctl.Run(loop) }()
	d.log.Emit(flowlog.DirectorReady{Took: time.Since(start)})
	d.notify(daemon.SdNotifyReady)
	for {
		select {
		case <-hup:
			d.reopenLog()
			if err := d.api.Restore(); err != nil {
				warn(err)
			}
			_ = d.ReloadFile(loop) // it logs what is wrong
		case <-ctx.Done():
			d.notify(daemon.SdNotifyStopping)
			err := d.api.Close()
			cancel()
			return errors.Join(err, <-done)
		case err := <-done:
			d.notify(daemon.SdNotifyStopping)
			return errors.Join(err, d.api.Close())
		}
	}
}

func (d *director) reopenLog() {
	d.reload.Lock()
	defer d.reload.Unlock()
	if err := d.log.Reopen(); err != nil {
		d.log.Emit(flowlog.Warning{Part: "log", Err: err})
	}
}

// notify tells the service manager, if there is one, how far the director is.
func (d *director) notify(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		d.log.Emit(flowlog.Warning{Part: "notify", Err: fmt.Errorf("tell the service manager (NOTIFY_SOCKET): %w", err)})
	}
}

func (d *director) logStart() {
	var names []string
	for _, i := range d.path.Interfaces() {
		names = append(names, i.Name)
	}
	d.log.Emit(flowlog.DirectorStart{Version: version, PID: os.Getpid(), Workers: d.path.Engine.Workers(), Interfaces: names, File: d.file})
}

// openLog opens the structured log. Workers sample flows themselves, so that flows which nobody
// wants to see cost nothing; the log takes all that they let through.
func openLog(l *config.Log) (*flowlog.Log, error) {
	return flowlog.New(logOptions(l))
}

func logOptions(l *config.Log) flowlog.Options {
	return flowlog.Options{Level: l.Level, Output: l.File, FlowSample: min(l.FlowSample, 1), FlowRate: l.FlowRate}
}

// pathOptions translates the configuration for the data plane.
func pathOptions(conf *config.Config) datapath.Options {
	dir := &conf.Director
	o := datapath.Options{
		CPUs: dir.CPUs, Frames: dir.Memory.Frames, FrameSize: dir.Memory.FrameSize, Ring: dir.Memory.Ring,
		NoShed: dir.Shed == "off",
		Engine: dataplane.Options{
			Flows: dir.Flows, Seed: dir.Seed, FlowSample: dir.Log.FlowSample, EventRing: 8192,
			Isolate: true, Realtime: dir.Realtime,
			Idle: dataplane.IdlePolicy{Sleep: dir.Idle.Mode != "busy", Spin: dir.Idle.Spin},
		},
	}
	switch poll := (xsk.BusyPoll{Microseconds: 20, Budget: datapath.PollBudget}); dir.BusyPoll {
	case "auto":
		poll.IfKnown = true
		fallthrough
	case "on":
		o.BusyPoll = poll
	}
	attach := map[string]steer.Mode{"auto": steer.Auto, "native": steer.Native, "generic": steer.Generic}
	bind := map[string]xsk.BindMode{"auto": xsk.BindAuto, "zerocopy": xsk.BindZeroCopy, "copy": xsk.BindCopy}
	for _, i := range conf.Interfaces {
		o.Interfaces = append(o.Interfaces, datapath.Interface{Name: i.Name, Channels: i.Channels, Queues: i.Queues.List, KeepRSS: i.RSS == "keep",
			Attach: attach[i.Attach], Bind: bind[i.Bind]})
	}
	return o
}

// Apply, SetMAC and Steered make the director a control.Datapath.
func (d *director) Apply(r steer.Rules) error { return d.path.Steerer.Apply(r) }

// SetMAC implements control.Datapath.
func (d *director) SetMAC(i int, mac net.HardwareAddr) error { return d.path.SetMAC(i, mac) }

// Steered implements control.Datapath.
func (d *director) Steered(i int) (steer.Counters, error) { return d.path.Steered(i) }

// Status implements api.Source.
func (d *director) Status() api.Status {
	var infos []control.InterfaceInfo
	for _, i := range d.path.Interfaces() {
		infos = append(infos, control.InterfaceInfo{Queues: i.Queues, Attach: i.Attach.String(), Bind: i.Bind, Notes: i.Notes})
	}
	return d.ctl.Status(infos)
}

// Services implements api.Source.
func (d *director) Services() []api.Service { return d.ctl.Services() }

// Backends implements api.Source.
func (d *director) Backends() []api.Backend { return d.ctl.Backends() }

// Explain implements api.Source.
func (d *director) Explain(q api.Question) api.Explanation { return d.ctl.Explain(q) }

// ReloadFile implements api.Source.
func (d *director) ReloadFile(ctx context.Context) error {
	d.reload.Lock()
	defer d.reload.Unlock()
	err := d.load(ctx)
	if err != nil {
		err = fmt.Errorf("reload: %w", err)
		d.log.Emit(flowlog.ConfigRejected{File: d.file, Err: err})
	}
	return err
}

// load puts the file into force, whole or not at all.
func (d *director) load(ctx context.Context) error {
	conf, places, err := config.LoadPlaces(d.file)
	if err != nil {
		return err
	}
	if err := config.Fixed(d.conf, conf); err != nil {
		var changes config.Changes
		if errors.As(err, &changes) {
			return places.Locate(changes)
		}
		return err
	}
	log, err := d.log.Prepare(logOptions(&conf.Director.Log))
	if err != nil {
		return err
	}
	if err := d.ctl.Reload(ctx, conf); err != nil {
		return errors.Join(err, log.Discard())
	}
	if err := log.Apply(); err != nil {
		d.log.Emit(flowlog.Warning{Part: "log", Err: err})
	}
	return nil
}
