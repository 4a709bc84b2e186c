// Package wire is the part of the performance lab that needs a wire: veth pairs between network namespaces.
//
// On a machine of two cores, the last is the forwarder's and the other is everything else's, so that a figure is what
// one core can do. Other forwarders run in the director's place, one after the other, in the same run:
//
//	first core                                       last core
//	generator: an XDP program that makes frames ==== eth0  forwarder
//	sink: an XDP program that counts them       ==== eth1
//
// Linux 6.14 or later, for how its sockets busy-poll; root.
package wire

import (
	"context"
	"errors"
	"fmt"

	"xlvs/dataplane/table"
	"xlvs/perf"
)

// Scenarios returns those that need a wire. All need root.
func Scenarios() []perf.Scenario {
	return []perf.Scenario{wire, sweep, latency, modes, failover}
}

var wire = perf.Scenario{
	Name: "wire", Root: true,
	Short: "packets per second over veth, paced and flooded, beside kernel forwarding, nftables and XDP",
	Run:   runWire,
	Plots: []perf.Plot{
		{Title: "Highest rate without loss, and forwarded when flooded", Note: "One core does all of the forwarder's work.",
			Metric: []string{"no_loss", "flooded"}, Where: map[string]any{"receive_core": "same", "flows": fewFlows, "size": smallest},
			X: "forwarder", Series: []string{"receive"}, XLabel: "forwarder"},
		{Title: "The same with the receive side on the sender's core", Metric: []string{"no_loss", "flooded"},
			Where: map[string]any{"receive_core": "elsewhere", "flows": fewFlows, "size": smallest}, X: "forwarder", XLabel: "forwarder"},
		{Title: "Forwarded when flooded, by flows", Metric: []string{"flooded"}, Where: map[string]any{"receive_core": "same", "size": smallest},
			X: "flows", Series: []string{"forwarder", "receive"}, LogX: true},
		{Title: "Forwarded for a second of CPU, flooded", Note: "What other programs take of the core meanwhile does not count.",
			Metric: []string{"flooded_per_cpu"}, Where: map[string]any{"flows": fewFlows, "size": smallest}, X: "forwarder", Series: []string{"receive"}},
		{Title: "Established flows in a flood of new ones", Note: "Every other frame is the SYN of a client that was never there before.",
			Metric: []string{"established_forwarded", "syn_forwarded"}, Where: map[string]any{"receive_core": "same", "flows": fewFlows, "size": smallest},
			X: "forwarder", Series: []string{"receive"}},
		{Title: "Bytes per second without loss, by frame size", Metric: []string{"no_loss_bytes"}, Where: map[string]any{"receive_core": "same", "flows": fewFlows},
			X: "size", Series: []string{"forwarder", "receive"}, XLabel: "frame (bytes)"},
	},
}

// A subject is a forwarder in one setting.
type subject struct {
	name    string
	make    func(p polling) forwarder
	receive receive
	flows   int
	size    int // bytes a frame, with the frame check sequence that a real wire would add
	loose   bool
	back    bool
	rare    bool // left out of quick runs that do not ask for it
}

func (s *subject) params() map[string]any {
	return map[string]any{"forwarder": s.name, "receive": string(s.receive), "receive_core": s.receive.core(), "flows": s.flows, "size": s.size}
}

func (s *subject) String() string {
	return fmt.Sprintf("%s, %s, %d flows, %d bytes", s.name, s.receive, s.flows, s.size)
}

// skipped reports whether a run is too quick for the subject, and does not ask for it.
func (s *subject) skipped(r *perf.Run) bool { return r.Quick && s.rare && len(r.Only) == 0 }

func (s *subject) load() load {
	return load{flows: s.flows, size: s.size, loose: s.loose, back: s.back}
}

const (
	fewFlows  = 1000
	someFlows = 10_000
	manyFlows = 100_000
	smallest  = 64
)

func newDirector(p polling) forwarder    { return &director{polling: p, backends: 8, mode: table.DR} }
func newDirectorNAT(p polling) forwarder { return &director{polling: p, backends: 8, mode: table.NAT} }
func newReflector(p polling) forwarder   { return &reflector{p} }
func newRouter(p polling) forwarder      { return &router{polling: p} }
func newNFT(p polling) forwarder         { return &router{polling: p, dnat: true} }
func newXDP(p polling) forwarder         { return &xdpForwarder{polling: p} }
func newXDPTX(p polling) forwarder       { return &xdpForwarder{polling: p, back: true} }

// subjects are all that the scenario compares.
func subjects() []subject {
	few, some, many := subject{flows: fewFlows, size: smallest}, subject{flows: someFlows, size: smallest}, subject{flows: manyFlows, size: smallest}
	director := func(s subject, r receive) subject { s.name, s.make, s.receive = "director", newDirector, r; return s }
	nat := func(s subject, r receive) subject {
		s.name, s.make, s.receive = "director_nat", newDirectorNAT, r
		return s
	}
	reflector := func(s subject, r receive) subject { s.name, s.make, s.receive = "reflector", newReflector, r; return s }
	router := func(s subject, r receive) subject { s.name, s.make, s.receive = "ip_forward", newRouter, r; return s }
	nft := func(s subject, r receive) subject {
		s.name, s.make, s.receive, s.loose = "nft_dnat", newNFT, r, true
		return s
	}
	xdp := func(s subject, r receive) subject { s.name, s.make, s.receive = "xdp_redirect", newXDP, r; return s }
	tx := func(s subject, r receive) subject {
		s.name, s.make, s.receive, s.back = "xdp_tx", newXDPTX, r, true
		return s
	}
	all := []subject{
		director(few, busyPoll), reflector(few, busyPoll), director(many, busyPoll), reflector(many, busyPoll),
		router(few, thread), nft(few, thread), xdp(few, thread), tx(few, thread), director(few, sender),
	}
	rare := []subject{
		director(some, busyPoll), nft(some, thread), nat(few, busyPoll), nat(many, busyPoll), director(few, thread), reflector(few, thread), router(many, thread), nft(many, thread),
		reflector(few, sender), director(many, sender), router(few, sender), nft(few, sender), xdp(few, sender), tx(few, sender),
	}
	for _, size := range []int{512, 1500} {
		large := subject{flows: fewFlows, size: size}
		rare = append(rare, director(large, busyPoll), reflector(large, busyPoll), router(large, thread), nft(large, thread), xdp(large, thread))
	}
	for _, s := range rare {
		s.rare = true
		all = append(all, s)
	}
	return all
}

func runWire(ctx context.Context, r *perf.Run) error {
	var all []subject
	var names []string
	for _, s := range subjects() {
		if r.Wanted(s.params()) && !s.skipped(r) {
			all, names = append(all, s), append(names, s.String())
		}
	}
	e := howHard(r)
	got := make([]history, len(all))
	err := inTurns(ctx, r, names, e.rounds, func(c cores, round, i int) error {
		return all[i].measure(ctx, c, e, polling{receive: all[i].receive}, got[i].round(round))
	})
	for i := range all {
		report(r, &all[i], &e, got[i])
	}
	compare(r, all, got)
	quote(r)
	return err
}

// flood has every other frame open a connection from a client that was never there before.
var flood = mix{syns: 1, cycle: 2}

// measure takes all figures of a subject once.
func (s *subject) measure(ctx context.Context, c cores, e effort, p polling, f figures) (err error) {
	b, err := newBench(ctx, c, s.make(p), s.load())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	best, err := b.noLoss(ctx, e)
	if err != nil {
		return err
	}
	f["no_loss"] = best
	for _, rate := range e.paced {
		at, err := b.sample(ctx, e, rate, mix{}, false)
		if err != nil {
			return err
		}
		f[paced(rate)] = at.forwarded
	}
	flooded, err := b.sample(ctx, e, s.lineRate(), mix{}, true)
	if err != nil {
		return err
	}
	f["flooded"], f["flood_offered"], f["flood_made"] = flooded.forwarded, flooded.offered, flooded.made
	if s.receive != sender { // whose core does a part of the work then, which no clock tells from its own
		f["flooded_per_cpu"], f["flooded_busy"] = flooded.perCPU, flooded.busy
	}
	// Who carries nothing without loss has kept nothing of it.
	f["flooded_of_no_loss"] = 0
	if best > 0 {
		f["flooded_of_no_loss"], f["offered_of_no_loss"] = flooded.forwarded/best, flooded.offered/best
	}
	if !e.strangers {
		return nil
	}
	e.length *= 3 // a director takes milliseconds to see that it must choose
	mixed, err := b.sample(ctx, e, s.lineRate(), flood, true)
	if err != nil {
		return err
	}
	f["established_forwarded"], f["established_offered"] = mixed.forwarded-mixed.strangersTaken, mixed.offered-mixed.strangersOffered
	f["syn_forwarded"], f["syn_offered"] = mixed.strangersTaken, mixed.strangersOffered
	f["established_made"] = mixed.made * flood.established() // a full queue counts frames of both as they would have come
	if f["established_made"] > 0 {
		f["established_of_made"] = f["established_forwarded"] / f["established_made"]
	}
	f["established_of_no_loss"] = 0
	if best > 0 {
		f["established_of_no_loss"] = f["established_forwarded"] / best
	}
	return nil
}

// wireSpeed is in bits a second.
const wireSpeed = 25e9

// lineRate is how many frames a second a wire of that speed brings, with 20 bytes between them: what a flood is.
func (s *subject) lineRate() float64 { return wireSpeed / 8 / float64(s.size+20) }

// paced names the metric of what comes out of a rate.
func paced(rate float64) string { return fmt.Sprintf("paced_%.0fk", rate/1e3) }
