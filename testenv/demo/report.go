package demo

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// printRows prints the steady state as a table of less than 120 columns.
func (r *Result) printRows(w io.Writer) {
	const line = "%-4s  %-6s  %8s  %6s  %-27s  %8s %9s  %8s %9s  %8s %9s\n"
	fmt.Fprintf(w, "%59s  %18s  %18s  %18s\n", "", "CLIENT → DIRECTOR", "BACKEND → CLIENT", "REPLIES CROSSING")
	fmt.Fprintf(w, line, "MODE", "FAMILY", "REQUESTS", "FAILED", "SHARE OF EACH BACKEND",
		"PACKETS", "BYTES", "PACKETS", "BYTES", "PACKETS", "BYTES")
	for _, row := range r.Rows {
		fmt.Fprintf(w, line, row.Mode, row.Family, num(row.Requests), num(row.Failures), row.shares(),
			num(row.ToDirector.Packets), num(row.ToDirector.Bytes), num(row.ToClient.Packets), num(row.ToClient.Bytes),
			num(row.Crossed.Packets), num(row.Crossed.Bytes))
	}
	fmt.Fprintln(w, "Packets and bytes are frames on the wire. Replies crossing: those that came through the director.")
}

func num[T int | int64 | uint64](n T) string { return fmt.Sprint(n) }

func (r *Row) shares() string {
	total := 0
	for _, n := range r.Backends {
		total += n
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(r.Backends)) {
		parts = append(parts, fmt.Sprintf("%s %.0f%%", name, 100*float64(r.Backends[name])/float64(max(total, 1))))
	}
	return strings.Join(parts, " ")
}

func (k *Kill) print(w io.Writer) {
	for _, l := range [][2]string{
		{"health saw that " + k.Backend + " was dead after", ms(k.DownMS)},
		{"last new connection sent to " + k.Backend + " after", ms(k.LastSentMS)},
		{"table slots moved", fmt.Sprintf("%d of %d (%.1f%%)", k.SlotsMoved, k.Slots, 100*float64(k.SlotsMoved)/float64(max(k.Slots, 1)))},
		{"requests, before and after the kill", num(k.Requests)},
		{"  failed at " + k.Backend + " while it was dead", num(k.FailedAtDead)},
		{"  failed at the other backends", num(k.FailedAtOthers)},
		{"connections kept open to the other backends", num(k.Kept)},
		{"  broken, or moved to another backend", num(k.Moved)},
		{"health saw that " + k.Backend + " was back after", ms(k.UpMS)},
		{"table slots moved back", num(k.SlotsMovedBack)},
		{"first new connection sent to it again after", ms(k.FirstAgainMS)},
	} {
		fmt.Fprintf(w, "  %-46s %s\n", l[0], l[1])
	}
}

func ms(n int64) string { return fmt.Sprintf("%d ms", n) }

// lastSent is how long after its death a backend may still be sent new connections: two checks that are 200 ms
// apart must fail first.
const lastSent = time.Second

// Faults returns what is not as it has to be; nothing, when all is well.
func (r *Result) Faults() []string {
	var faults []string
	for _, row := range r.Rows {
		name := row.Mode + " " + row.Family
		if row.Failures > 0 {
			faults = append(faults, fmt.Sprintf("%s: %d of %d requests failed: %s", name, row.Failures, row.Requests, row.Error))
		}
		if row.Mode == "nat" && row.Crossed.Packets == 0 {
			faults = append(faults, name+": no reply crossed the director")
		}
		if row.Mode != "nat" && row.Crossed.Packets > 0 {
			faults = append(faults, fmt.Sprintf("%s: %d replies crossed the director", name, row.Crossed.Packets))
		}
	}
	return append(faults, r.Kill.Faults()...)
}

// Faults returns what is not as it has to be.
func (k *Kill) Faults() []string {
	var faults []string
	for _, c := range []struct {
		wrong bool
		what  string
	}{
		{k.LastSentMS > lastSent.Milliseconds(), fmt.Sprintf("%s was sent a new connection %d ms after it had died", k.Backend, k.LastSentMS)},
		{k.FailedAtOthers > 0, fmt.Sprintf("%d requests failed that were not sent to %s", k.FailedAtOthers, k.Backend)},
		{k.Misrouted > 0, fmt.Sprintf("%d requests were answered by another backend than the log names", k.Misrouted)},
		{k.Kept == 0, "no connection was kept open to the other backends"},
		{k.Moved > 0, fmt.Sprintf("of %d connections kept open to the other backends %d broke or moved", k.Kept, k.Moved)},
		{k.FirstAgainMS == 0, k.Backend + " was sent nothing after it had come back"},
	} {
		if c.wrong {
			faults = append(faults, c.what)
		}
	}
	return faults
}
