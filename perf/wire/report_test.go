package wire

import (
	"context"
	"strings"
	"testing"

	"xlvs/perf"
)

// TestReport: a flood that is none is marked, and a round without a rate that is free of loss counts.
func TestReport(t *testing.T) {
	director, nft := subjects()[0], subjects()[5]
	if nft.name != "nft_dnat" || director.name != "director" {
		t.Fatalf("the subjects are %s and %s", &director, &nft)
	}
	e := thorough
	s := perf.Scenario{Name: "s", Run: func(_ context.Context, r *perf.Run) error {
		got := make([]history, 2)
		for round, best := range []float64{1e6, 0, 5e5} {
			f := got[0].round(round)
			f["no_loss"], f["flooded"], f["flooded_per_cpu"], f["flooded_of_no_loss"] = best, 9e5, 9e5, 0
			if best > 0 {
				f["offered_of_no_loss"], f["flooded_of_no_loss"] = 2e6/best, 9e5/best
			}
			got[1].round(round)["flooded_per_cpu"] = 3e5
		}
		report(r, &director, &e, got[0])
		var weak history
		weak.round(0)["flooded"], weak.round(0)["offered_of_no_loss"] = 1, 2.9
		report(r, &nft, &e, weak)
		compare(r, []subject{director, nft}, got)
		quote(r)
		return nil
	}}
	res, err := perf.Execute(t.Context(), []perf.Scenario{s}, perf.Run{Runs: 3}, "test")
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]perf.Row{}
	for _, r := range res.Rows {
		if _, twice := keys[r.Key()]; twice {
			t.Errorf("two rows are called %s", r.Key())
		}
		keys[r.Key()] = r
	}
	const of = "s forwarder=director flows=1000 size=64 "
	for key, median := range map[string]float64{
		of + "attempts=3 receive=busy-poll receive_core=same tolerated_loss=0.001 trial_ms=1000 no_loss":                               5e5,
		of + "attempts=3 receive=busy-poll receive_core=same tolerated_loss=0.001 trial_ms=1000 no_loss_bytes":                         32e6,
		of + "attempts=3 overload=3 or more receive=busy-poll receive_core=same tolerated_loss=0.001 trial_ms=1000 flooded_of_no_loss": 0.9,
		of + "receive=busy-poll receive_core=same flooded_per_cpu_of_nft_dnat":                                                         3,
		"s forwarder=nft_dnat flows=1000 size=64 overload=less than 3 receive=thread receive_core=same flooded":                        1,
		"s forwarder=testpmd (quoted) flows=1000 size=64 receive=softirq receive_core=same paced_900k":                                 891e3,
	} {
		if r, there := keys[key]; !there || r.Median != median {
			t.Errorf("%s is %v, want %v", key, r.Median, median)
		}
	}
	if notes := strings.Join(res.Notes, "\n"); strings.Count(notes, "the generator offered") != 1 || !strings.Contains(notes, "nft_dnat, thread, 1000 flows, 64 bytes: the generator offered 2.90 times") || !strings.Contains(notes, "(quoted)") {
		t.Errorf("notes %s", notes)
	}
}

func TestLostText(t *testing.T) {
	for want, loss := range map[string][]float64{"none": {0, 0, 0.5}, "under 0.1 %": {0.0001}, "under 1 %": {0.001}, "1 % or more": {0.01}} {
		if got := lostText(loss); got != want {
			t.Errorf("%v is %q, want %q", loss, got, want)
		}
	}
}
