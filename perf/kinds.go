package perf

import (
	"fmt"
	"math/bits"

	"xlvs/dataplane/flow"
	"xlvs/dataplane/table"
)

// caseKind is one case of the pipeline scenario.
type caseKind struct {
	name     string
	mode     table.Mode
	v6       bool
	flows    int
	size     int
	load     int  // % of the flow table's entries that the flows take; 0: at most half of them
	cold     bool // frames come from memory that nobody has touched for long
	services int  // 0: one
}

const (
	caseHit   = "hit"      // packets of established flows
	caseReply = "reply"    // their NAT replies
	caseNew   = "new"      // SYNs of flows that are opened beside them
	caseFlood = "synflood" // SYNs over a table that is full of half-open flows
	// caseFloodOver is a flood beside established flows: in a table twice as large, or, full, where every entry is one.
	caseFloodOver = "synflood_established"
)

// fewestNew is how many flows there must be for a measurement of new ones beside them: of few, half as many are over
// before the clock has ticked.
const fewestNew = 1 << 16

// kindsOf lists the cases of a mode and family at a number of flows. Variants of "hit" vary one thing.
func kindsOf(m table.Mode, v6 bool, flows int, quick bool) []caseKind {
	base := caseKind{mode: m, v6: v6, flows: flows, size: 64}
	var kinds []caseKind
	add := func(name string, vary func(k *caseKind)) {
		k := base
		k.name = name
		if vary != nil {
			vary(&k)
		}
		kinds = append(kinds, k)
	}
	add(caseHit, nil)
	if quick && v6 {
		return kinds
	}
	variants := !v6 && (!quick || m == table.DR)
	if flows == 1<<16 && !v6 {
		add(caseHit, func(k *caseKind) { k.size = 512 })
		add(caseHit, func(k *caseKind) { k.size = 1500 })
	}
	if flows == 1<<16 && variants {
		add(caseHit, func(k *caseKind) { k.cold = true })
		add(caseHit, func(k *caseKind) { k.services = 1000 })
	}
	// A NAT flow stands in two buckets: in a table that is all but full, not each of them finds room in both.
	fills := variants && m != table.NAT
	if (flows == 1<<16 || flows == 1<<20) && fills {
		add(caseHit, func(k *caseKind) { k.load = 100 })
	}
	if m == table.NAT {
		add(caseReply, nil)
	}
	if flows >= fewestNew && (!quick || flows == 1<<20) {
		add(caseNew, nil)
		add(caseFlood, nil)
	}
	if flows == 1<<20 && variants {
		add(caseFloodOver, nil)
	}
	if flows == 1<<20 && fills {
		add(caseFloodOver, func(k *caseKind) { k.load, k.flows = 90, flows*9/10 })
		add(caseFloodOver, func(k *caseKind) { k.load = 100 })
	}
	return kinds
}

// params name the case. What a variant varies is named by it alone.
func (k caseKind) params() map[string]any {
	p := map[string]any{"mode": k.mode.String(), "family": family(k.v6), "case": k.name, "flows": k.flows, "size": k.size}
	if k.load > 0 {
		p["load"] = k.load
	}
	if k.cold {
		p["frames"] = "cold"
	}
	if k.services > 1 {
		p["services"], p["backends"] = k.services, fewBackends
	}
	return p
}

func (k caseKind) String() string {
	s := fmt.Sprintf("%s %s %s, %d flows, %d bytes", k.mode, family(k.v6), k.name, k.flows, k.size)
	if k.load > 0 {
		s += fmt.Sprintf(", a table %d %% full", k.load)
	}
	if k.cold {
		s += ", cold frames"
	}
	if k.services > 1 {
		s += fmt.Sprintf(", %d services", k.services)
	}
	return s
}

func family(v6 bool) string {
	if v6 {
		return "ipv6"
	}
	return "ipv4"
}

// plain has a plot leave the variants out.
func plain(where map[string]any) map[string]any {
	for _, v := range []string{"load", "frames", "services"} {
		where[v] = nil
	}
	return where
}

// smallestTable keeps tables of very few flows out of reach of chance: a bucket that overflows.
const smallestTable = 1 << 16

// entries is the size of the case's flow table.
func (k caseKind) entries() int {
	n := k.flows
	if k.load == 0 && k.name != caseFlood {
		n += n / 4
	}
	return 1 << bits.Len(uint(max(n, smallestTable)-1))
}

// established is how many flows are open when the measurement begins.
func (k caseKind) established() int { return min(k.flows, k.entries()-1) } // a table never uses its first entry

// fewBackends and scaleSlots are what each of many services has, so that ten thousand tables, none of them shared,
// fit into memory.
const (
	fewBackends = 10
	scaleSlots  = 4093
)

// table names the bench that the case is measured on: cases that leave it as it was share it.
func (k caseKind) table() string {
	flood := ""
	if k.name == caseFlood || k.name == caseFloodOver {
		flood = k.name
	}
	return fmt.Sprint(k.mode, k.v6, k.load, k.cold, k.services, flood)
}

// memoryFor returns how much memory the flow tables of cases need that are measured in turns, and how much is free.
func memoryFor(kinds []caseKind) (need, free int64, err error) {
	free, err = memoryField("/proc/meminfo", "MemAvailable:")
	counted := map[string]bool{}
	for _, k := range kinds {
		if !counted[k.table()] {
			counted[k.table()] = true
			need += int64(k.entries()) * flow.BytesPerFlow
		}
	}
	return need, free << 10, err
}
