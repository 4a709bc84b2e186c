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
			Where: map[string]any{"case": "hit", "size": 64}, X: "flows", Series: []string{"mode", "family"}, LogX: true, LogY: true},
		{Title: "Known flows, without the harness", Note: "What the director adds to making and freeing the packets.", Metric: []string{"net_ns_per_packet"},
			Where: map[string]any{"case": "hit", "size": 64}, X: "flows", Series: []string{"mode", "family"}, LogX: true, LogY: true},
		{Title: "Known flow, new flow, SYN flood, NAT reply", Note: "At a million flows.", Metric: []string{"ns_per_packet"},
			Where: map[string]any{"flows": 1 << 20, "size": 64}, X: "case", Series: []string{"mode", "family"}},
		{Title: "Packet sizes", Note: "Only headers are touched, so the size should not matter.", Metric: []string{"ns_per_packet"},
			Where: map[string]any{"case": "hit", "flows": 1 << 16, "family": "ipv4"}, X: "size", Series: []string{"mode"}},
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

// caseKind is one case of the scenario.
type caseKind struct {
	name  string
	mode  table.Mode
	v6    bool
	flows int
	size  int
}

const (
	caseHit   = "hit"
	caseNew   = "new"
	caseFlood = "synflood"
	caseReply = "reply"
)

// fewestNew is how many new flows are worth measuring: fewer are over before the clock has ticked.
const fewestNew = 1 << 16

func kindsOf(m table.Mode, v6 bool, flows int, quick bool) []caseKind {
	base := caseKind{mode: m, v6: v6, flows: flows, size: 64}
	with := func(name string, size int) caseKind {
		k := base
		k.name, k.size = name, size
		return k
	}
	kinds := []caseKind{with(caseHit, 64)}
	if quick && v6 {
		return kinds
	}
	if flows == 1<<16 && !v6 {
		kinds = append(kinds, with(caseHit, 512), with(caseHit, 1500))
	}
	if m == table.NAT {
		kinds = append(kinds, with(caseReply, 64))
	}
	if flows >= fewestNew && (!quick || flows == 1<<20) {
		kinds = append(kinds, with(caseNew, 64), with(caseFlood, 64))
	}
	return kinds
}

func (k caseKind) params() map[string]any {
	return map[string]any{"mode": k.mode.String(), "family": family(k.v6), "case": k.name, "flows": k.flows, "size": k.size}
}

func family(v6 bool) string {
	if v6 {
		return "ipv6"
	}
	return "ipv4"
}

// runGroup measures cases in rounds. Cases of known flows in one mode and family share a table.
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
	known := map[string]*bench{}
	for _, k := range kinds {
		if err := ctx.Err(); err != nil {
			return err
		}
		what := fmt.Sprintf("%s %s %s, %d flows, %d bytes", k.mode, family(k.v6), k.name, k.flows, k.size)
		r.Progress(0, 1, "setting up "+what)
		shared := fmt.Sprint(k.mode, k.v6, k.name == caseHit || k.name == caseReply)
		b := known[shared]
		if b == nil || k.name == caseNew || k.name == caseFlood {
			if b, err = k.bench(); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			benches = append(benches, b)
			known[shared] = b
		}
		cases = append(cases, Case{What: what, Params: k.params(), Measure: k.measure(b, r.Quick)})
	}
	return r.Interleave(ctx, cases)
}

// bench makes the table that the case starts from.
func (k caseKind) bench() (*bench, error) {
	room := k.flows + k.flows/4
	if k.name == caseFlood {
		room = k.flows
	}
	o := balanced{mode: k.mode, v6: k.v6, services: 1, backends: pipelineBackends, slots: pipelineSlots}
	b, err := newBench(o, k.flows, room)
	if err != nil {
		return nil, err
	}
	switch k.name {
	case caseNew:
	case caseFlood:
		// Twice as many half-open flows as the table holds: it is full before the first measurement.
		b.src.template = tcpFrame(b.v6, false, packet.FlagSYN, k.size)
		b.drive(2 * k.flows)
	default:
		err = b.establish()
	}
	if err != nil {
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
	template := tcpFrame(k.v6, k.name == caseReply, packet.FlagACK, k.size)
	if k.name == caseNew || k.name == caseFlood {
		template = tcpFrame(k.v6, false, packet.FlagSYN, k.size)
	}
	var replies []byte
	if k.name == caseReply {
		replies = b.backendOfFlows()
	}
	return func(context.Context) ([]Figure, error) {
		b.src.template, b.src.backend, b.src.random = template, replies, k.name == caseHit || k.name == caseReply
		switch k.name {
		case caseNew:
			defer b.empty()
			return b.timing(k.flows)
		case caseFlood:
			return b.timing(n)
		}
		b.warm(n)
		return b.timing(n)
	}
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
