package flowlog

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// loss keeps account of lines that could not be written. It lasts from the first such line until a line is written again
// and behind it a warning of how many are missing.
type loss struct {
	total atomic.Uint64 // lines, since the start
	lasts atomic.Bool

	mu    sync.Mutex
	lines uint64 // of this time
	err   error  // the last one; nil unless lasts
}

// Lost returns how many lines could not be written since the start, and the error if that lasts: nobody can read there why lines are missing.
func (l *Log) Lost() (lines uint64, err error) {
	if l == nil {
		return 0, nil
	}
	l.loss.mu.Lock()
	defer l.loss.mu.Unlock()
	return l.loss.total.Load(), l.loss.err
}

// lose accounts for a line that was not written. The first one is told of on standard error, unless that is the log.
func (l *Log) lose(err error) {
	l.writeErrors.Add(1)
	l.loss.total.Add(1)
	l.loss.mu.Lock()
	defer l.loss.mu.Unlock()
	l.loss.lines++
	l.loss.err = err
	if l.loss.lasts.Swap(true) || l.out.isStderr() {
		return
	}
	_, _ = fmt.Fprintf(l.stderr, "xlvs: the log cannot be written: %v; lines are lost until it can\n", err)
}

// found is called when a line was written, and warns of those that were not.
func (l *Log) found() {
	if !l.loss.lasts.Load() {
		return
	}
	l.loss.mu.Lock()
	defer l.loss.mu.Unlock()
	if l.loss.lines == 0 {
		return // somebody else was faster
	}
	k := kinds[controlWarning]
	if l.core.Enabled(k.level) {
		missing := fmt.Errorf("%d lines are missing before this one: %w", l.loss.lines, l.loss.err)
		if err := l.put(Warning{Part: "log", Err: missing}, k.level, l.now()); err != nil {
			l.writeErrors.Add(1)
			l.loss.total.Add(1)
			l.loss.lines++
			return
		}
	}
	l.loss.lines, l.loss.err = 0, nil
	l.loss.lasts.Store(false)
}
