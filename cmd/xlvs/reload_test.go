package main_test

import (
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"xlvs/control/api"
	"xlvs/dataplane/table"
	"xlvs/testenv"
	"xlvs/testenv/demo"
)

// TestReload changes the backends of a running director in every way while connections are open to all of them.
func TestReload(t *testing.T) {
	w := start(t, setup{config: testenv.ConfigOptions{LogFlows: true}})
	open := map[table.Mode][]*held{}
	eachRow(t, w, func(t *testing.T, m table.Mode, v6 bool) {
		open[m] = append(open[m], w.hold(t, m, v6, 30)...)
	})
	applied := func() int { return w.count(t, func(e demo.Event) bool { return e.Event == "config.applied" }) }
	reload := map[string]func(*testing.T){
		"SIGHUP": func(t *testing.T) {
			if err := w.dir.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
		},
		"xlvs reload": func(t *testing.T) {
			if out, status := w.xlvs(t, "reload", "--api", w.api()); status != 0 || out != "" {
				t.Errorf("status %d, output %q", status, out)
			}
		},
	}
	whole := func(s string) string { return s }
	for _, c := range []struct {
		name, by string
		edit     func(string) string
		gone     string // the number of the servers that lose their connections
		takes    func(share map[string]float64) bool
	}{
		{"weight 3", "SIGHUP", weight("2", "3"), "", func(s map[string]float64) bool { return s["2"] > 0.45 && s["1"] > 0 && s["3"] > 0 }},
		{"weight 0", "xlvs reload", weight("2", "0"), "", func(s map[string]float64) bool { return s["2"] == 0 && s["1"] > 0.3 && s["3"] > 0.3 }},
		{"removed", "SIGHUP", remove("3"), "3", func(s map[string]float64) bool { return s["3"] == 0 && s["1"] > 0.3 && s["2"] > 0.3 }},
		{"added", "xlvs reload", whole, "", func(s map[string]float64) bool { return s["1"] > 0.15 && s["2"] > 0.15 && s["3"] > 0.15 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := applied()
			w.rewrite(t, func(string) string { return c.edit(w.Config(w.configured)) + "# " + c.name + "\n" })
			reload[c.by](t)
			until(t, "the configuration is applied", func() bool { return applied() == before+1 })
			for m, list := range open {
				open[m] = stillOpen(t, list, m.String()+c.gone)
			}
			// A server that is new to the director has to pass its health checks first.
			until(t, "new connections go where they should", func() bool { return c.takes(w.shares(t, table.DR)) })
		})
	}
	t.Run("refused", func(t *testing.T) { refuses(t, w, reload["SIGHUP"]) })
	for m, list := range open {
		stillOpen(t, list, "")
		if len(list) < 20 {
			t.Errorf("%s: only %d connections were left at the end", m, len(list))
		}
	}
}

// weight gives the n-th server of each mode a weight.
func weight(n, weight string) func(string) string {
	return eachBackend(n, func(line string) string { return strings.Replace(line, " }", ", weight: "+weight+" }", 1) })
}

// remove takes the n-th server of each mode out.
func remove(n string) func(string) string {
	return eachBackend(n, func(string) string { return "" })
}

func eachBackend(n string, edit func(string) string) func(string) string {
	return func(text string) string {
		var b strings.Builder
		for line := range strings.Lines(text) {
			if name, ok := strings.CutPrefix(line, "      - { name: "); ok && strings.HasSuffix(name[:strings.Index(name, ",")], n) {
				line = edit(line)
			}
			b.WriteString(line)
		}
		return b.String()
	}
}

// A held connection is open for the whole test.
type held struct {
	net.Conn
	backend string
}

// hold opens connections to the echo service of a row, and finds out from the log where each one went.
func (w *world) hold(t *testing.T, m table.Mode, v6 bool, n int) []*held {
	t.Helper()
	vip := w.VIP(m, v6)
	at := map[uint16]*held{}
	var list []*held
	for range n {
		c, err := w.Client.Dial("tcp", netip.AddrPortFrom(vip, testenv.EchoPort).String())
		if err != nil {
			t.Fatal(err)
		}
		h := &held{Conn: c}
		at[uint16(c.LocalAddr().(*net.TCPAddr).Port)] = h
		list = append(list, h)
	}
	family := "v4"
	if v6 {
		family = "v6"
	}
	until(t, "the log names every flow", func() bool {
		events, err := w.dir.Events()
		if err != nil {
			t.Fatal(err)
		}
		named := 0
		for _, e := range events {
			if h := at[e.ClientPort]; h != nil && e.Event == "flow.new" && e.Service == "echo-"+m.String()+"-"+family {
				h.backend = e.Backend
				named++
			}
		}
		return named == n
	})
	return list
}

// stillOpen has every connection echo, but for those to the server that is gone, and returns the others.
func stillOpen(t *testing.T, list []*held, gone string) []*held {
	t.Helper()
	var rest []*held
	for _, h := range list {
		if h.backend == gone {
			h.Close()
			continue
		}
		if err := echo(h, payload(100)); err != nil {
			t.Errorf("a connection to %s: %v", h.backend, err)
		}
		rest = append(rest, h)
	}
	return rest
}

// shares opens 100 connections and returns the share of each server of a mode by its number.
func (w *world) shares(t *testing.T, m table.Mode) map[string]float64 {
	t.Helper()
	c := w.Client.HTTPClient(testenv.HTTPOptions{})
	share := map[string]float64{}
	for range 100 {
		backend, err := ask(c, w.VIP(m, false))
		if err != nil {
			t.Fatal(err)
		}
		share[strings.TrimPrefix(backend, m.String())] += 0.01
	}
	return share
}

// refuses holds against the director what it must not accept: everything has to go on as before.
func refuses(t *testing.T, w *world, hup func(*testing.T)) {
	rejected := func(want string) int {
		return w.count(t, func(e demo.Event) bool { return e.Event == "config.rejected" && strings.Contains(e.Error, want) })
	}
	until(t, "every server is up", func() bool {
		var s api.Status
		w.json(t, &s, "status")
		return s.Backends > 0 && s.Up == s.Backends
	})
	good := w.Config(w.configured)
	for _, c := range []struct{ name, old, new, want string }{
		{"misspelt key", "    forward: dr\n", "    foward: dr\n", ":13:5: service web-dr-v4: unknown key foward; did you mean forward?"},
		{"no YAML", "services:\n", "services: [\n", ":8:11: this is not YAML"},
		{"another section", "flows: 65536", "flows: 32768", ":2:10: director: flows has changed from 65536 to 32768; a running director does not take that"},
		{"another interface", "- name: eth0", "- name: eth9", ": interface eth9: it is new; "},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.rewrite(t, func(string) string { return strings.Replace(good, c.old, c.new, 1) })
			out, status := w.xlvs(t, "reload", "--api", w.api())
			if status == 0 || !strings.Contains(out, c.want) {
				t.Errorf("xlvs reload: status %d, %q; want it to contain %q", status, out, c.want)
			}
			if n := rejected(c.want); n != 1 {
				t.Errorf("config.rejected with %q was logged %d times, want once", c.want, n)
			}
			hup(t)
			until(t, "SIGHUP is refused as well", func() bool { return rejected(c.want) == 2 })
			if s := w.shares(t, table.NAT); s["1"] == 0 || s["2"] == 0 || s["3"] == 0 {
				t.Errorf("after a refused reload the shares are %v", s)
			}
		})
	}
}
