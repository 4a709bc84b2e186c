package flowlog

import (
	"errors"

	"go.uber.org/zap/zapcore"
	"golang.org/x/time/rate"
)

// A Change is what a log becomes: ready, so that Apply cannot fail, and not in force until then.
type Change struct {
	log   *Log
	level zapcore.Level
	rate  int
	name  string  // of the output
	out   *output // nil: the present one
}

// Prepare checks options that the log is to have from now on, and opens its file if that is another one. FlowSample must be as it was: it is the workers'.
// One of Apply and Discard must follow. Prepare, Apply and Reopen must not be called at the same time.
func (l *Log) Prepare(o Options) (*Change, error) {
	level, err := o.check()
	if err != nil {
		return nil, err
	}
	if uint64(o.FlowSample) != l.sample {
		return nil, errors.New("log: flow_sample cannot change while the log is open")
	}
	c := &Change{log: l, level: level, rate: o.FlowRate, name: o.Output}
	if o.Output != l.name {
		if c.out, err = openOutput(o.Output); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Apply puts the change into force. The error is about the former file, which could not be closed.
func (c *Change) Apply() error {
	l := c.log
	l.level.SetLevel(c.level)
	now := l.now()
	l.limit.SetLimitAt(now, rate.Limit(c.rate))
	l.limit.SetBurstAt(now, c.rate)
	if c.out == nil {
		return nil
	}
	l.name = c.name
	return l.out.replace(c.out.file, c.out.path)
}

// Discard leaves the log as it was.
func (c *Change) Discard() error {
	if c.out == nil {
		return nil
	}
	return c.out.Close()
}
