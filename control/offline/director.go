// Package offline runs a director over frames instead of interfaces: the same control code makes its snapshot and
// steering rules, the same engine and pipeline handle its packets, and time is what the caller says it is. Replays of captures
// and tests of configurations are built on it.
package offline

import (
	"errors"
	"fmt"
	"math"
	"time"

	"xlvs/control"
	"xlvs/control/api"
	"xlvs/control/config"
	"xlvs/dataplane"
	"xlvs/dataplane/memio"
	"xlvs/dataplane/steer"
)

// Options of a Director. The zero value is right for replays.
type Options struct {
	Down  []string // backends that are down: BACKEND or SERVICE/BACKEND
	Flows int      // entries of the flow table; 0: as configured
	Exact bool     // flows end in the very millisecond in which their time is over: for small tables
}

// A Director is one worker, stepped frame by frame. It belongs to one goroutine.
type Director struct {
	conf    *config.Config
	what    *control.Offline
	rules   []*steer.RuleSet // by interface
	engine  *dataplane.Engine
	mem     *dataplane.Memory
	ports   []*memio.Port
	verdict dataplane.Verdict
	now     uint32 // the engine's clock, ms
	at      time.Duration
	swept   uint32
	waiting map[uint32]waiting // by the chunk that a frame waits in
	tickets int
	settled []Settled
	blind   bool // nobody notes verdicts
	exact   bool // time-outs are kept to the millisecond
}

// waiting is a frame that waits for another.
type waiting struct {
	ticket int
	why    steer.Reason
}

// A Result is what became of a frame. Its fields are those of a line of verdicts (docs/replay.md).
type Result struct {
	Verdict string
	Reason  string
	Service string
	Backend string
	Flow    string
	Sent    []Sent
	Ticket  int // of the verdict "hold": what Settled will call it. From 1
}

// A Settled is what became in the end of a frame whose verdict was "hold".
type Settled struct {
	Ticket int
	Result Result
}

// A Sent frame left by an interface, named by its number in the configuration.
type Sent struct {
	Interface int
	Frame     []byte
}

// chunks is how many frames the pipeline can have in hand. One comes in at a time, but some may be held back for others.
func (o *Options) chunks() int {
	if o.Flows > 0 {
		return max(256, o.Flows/8)
	}
	return 4096
}

// New starts a director. Close ends it.
func New(conf *config.Config, o Options) (*Director, error) {
	what, err := control.NewOffline(conf, o.Down)
	if err != nil {
		return nil, err
	}
	return start(conf, what, o)
}

// start starts a director with what conf comes to, which any number of directors can share.
func start(conf *config.Config, what *control.Offline, o Options) (_ *Director, err error) {
	d := &Director{conf: conf, now: 1000, exact: o.Exact, waiting: map[uint32]waiting{}}
	size := conf.Director.Memory.FrameSize
	if d.mem, err = dataplane.NewMemory(make([]byte, o.chunks()*size), size); err != nil {
		return nil, err
	}
	wo := dataplane.WorkerOptions{CPU: -1, Memory: d.mem}
	for range conf.Interfaces {
		p := memio.New(d.mem)
		d.ports = append(d.ports, p)
		wo.Ports = append(wo.Ports, p)
	}
	flows := conf.Director.Flows
	if o.Flows > 0 {
		flows = min(flows, o.Flows)
	}
	d.engine, err = dataplane.New(dataplane.Options{Workers: []dataplane.WorkerOptions{wo}, Flows: flows, Seed: conf.Director.Seed})
	if err != nil {
		return nil, err
	}
	if err := d.publish(what); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	d.engine.Trace(0, &d.verdict)
	return d, nil
}

// publish gives the director what its configuration comes to by now. Flows stay.
func (d *Director) publish(what *control.Offline) error {
	rules, err := steer.NewRuleSet(what.Rules)
	if err != nil {
		return err
	}
	d.what, d.rules = what, nil
	for i := range d.conf.Interfaces {
		d.rules = append(d.rules, rules.WithMAC(what.Checked[i]))
	}
	return d.engine.Publish(what.Snapshot)
}

// Warnings are the backends that cannot be reached, and why.
func (d *Director) Warnings() []string { return d.what.Warnings }

// Explain says where a new flow would go.
func (d *Director) Explain(q api.Question) api.Explanation { return d.what.Explain(d.engine, q) }

// Counters are what the worker counted.
func (d *Director) Counters() dataplane.Counters { return d.engine.Counters() }

// Interfaces are the names of the configured interfaces.
func (d *Director) Interfaces() (names []string) {
	for i := range d.conf.Interfaces {
		names = append(names, d.conf.Interfaces[i].Name)
	}
	return names
}

// maxJump bounds a step of the clock, well above every timeout and well below where its 32 bits of milliseconds turn over.
const maxJump = 20 * 24 * time.Hour

// sweepEvery is how often flows that ran out of time are looked for: a director takes some eight seconds. Small tables are looked
// through at every step of the clock.
const sweepEvery = 1000

// Advance sets the clock: at is the time since the director's start. A time before the last one changes nothing.
func (d *Director) Advance(at time.Duration) {
	if at <= d.at {
		return
	}
	d.tick(at/time.Millisecond - d.at/time.Millisecond)
	d.at = at
}

// tick moves the worker's clock on.
func (d *Director) tick(milliseconds time.Duration) {
	d.now += uint32(min(milliseconds, maxJump/time.Millisecond))
	if d.now-d.swept >= sweepEvery || d.exact {
		d.engine.Expire(0, d.now)
		d.swept = d.now
	}
	if len(d.waiting) > 0 {
		d.idle()
	}
}

// idle gives the worker a chance to drop what has waited for too long.
func (d *Director) idle() {
	d.verdict = dataplane.Verdict{}
	d.engine.Step(0, d.now)
	d.settle(d.collect())
}

// Drain lets time go by until nothing waits for another frame any more. The clock goes on with it.
func (d *Director) Drain() {
	if len(d.waiting) == 0 {
		return
	}
	const past = dataplane.HoldTimeout + 1
	d.tick(past)
	d.at += min(past*time.Millisecond, math.MaxInt64-d.at) // after a capture with a time centuries away there may be no later one
}

// Settled returns what became, since the last call, of frames that had waited.
func (d *Director) Settled() []Settled {
	s := d.settled
	d.settled = nil
	return s
}

// Handle gives the director a frame that came in on interface number in. wire is how long it was on the wire; where that
// is more than is there, nobody can say what would have become of it, and it is dropped.
func (d *Director) Handle(in int, frame []byte, wire int) Result {
	if wire > len(frame) {
		return Result{Verdict: "drop", Reason: dataplane.DropMalformed.String(), Flow: "none"}
	}
	s := steer.Decide(frame, d.rules[in])
	if !s.Director {
		return Result{Verdict: "pass", Reason: s.Reason.String(), Flow: "none"}
	}
	if !d.ports[in].Inject(frame) {
		return Result{Verdict: "drop", Reason: TooLarge, Flow: "none"}
	}
	d.verdict = dataplane.Verdict{}
	d.engine.Step(0, d.now)
	return d.result(s.Reason)
}

// TooLarge is the reason for frames that do not fit a chunk. On an interface the kernel drops them.
const TooLarge = "frame_too_large"

func (d *Director) result(why steer.Reason) Result {
	sent := d.collect()
	r := outcomeOf(&d.verdict, why, sent)
	d.settle(sent)
	for i := range sent { // none, but for a blind director
		for _, f := range sent[i] {
			r.Sent = append(r.Sent, Sent{i, f})
		}
	}
	if r.Verdict == "hold" && !d.blind {
		d.tickets++
		r.Ticket = d.tickets
		d.waiting[d.verdict.Chunk] = waiting{d.tickets, why}
	}
	return r
}

// collect takes what the ports have sent.
func (d *Director) collect() [][][]byte {
	sent := make([][][]byte, len(d.ports))
	for i, p := range d.ports {
		sent[i] = p.Sent()
	}
	return sent
}

// settle notes what became in the last step of frames that waited, some of whose frames are in sent.
func (d *Director) settle(sent [][][]byte) {
	for i := range d.verdict.Settled {
		s := &d.verdict.Settled[i]
		w := d.waiting[s.Chunk]
		delete(d.waiting, s.Chunk)
		d.settled = append(d.settled, Settled{w.ticket, outcomeOf(&s.Verdict, w.why, sent)})
	}
}

// outcomeOf puts a verdict into words and takes its frames, which are the first of those that each port sent.
func outcomeOf(v *dataplane.Verdict, why steer.Reason, sent [][][]byte) Result {
	r := Result{Reason: why.String(), Flow: v.Flow.String()}
	for _, out := range v.Out {
		r.Sent = append(r.Sent, Sent{int(out), sent[out][0]})
		sent[out] = sent[out][1:]
	}
	switch v.Action {
	case dataplane.ActionReply:
		r.Verdict = "reply"
	case dataplane.ActionAnswer:
		r.Verdict, r.Reason = "reply", "echo"
	case dataplane.ActionDrop:
		r.Verdict, r.Reason = "drop", v.Reason.String()
	case dataplane.ActionForward:
		r.Verdict = "forward"
	default:
		r.Verdict = "hold"
	}
	if v.Service != nil {
		r.Service = v.Service.Name
	}
	if v.Backend != nil {
		r.Backend = v.Backend.Name
	}
	return r
}

// Close ends the director.
func (d *Director) Close() error {
	if d.engine == nil {
		return nil
	}
	if err := d.engine.Close(); err != nil {
		return fmt.Errorf("offline director: %w", err)
	}
	return nil
}

// leaked returns how many frames were lost: neither sent nor freed, nor waiting.
func (d *Director) leaked() int { return memio.InHand(d.mem, d.ports...) - len(d.waiting) }
