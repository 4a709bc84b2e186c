package control

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"xlvs/control/api"
)

var update = flag.Bool("update", false, "write golden files")

// TestStatusGolden holds everything that the API tells of a director with traffic against a file.
func TestStatusGolden(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := started(t, services(web, other))
		w.result(true, "10.1.0.1:80", "10.1.0.2:80")
		w.result(false, "10.1.0.9:80")
		w.neigh.errs[parse(t, services(web)).Services[0].Backends[1].Address] = errRefused
		w.settle()
		w.traffic(40000, 3)
		w.path.shed[0].Store(20)
		w.path.shed[1].Store(3)
		st := w.Status([]InterfaceInfo{{Queues: []int{0}, Attach: "native", Bind: "copy"},
			{Queues: []int{0, 1}, Attach: "generic", Bind: "copy", Notes: []string{"the driver refused native mode"}}})
		st.PID = 4242
		for i := range st.Workers {
			st.Workers[i].HugePages = false // as the machine has them
		}
		got, err := json.MarshalIndent(struct {
			Status   api.Status
			Services []api.Service
			Backends []api.Backend
		}{st, w.Services(), w.Backends()}, "", "  ")
		must(t, err)
		golden(t, "status.json", append(got, '\n'))
	})
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		must(t, os.MkdirAll("testdata", 0o755))
		must(t, os.WriteFile(path, got, 0o644))
	}
	want, err := os.ReadFile(path)
	must(t, err)
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s differs (-update writes it anew):\n%s", path, d)
	}
}

// A backend's counters begin at zero, whoever had its slot before, and go on over a reload.
func TestCountersFromZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := started(t, services(web))
		w.result(true, "10.1.0.2:80")
		w.settle()
		w.traffic(40000, 5)
		of := func(name string) api.Backend {
			for _, b := range w.Backends() {
				if b.Name == name {
					return b
				}
			}
			t.Fatalf("no backend %s", name)
			return api.Backend{}
		}
		if b := of("b"); b.Flows != 5 || b.Packets != 5 || b.Active != 5 {
			t.Fatalf("%+v", b.Counters)
		}
		_, old := w.entry("web", "b")
		must(t, w.reload(parse(t, services(edit("name: b,", "name: z,")))))
		if b := of("z"); b.Flows != 5 || b.Packets != 5 {
			t.Errorf("after another name: %+v", b.Counters)
		}
		must(t, w.reload(parse(t, services(edit("      - {name: b, address: 10.1.0.2}\n", "")))))
		time.Sleep(longest(w.conf) + slotRest + time.Second)
		must(t, w.reload(parse(t, services(edit("10.1.0.2", "10.1.0.8")))))
		_, b := w.entry("web", "b")
		if b.Ref.Slot() != old.Ref.Slot() || b.Ref == old.Ref {
			t.Fatalf("ref %#x after %#x: the test wants the same slot, another generation", b.Ref, old.Ref)
		}
		if n := of("b"); n.Flows != 0 || n.Packets != 0 || n.Bytes != 0 {
			t.Errorf("the next tenant of the slot begins with %+v", n.Counters)
		}
	})
}
