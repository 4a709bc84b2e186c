package main_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"

	"xlvs/control/api"
	"xlvs/dataplane/table"
	"xlvs/testenv"
)

// TestExplain asks a running director where flows go, and works the same out from its configuration: both must agree.
func TestExplain(t *testing.T) {
	w := start(t, setup{lab: testenv.Options{Servers: 2}})
	w.answers(t)
	seen := map[string]bool{}
	for _, m := range w.Options.Modes {
		for _, v6 := range []bool{false, true} {
			client := "198.51.100.7"
			if v6 {
				client = "2001:db8:c::7"
			}
			for port := range uint16(8) {
				ask := []string{"explain", "-o", "json", "--src", netip.AddrPortFrom(netip.MustParseAddr(client), 40000+port).String(),
					"--dst", netip.AddrPortFrom(w.VIP(m, v6), testenv.HTTPPort).String()}
				live, file := w.explain(t, append(ask, "--api", w.api())...), w.explain(t, append(ask, "-c", w.dir.File)...)
				if live.Backend == "" || live.Backend != file.Backend || live.Hash != file.Hash || live.Slot != file.Slot || live.Service != file.Service || live.Forward != m.String() {
					t.Fatalf("%v, port %d: the director says %+v, its file %+v", m, port, live, file)
				}
				if !live.Reached || len(live.Backends) != 2 || live.Backends[0].Slots+live.Backends[1].Slots != live.Slots || !live.Backends[0].Up {
					t.Errorf("%+v", live)
				}
				seen[fmt.Sprint(m, v6, live.Backend)] = true
			}
		}
	}
	if len(seen) != 12 {
		t.Errorf("not every backend was chosen: %v", seen)
	}
	if _, status := w.xlvs(t, "explain", "--api", w.api(), "--src", "1.2.3.4:5", "--dst", netip.AddrPortFrom(w.VIP(table.DR, false), 9).String()); status != 0 {
		t.Errorf("a port without service: status %d", status)
	}
}

func (w *world) explain(t *testing.T, args ...string) (x api.Explanation) {
	t.Helper()
	out, status := w.xlvs(t, args...)
	if err := json.Unmarshal([]byte(out), &x); err != nil || status != 0 {
		t.Fatalf("xlvs %v: status %d, %v:\n%s", args, status, err, out)
	}
	return x
}
