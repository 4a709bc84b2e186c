package perf

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"xlvs/dataplane/flow"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// flowMemory measures what a flow costs in memory: what the process grows by when a table is made and flows are put into
// it, less what it grows by for a worker with a small table that counts for as many backends, over the flows.
func flowMemory(ctx context.Context, r *Run) error {
	const entries = 1 << 22 // enough that the noise of other memory does not show
	var cases []Case
	for _, load := range []int{50, 100} {
		flows := entries * load / 100
		cases = append(cases, Case{
			What: fmt.Sprintf("memory of a flow table, %d %% full", load), Params: map[string]any{"flows": flows, "load": load, "case": "memory"},
			Measure: func(context.Context) ([]Figure, error) {
				none, _, err := growth(flow.MinEntries, pipelineBackends)
				if err != nil {
					return nil, err
				}
				grown, held, err := growth(entries, flows)
				return []Figure{{Metric: "bytes_per_flow", Unit: "bytes", Value: float64(grown-none) / float64(held)}}, err
			}})
	}
	// Interleave leaves the cases out that are not wanted.
	return r.Interleave(ctx, cases)
}

// growth returns by how much the process grows when a worker with a table of so many entries comes and opens flows, and
// how many of those the table then holds.
func growth(entries, flows int) (bytes int64, held int, err error) {
	debug.FreeOSMemory() // what earlier cases left must not be taken for room
	before, err := resident()
	if err != nil {
		return 0, 0, err
	}
	o := balanced{mode: table.DR, services: 1, backends: pipelineBackends, slots: pipelineSlots}
	b, err := newBench(o, flows, entries, hotChunks)
	if err != nil {
		return 0, 0, err
	}
	b.src.template = tcpFrame(false, false, packet.FlagSYN, 64)
	b.drive(flows)
	debug.FreeOSMemory() // nor what building the tables needed for what a flow needs
	after, err := resident()
	return after - before, b.engine.FlowTable(0).Used, closeAll([]*bench{b}, err)
}

// resident returns the bytes of memory that the process has in use.
func resident() (int64, error) {
	kib, err := memoryField("/proc/self/status", "VmRSS:")
	return kib << 10, err
}

func memoryField(file, field string) (int64, error) {
	f, err := fieldsOf(file, field)
	if err != nil {
		return 0, err
	}
	if len(f) < 2 {
		return 0, fmt.Errorf("%s: %s has no value", file, field)
	}
	return strconv.ParseInt(f[1], 10, 64)
}

// fieldsOf returns the words of the line that begins with the word field.
func fieldsOf(file, field string) ([]string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 0 && f[0] == field {
			return f, nil
		}
	}
	return nil, fmt.Errorf("%s has no %s", file, field)
}
