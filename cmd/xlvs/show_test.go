package main_test

import (
	"regexp"
	"strings"
	"testing"

	"xlvs/control/api"
	"xlvs/dataplane/table"
	"xlvs/testenv"
)

// nowhere is a service whose one backend nothing leads to, and nothing checks.
const nowhere = `  - name: nowhere
    address: 203.0.113.200
    port: 0
    protocol: udp
    forward: nat
    announce: off
    backends:
      - { name: lost, address: 240.0.0.1 }
`

// TestShowUnreached asks for a backend that is healthy as far as anybody knows, and gets no packets.
func TestShowUnreached(t *testing.T) {
	w := start(t, setup{lab: testenv.Options{Modes: []table.Mode{table.DR}, Servers: 1}})
	w.rewrite(t, func(s string) string { return s + nowhere })
	if out, status := w.xlvs(t, "reload", "--api", w.api()); status != 0 {
		t.Fatal(out)
	}
	var st api.Status
	w.json(t, &st, "status")
	if st.Up != st.Backends-1 || st.Workers[0].FlowCapacity != 65536 {
		t.Errorf("%d of %d backends up, room for %d flows", st.Up, st.Backends, st.Workers[0].FlowCapacity)
	}
	for command, want := range map[string]string{
		"status":   `(?m)^eth0 +up +[0-9a-f:]+ +\d+ +0 +native +copy$`,
		"services": `(?m)^nowhere +203.0.113.200 +any +udp +nat +0 +1 `,
		"backends": `(?m)^nowhere +lost +240.0.0.1 +any +nat +1 +unreached +65537 +- +- .*240.0.0.1`,
		"explain":  `(?s)backend lost at 240.0.0.1:53\n.*packets are dropped as no_neighbour\n.*\nlost +240.0.0.1 +any +1 +unreached +65537 `,
	} {
		args := []string{command, "--api", w.api()}
		if command == "explain" {
			args = append(args, "--proto", "udp", "--src", "192.0.2.1:5", "--dst", "203.0.113.200:53")
		}
		out, status := w.xlvs(t, args...)
		if status != 0 || !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("xlvs %s: status %d, want %s:\n%s", command, status, want, out)
		}
		for line := range strings.Lines(out) {
			if strings.HasSuffix(strings.TrimSuffix(line, "\n"), " ") {
				t.Errorf("xlvs %s: a line ends in spaces: %q", command, line)
			}
		}
	}
}

// fakeDirector answers GET /v1/status with st.
type fakeDirector struct {
	api.Source
	st api.Status
}

func (f fakeDirector) Status() api.Status { return f.st }

// TestShowStatus prints statuses that no lab has.
func TestShowStatus(t *testing.T) {
	for _, c := range []struct {
		services, backends, up int
		queues                 []int
		want                   string
	}{
		{1, 1, 1, []int{0}, "\n1 service, 1 of 1 backend up\n.* 1500  0      native"},
		{2, 3, 0, []int{0, 1, 2, 3}, "\n2 services, 0 of 3 backends up\n.* 1500  0-3    native"},
		{0, 0, 0, []int{0, 1, 3, 5, 6}, "\n0 services, 0 of 0 backends up\n.* 1500  0-1, 3, 5-6  native"},
	} {
		path := t.TempDir() + "/s"
		srv, err := api.Listen(path)
		fatal(t, err)
		srv.Serve(fakeDirector{st: api.Status{Services: c.services, Backends: c.backends, Up: c.up,
			Interfaces: []api.Interface{{Name: "eth0", Up: true, MTU: 1500, Queues: c.queues, Attach: "native", Bind: "copy"}}}}, nil)
		w := &world{}
		out, status := w.xlvs(t, "status", "--api", path)
		fatal(t, srv.Close())
		if status != 0 || !regexp.MustCompile("(?s)"+c.want).MatchString(out) {
			t.Errorf("status %d, want %q:\n%s", status, c.want, out)
		}
	}
}
