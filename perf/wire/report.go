package wire

import (
	"maps"

	"xlvs/perf"
)

// overload is how many times the no-loss rate a flood must be, to show whether a forwarder falls into a receive livelock.
const overload = 3

// exhausted is the part of the time that a forwarder must work for, at least, for a flood's figure to be its own end.
const exhausted = 0.9

// report emits the figures of one subject in a fixed order.
func report(r *perf.Run, s *subject, e *effort, h history) {
	with := func(more map[string]any) map[string]any {
		p := s.params()
		maps.Copy(p, more)
		return p
	}
	noLoss := with(e.params())
	h.record(r, noLoss, metric{"no_loss", "packets/s"})
	r.Record(noLoss, "no_loss_bytes", "bytes/s", times(h.values("no_loss"), s.size))
	for _, rate := range thorough.paced {
		h.record(r, s.params(), metric{paced(rate), "packets/s"})
	}
	flooded := map[string]any{"overload": "3 or more"}
	if times := h.values("offered_of_no_loss"); len(times) > 0 && perf.Median(times) < overload {
		flooded["overload"] = "less than 3"
		r.Note("%s: the generator offered %.2f times the rate without loss, not %d times: a worse flood might leave less", s, perf.Median(times), overload)
	}
	if busy := h.values("flooded_busy"); len(busy) > 0 && perf.Median(busy) < exhausted {
		r.Note("%s: works for %.0f %% of the time in a flood: more than what comes out does not get to it", s, 100*perf.Median(busy))
	}
	h.record(r, with(flooded), metric{"flooded", "packets/s"}, metric{"flood_offered", "packets/s"}, metric{"flood_made", "packets/s"},
		metric{"flooded_per_cpu", "packets/s of CPU"}, metric{"flooded_busy", "ratio"})
	r.Record(with(flooded), "flooded_bytes", "bytes/s", times(h.values("flooded"), s.size))
	maps.Copy(flooded, e.params())
	h.record(r, with(flooded), metric{"flooded_of_no_loss", "ratio"}, metric{"offered_of_no_loss", "ratio"})
	mixed := map[string]any{"syn_share": float64(flood.syns) / float64(flood.cycle)}
	h.record(r, with(mixed), metric{"established_forwarded", "packets/s"}, metric{"established_offered", "packets/s"},
		metric{"established_made", "packets/s"}, metric{"established_of_made", "ratio"}, metric{"syn_forwarded", "packets/s"}, metric{"syn_offered", "packets/s"})
	maps.Copy(mixed, e.params())
	h.record(r, with(mixed), metric{"established_of_no_loss", "ratio"})
}

// times returns values in bytes that are given in frames.
func times(values []float64, size int) (all []float64) {
	for _, v := range values {
		all = append(all, v*float64(size))
	}
	return all
}

// compare emits the director's figures as parts of the reflector's and of nftables' in the same round; with NAT, which is what nftables does,
// of nftables' alone.
func compare(r *perf.Run, all []subject, got []history) {
	for i := range all {
		for j := range all {
			d, m := &all[i], &all[j]
			if d.name != "director" && d.name != "director_nat" || d.flows != m.flows || d.size != m.size || d.receive.core() != m.receive.core() {
				continue
			}
			// nftables has no sockets to poll: its work is on one core by a thread of the kernel, the director's either way.
			if m.name == "reflector" && d.name == "director" && d.receive == m.receive || m.name == "nft_dnat" {
				for _, metric := range []string{"no_loss", "flooded", "flooded_per_cpu"} {
					r.Record(d.params(), metric+"_of_"+m.name, "ratio", got[i].ratios(got[j], metric))
				}
			}
		}
	}
}
