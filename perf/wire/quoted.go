package wire

import "xlvs/perf"

// A quotation is a figure of another machine, in thousands of packets a second.
type quotation struct {
	forwarder, receive, core, metric string
	low, high                        float64
}

// quotations are what programs in C and the kernel reached on 2 cores of an AMD EPYC at 2.6 GHz, Linux 6.18, veth,
// 64-byte frames. Some were given as a range.
var quotations = []quotation{
	{"testpmd", "softirq", "same", "flooded", 385, 385},
	{"testpmd", "softirq", "same", "paced_500k", 497, 497},
	{"testpmd", "softirq", "same", "paced_700k", 694, 694},
	{"testpmd", "softirq", "same", "paced_900k", 891, 891},
	{"xdpsock", "softirq", "same", "flooded", 101, 101},
	{"xdpsock", "softirq", "same", "paced_500k", 497, 497},
	{"xdpsock", "softirq", "same", "paced_700k", 669, 669},
	{"xdpsock", "softirq", "same", "paced_900k", 846, 846},
	{"xdp_tx", "softirq", "same", "flooded", 2970, 2970},
	{"ip_forward", "softirq", "same", "flooded", 950, 950},
	{"nft_dnat", "softirq", "same", "flooded", 472, 472},
	{"testpmd", "softirq", "elsewhere", "flooded", 744, 951},
	{"xdpsock", "busy-poll", "elsewhere", "flooded", 992, 992},
	{"ip_forward", "softirq", "elsewhere", "flooded", 1126, 1126},
	{"nft_dnat", "softirq", "elsewhere", "flooded", 633, 633},
}

// quote emits quotations beside what is measured, marked as what they are.
func quote(r *perf.Run) {
	quoted := false
	for _, q := range quotations {
		params := map[string]any{"forwarder": q.forwarder + " (quoted)", "receive": q.receive, "receive_core": q.core, "flows": fewFlows, "size": smallest}
		if r.Wanted(params) {
			r.Emit(perf.Row{Params: params, Metric: q.metric, Unit: "packets/s", Median: (q.low + q.high) / 2 * 1e3, Min: q.low * 1e3, Max: q.high * 1e3})
			quoted = true
		}
	}
	if quoted {
		r.Note("rows marked (quoted) were not measured here but on 2 cores of an AMD EPYC at 2.6 GHz, Linux 6.18; "+
			"they stand with the rows of %d flows, how many they had is not recorded", fewFlows)
	}
}
