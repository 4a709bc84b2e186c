package perf

import (
	"context"
	"fmt"
	"slices"

	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// Pipeline measures the packet's way through a worker, without any I/O.
var pipeline = Scenario{
	Name:  "pipeline",
	Short: "ns a packet in memory: mode, family, flows, size; known flows, new ones, a SYN flood, NAT replies",
	Run:   runPipeline,
	Plots: []Plot{
		{Title: "Known flows", Note: "64-byte packets of random flows, the harness included.", Metric: []string{"ns_per_packet"},
			Where: plain(map[string]any{"case": "hit", "size": 64}), X: "flows", Series: []string{"mode", "family"}, LogX: true, LogY: true},
		{Title: "Known flows, without the harness", Note: "What the director adds to making and freeing the packets.", Metric: []string{"net_ns_per_packet"},
			Where: plain(map[string]any{"case": "hit", "size": 64}), X: "flows", Series: []string{"mode", "family"}, LogX: true, LogY: true},
		{Title: "Known flow, new flow, SYN flood, NAT reply", Note: "Beside a million flows; the flood is over a table full of half-open ones.", Metric: []string{"ns_per_packet"},
			Where: plain(map[string]any{"flows": 1 << 20, "size": 64}), X: "case", Series: []string{"mode", "family"}},
		{Title: "Packet sizes", Note: "Only headers are touched, so the size should not matter.", Metric: []string{"ns_per_packet"},
			Where: plain(map[string]any{"case": "hit", "flows": 1 << 16, "family": "ipv4"}), X: "size", Series: []string{"mode"}},
		{Title: "Known flows in a full table", Note: "Known flows where every entry is one of theirs. The plots above show the same flows in a table twice that size.", Metric: []string{"net_ns_per_packet"},
			Where: map[string]any{"case": "hit", "size": 64, "load": 100}, X: "flows", Series: []string{"mode"}, LogX: true},
		{Title: "Established flows that a SYN flood leaves", Note: "By the share of the table's entries that they take; as many SYNs come from elsewhere as a run has packets.", Metric: []string{"established_kept"},
			Where: map[string]any{"case": caseFloodOver}, X: "load", Series: []string{"mode"}, XLabel: "load, %"},
		{Title: "Cold frames", Note: "Frames that were written 4096 frames before they are looked at.", Metric: []string{"net_ns_per_packet"},
			Where: map[string]any{"frames": "cold"}, X: "mode", Series: []string{"family"}},
	},
}

const (
	pipelineBackends = 100
	pipelineSlots    = 65537
)

// runPipeline measures one group of cases after the other, one group for each number of flows. A group's tables are all
// in memory at once so that its runs can be interleaved; at ten million flows that would be too much, and each mode is a group.
func runPipeline(ctx context.Context, r *Run) error {
	return onCore(func() error {
		for _, flows := range pipelineFlows(r.Quick) {
			var groups [][]caseKind
			for _, m := range []table.Mode{table.DR, table.TUN, table.NAT} {
				for _, v6 := range []bool{false, true} {
					kinds := kindsOf(m, v6, flows, r.Quick)
					if flows <= 1<<20 && len(groups) > 0 {
						groups[0] = append(groups[0], kinds...)
					} else {
						groups = append(groups, kinds)
					}
				}
			}
			for _, g := range groups {
				if err := runGroup(ctx, r, g); err != nil {
					return err
				}
			}
		}
		return flowMemory(ctx, r)
	})
}

func pipelineFlows(quick bool) []int {
	if quick {
		return []int{1, 1 << 16, 1 << 20}
	}
	return []int{1, 1 << 10, 1 << 16, 1 << 20, 10 << 20}
}

// runGroup measures cases in rounds.
func runGroup(ctx context.Context, r *Run, kinds []caseKind) (err error) {
	kinds = slices.DeleteFunc(kinds, func(k caseKind) bool { return !r.Wanted(k.params()) })
	if len(kinds) == 0 {
		return nil
	}
	if need, free, err := memoryFor(kinds); err != nil || need > free/4*3 {
		r.Note("%s at %d flows was left out: it needs %d MiB for flow tables, and %d MiB are free", kinds[0].mode, kinds[0].flows, need>>20, free>>20)
		return err
	}
	var benches []*bench
	defer func() { err = closeAll(benches, err) }()
	var cases []Case
	tables := map[string]*bench{}
	for _, k := range kinds {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.Progress(0, 1, "setting up "+k.String())
		b := tables[k.table()]
		if b == nil {
			if b, err = k.bench(); err != nil {
				return fmt.Errorf("%s: %w", k, err)
			}
			benches = append(benches, b)
			tables[k.table()] = b
		}
		cases = append(cases, Case{What: k.String(), Params: k.params(), Measure: k.measure(b, r.Quick)})
	}
	return r.Interleave(ctx, cases)
}

// bench makes the table that the case starts from.
func (k caseKind) bench() (*bench, error) {
	o := balanced{mode: k.mode, v6: k.v6, services: 1, backends: pipelineBackends, slots: pipelineSlots}
	if k.services > 1 {
		o.services, o.backends, o.slots = k.services, fewBackends, scaleSlots
	}
	chunks := hotChunks
	if k.cold {
		chunks = coldChunks
	}
	b, err := newBench(o, k.established(), k.entries(), chunks)
	if err != nil {
		return nil, err
	}
	if k.name == caseFlood {
		// Twice as many half-open flows as the table holds: it is full before the first measurement.
		b.src.template = tcpFrame(b.v6, false, packet.FlagSYN, k.size)
		b.drive(2 * k.flows)
		return b, nil
	}
	if err := b.establish(); err != nil {
		return nil, closeAll([]*bench{b}, err)
	}
	return b, nil
}

// measure returns one run of the case.
func (k caseKind) measure(b *bench, quick bool) func(context.Context) ([]Figure, error) {
	n := 1 << 20
	if quick {
		n = 1 << 18
	}
	run := map[string]func() ([]Figure, error){
		caseHit: func() ([]Figure, error) { return b.hit(tcpFrame(k.v6, false, packet.FlagACK, k.size), nil, n, k.cold) },
		caseReply: func() ([]Figure, error) {
			return b.hit(tcpFrame(k.v6, true, packet.FlagACK, k.size), b.backendOfFlows(), n, k.cold)
		},
		caseNew:       func() ([]Figure, error) { return b.open(k.size, min(n, b.flows/2)) },
		caseFlood:     func() ([]Figure, error) { return b.flood(k.size, n) },
		caseFloodOver: func() ([]Figure, error) { return b.floodOver(k.size, n, k.load == 0) },
	}[k.name]
	return func(context.Context) ([]Figure, error) { return quietly(run) }
}

// backendOfFlows returns the backend of each flow, as the engine picked it.
func (b *bench) backendOfFlows() []byte {
	out := make([]byte, b.flows)
	dst := packet.FromNetip(vip(b.v6, 0))
	for n := range out {
		src := packet.FromNetip(client(b.v6, uint32(n)))
		if _, be, err := b.engine.Explain(src, dst, packet.MakePorts(clientPort(uint32(n)), servicePort), packet.ProtoTCP); err == nil && be != nil {
			out[n] = byte(be.Ref.Slot())
		}
	}
	return out
}
