package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"xlvs/control/api"
	"xlvs/testenv"
)

// A Director is the real program, running on a lab's director host. It dies with the lab.
type Director struct {
	File    string // its configuration
	Log     string // its structured log
	API     *api.Client
	Process *testenv.Process

	output output
	ports  ports // of clients: the log tells flows apart by them
}

// NewDirector writes the configuration of a lab into dir, which must exist. o.API and o.LogFile are set here.
func NewDirector(lab *testenv.Lab, dir string, o testenv.ConfigOptions) (*Director, error) {
	o.API, o.LogFile = filepath.Join(dir, "api.sock"), filepath.Join(dir, "log.json")
	d := &Director{File: filepath.Join(dir, "director.yaml"), Log: o.LogFile, API: api.NewClient(o.API)}
	return d, os.WriteFile(d.File, []byte(lab.Config(o)), 0o644)
}

// Start starts `binary run` on the lab's director host and waits until it forwards to every backend.
// The error of a director that ends instead holds what it printed.
func (d *Director) Start(ctx context.Context, lab *testenv.Lab, binary string) error {
	cmd := lab.Director.Command(context.WithoutCancel(ctx), binary, "run", "-c", d.File)
	cmd.Stdout, cmd.Stderr = &d.output, &d.output
	p, err := lab.Director.Start(cmd)
	if err != nil {
		return err
	}
	d.Process = p
	return d.await(ctx, "every backend to be up and resolved", d.complete)
}

// complete tells whether every backend is up, with a known next hop.
func (d *Director) complete(ctx context.Context) (bool, error) {
	backends, err := d.API.Backends(ctx)
	if err != nil {
		return false, nil //nolint:nilerr // the director has not opened its socket yet
	}
	for _, b := range backends {
		if !b.Up || b.Unreached != "" {
			return false, nil
		}
	}
	return true, nil
}

// limit is how long the demo waits for anything; what it waits for takes a second or less.
const limit = 15 * time.Second

// await asks until the answer is yes; what it waited for is part of the error.
func (d *Director) await(ctx context.Context, what string, ask func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		ok, err := ask(ctx)
		if ok || err != nil {
			return err
		}
		select {
		case <-d.Process.Done():
			return fmt.Errorf("the director has ended (%w) before it could be seen that %s: %s", d.Process.Wait(), what, d.output.String())
		case <-ctx.Done():
			return fmt.Errorf("waited in vain for %s: %w", what, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Output returns what the program has printed so far.
func (d *Director) Output() string { return d.output.String() }

// Stop ends the director with SIGTERM and returns how it ended.
func (d *Director) Stop() error {
	if err := d.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-d.Process.Done():
	case <-time.After(limit):
		d.Process.Kill()
		return errors.New("the director does not end on SIGTERM")
	}
	if err := d.Process.Wait(); err != nil {
		return fmt.Errorf("the director ended with %w: %s", err, d.output.String())
	}
	return nil
}

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
	return string(bytes.TrimSpace(o.b.Bytes()))
}
