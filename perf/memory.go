package perf

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"xlvs/dataplane/flow"
	"xlvs/dataplane/table"
)

// flowMemory measures what a flow costs in memory: what the process grows by when a table is made and filled, over the
// flows that it then holds.
func flowMemory(ctx context.Context, r *Run) error {
	const flows = 1 << 22 // enough that what else a worker has does not show
	k := caseKind{name: caseFlood, mode: table.DR, flows: flows, size: 64}
	// Interleave leaves the case out where it is not wanted.
	return r.Interleave(ctx, []Case{{
		What: "memory of a full flow table", Params: map[string]any{"flows": flows, "case": "memory"},
		Measure: func(context.Context) ([]Figure, error) {
			debug.FreeOSMemory() // what earlier cases left must not be taken for room
			before, err := resident()
			if err != nil {
				return nil, err
			}
			b, err := k.bench()
			if err != nil {
				return nil, err
			}
			debug.FreeOSMemory() // nor what building the tables needed for what a flow needs
			after, err := resident()
			held := b.engine.FlowTable(0).Used
			return []Figure{{Metric: "bytes_per_flow", Unit: "bytes", Value: float64(after-before) / float64(held)}}, closeAll([]*bench{b}, err)
		}}})
}

// resident returns the bytes of memory that the process has in use.
func resident() (int64, error) {
	kib, err := memoryField("/proc/self/status", "VmRSS:")
	return kib << 10, err
}

// memoryFor returns how much memory the flow tables of cases need that are measured in turns, and how much is free.
func memoryFor(kinds []caseKind) (need, free int64, err error) {
	free, err = memoryField("/proc/meminfo", "MemAvailable:")
	shared := map[string]bool{}
	for _, k := range kinds {
		id := fmt.Sprint(k.mode, k.v6)
		if known := k.name == caseHit || k.name == caseReply; known && shared[id] {
			continue
		} else if known {
			shared[id] = true
		}
		size := int64(1)
		for size < int64(k.flows+k.flows/4) {
			size *= 2
		}
		need += size * flow.BytesPerFlow
	}
	return need, free << 10, err
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
