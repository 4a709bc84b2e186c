// Package flowlog is the structured log: JSON lines, one object an event, with a closed list of
// event names and stable snake_case keys that docs/logs.md documents. An event that is not in this package
// cannot be written.
package flowlog

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/time/rate"
)

// Version is the value of the key "v" of every line. It grows when a key or an event changes its
// meaning or goes away; new keys and new events do not change it.
const Version = 1

// Options say where the log goes and how much of the flows it holds.
type Options struct {
	Level      string // debug | info | warn | error; empty: info
	Output     string // "stderr", "stdout" or the path of a file, which is appended to; empty: stderr
	FlowSample int    // the workers let one flow in so many through; 0: flows are not logged
	FlowRate   int    // at most so many flow events a second; 0: 1000
}

const defaultFlowRate = 1000

// A Log writes events. All its methods may be called from any goroutine, and on a nil *Log, which
// discards everything.
type Log struct {
	core   zapcore.Core
	level  zap.AtomicLevel
	out    *output
	name   string // of the output, as in Options
	now    func() time.Time
	sample uint64
	limit  *rate.Limiter

	rateLimited atomic.Uint64
	writeErrors atomic.Uint64 // since the last log.suppressed
	loss        loss
	stderr      io.Writer // where loss is told of, unless that is the log

	mu       sync.Mutex // guards reported
	reported time.Time  // when the last log.suppressed was due
}

// New opens the log. The error names the option that is wrong, or the file that cannot be opened.
func New(o Options) (*Log, error) { return newLog(o, time.Now) }

func newLog(o Options, now func() time.Time) (*Log, error) {
	first, err := o.check()
	if err != nil {
		return nil, err
	}
	level := zap.NewAtomicLevelAt(first)
	out, err := openOutput(o.Output)
	if err != nil {
		return nil, err
	}
	core := zapcore.NewCore(zapcore.NewJSONEncoder(encoding()), out, level)
	l := &Log{
		core:     core.With([]zapcore.Field{zap.Int("v", Version)}),
		level:    level,
		out:      out,
		name:     o.Output,
		now:      now,
		sample:   uint64(o.FlowSample),
		limit:    rate.NewLimiter(rate.Limit(o.FlowRate), o.FlowRate),
		reported: now(),
	}
	l.stderr = newOutput(os.Stderr, "")
	return l, nil
}

// check fills in the defaults, and returns the level.
func (o *Options) check() (level zapcore.Level, err error) {
	if o.Level != "" {
		if level, err = zapcore.ParseLevel(o.Level); err != nil || level > zapcore.ErrorLevel {
			return level, fmt.Errorf("log level %q is none of debug, info, warn, error", o.Level)
		}
	}
	if o.FlowSample < 0 || o.FlowRate < 0 {
		return level, fmt.Errorf("log: flow_sample %d and flow_rate %d must not be negative", o.FlowSample, o.FlowRate)
	}
	if o.FlowRate == 0 {
		o.FlowRate = defaultFlowRate
	}
	return level, nil
}

func encoding() zapcore.EncoderConfig {
	return zapcore.EncoderConfig{
		TimeKey:     "time",
		LevelKey:    "level",
		MessageKey:  "event",
		LineEnding:  "\n",
		EncodeLevel: zapcore.LowercaseLevelEncoder,
		EncodeTime: func(t time.Time, enc zapcore.PrimitiveArrayEncoder) {
			enc.AppendString(t.UTC().Format("2006-01-02T15:04:05.000000Z"))
		},
	}
}

// Emit writes one event of the control side, stamped with the present time. Flow events go
// through FlowNew and FlowEnd, which limit their rate.
func (l *Log) Emit(r Record) {
	if l == nil {
		return
	}
	l.write(r, l.now())
}

// write never reports an error to the caller: the director must go on when its disk is full. Lines that
// were lost so are counted, and the count is written as soon as something can be written again.
func (l *Log) write(r Record, t time.Time) {
	k := kinds[r.kind()]
	level := k.level
	if r, ok := r.(leveled); ok {
		level = r.level()
	}
	if !l.core.Enabled(level) {
		return
	}
	if err := l.put(r, level, t); err != nil {
		l.lose(err)
		return
	}
	l.found()
}

// put writes a line, or none.
func (l *Log) put(r Record, level zapcore.Level, t time.Time) error {
	entry := zapcore.Entry{Level: level, Time: t, Message: kinds[r.kind()].name}
	return l.core.Write(entry, []zapcore.Field{zap.Inline(r)})
}

// FlowNew writes flow.new, FlowRate flow events a second at most. Sampling is the workers' business: they choose by
// the flow's hash, so that its beginning and its end are both logged, and spend nothing on the rest.
func (l *Log) FlowNew(f FlowRecord) {
	if l.admit() {
		l.write(flowNew{f}, l.at(f.Time))
	}
}

// FlowEnd writes flow.end under the same limit.
func (l *Log) FlowEnd(e FlowEndRecord) {
	if l.admit() {
		l.write(flowEnd{e}, l.at(e.Time))
	}
}

func (l *Log) at(t time.Time) time.Time {
	if t.IsZero() {
		return l.now()
	}
	return t
}

// admit says whether a flow event is to be logged, and counts it if not. The level is asked first so that a log
// of warnings only does not report flows as suppressed that nobody wanted.
func (l *Log) admit() bool {
	if l == nil || l.sample == 0 || !l.core.Enabled(zapcore.InfoLevel) {
		return false
	}
	if !l.limit.AllowN(l.now(), 1) {
		l.rateLimited.Add(1)
		return false
	}
	return true
}

// ReportSuppressed writes log.suppressed if anything was held back or lost since the last call.
// Whoever drains the event rings calls it every few seconds.
func (l *Log) ReportSuppressed() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	r := logSuppressed{
		interval:    now.Sub(l.reported),
		sample:      l.sample,
		rateLimited: l.rateLimited.Swap(0),
		writeErrors: l.writeErrors.Swap(0),
	}
	l.reported = now
	if r.rateLimited+r.writeErrors == 0 {
		return
	}
	before := l.writeErrors.Load()
	l.write(r, now)
	if l.writeErrors.Load() != before {
		// The report itself was lost: what it said must not be forgotten.
		l.rateLimited.Add(r.rateLimited)
		l.writeErrors.Add(r.writeErrors)
	}
}

// Reopen opens the log's file again by its path, after logrotate has moved it away. On an error
// the log goes on writing to the file it has. For stderr and stdout it does nothing.
func (l *Log) Reopen() error {
	if l == nil {
		return nil
	}
	return l.out.reopen()
}

// Close reports what was suppressed and closes the file. Events written later are lost and counted nowhere.
func (l *Log) Close() error {
	if l == nil {
		return nil
	}
	l.ReportSuppressed()
	return l.out.Close()
}
