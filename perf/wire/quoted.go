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

// quoteModes does the same for proxied connections: for objects of 1 MB, HAProxy 2.6 in TCP mode carried 0.74 GB/s, and 1.16 GB/s
// went from client to server without anything between them.
func quoteModes(r *perf.Run) {
	const size = 1_000_000
	quoted := false
	for _, q := range []struct {
		by   string
		rate float64 // bytes/s
	}{{"haproxy", 0.74e9}, {"direct", 1.16e9}} {
		params := map[string]any{"by": q.by + " (quoted)", "reply_bytes": size}
		if r.Wanted(params) {
			r.Quote(params, "requests", "requests/s", q.rate/size)
			quoted = true
		}
	}
	if quoted {
		r.Note("rows marked (quoted) were not measured here but on the machine of those in scenario wire")
	}
}
