package main_test

import (
	"strings"
	"testing"
	"time"

	"xlvs/testenv"
)

// TestRestart holds what docs/running.md says of connections that are open while a director is restarted.
func TestRestart(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name string
		edit func(string) string
		keep bool
	}{
		{"default", nil, false},
		{"sloppy_tcp", func(s string) string {
			return strings.ReplaceAll(s, "    protocol: tcp\n", "    protocol: tcp\n    sloppy_tcp: true\n")
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t, setup{lab: testenv.Options{Servers: 3}, config: testenv.ConfigOptions{LogFlows: true}, edit: c.edit})
			var open []*held
			for _, m := range w.Options.Modes {
				for _, v6 := range []bool{false, true} {
					open = append(open, w.hold(t, m, v6, 10)...)
				}
			}
			open = stillOpen(t, open, "")
			fatal(t, w.dir.Stop())
			w.run(t)
			if c.keep {
				stillOpen(t, open, "")
			} else {
				for _, h := range open {
					fatal(t, h.SetDeadline(time.Time{}))
					_, err := h.Write(payload(100))
					fatal(t, err)
				}
				until(t, "their segments are dropped", func() bool { return w.drops(t)["no_flow"] >= uint64(len(open)) })
				services, err := w.dir.API.Services(t.Context())
				fatal(t, err)
				for _, s := range services {
					if strings.HasPrefix(s.Name, "echo-") && s.Flows > 0 {
						t.Errorf("%s has %d flows, and nobody has connected since the restart", s.Name, s.Flows)
					}
				}
			}
			w.answers(t)
			for _, h := range open {
				h.Close()
			}
		})
	}
}
