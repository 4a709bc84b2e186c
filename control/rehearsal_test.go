package control

import (
	"testing"

	"xlvs/dataplane"
	"xlvs/dataplane/memio"
)

func TestRehearsal(t *testing.T) {
	mem, err := dataplane.NewMemory(make([]byte, 64*2048), 2048)
	must(t, err)
	e, err := dataplane.New(dataplane.Options{Flows: 1024, Seed: "test", EventRing: 1,
		Workers: []dataplane.WorkerOptions{{CPU: -1, Memory: mem, Ports: []dataplane.Port{memio.New(mem), memio.New(mem)}}}})
	must(t, err)
	defer e.Close()
	r, err := NewRehearsal(parse(t, different(3)), e)
	must(t, err)
	defer r.Close()
	members := func() (n int) {
		for _, s := range e.Snapshot().Services {
			n += len(s.Members)
		}
		return n
	}
	step := func(name string, up bool, want int) {
		t.Helper()
		must(t, r.Result(name, up))
		known, built, err := r.Reconcile()
		must(t, err)
		if got := members(); got != want || known <= 0 || known > built {
			t.Errorf("%s up %v: %d members, want %d; known after %v, built after %v", name, up, got, want, known, built)
		}
	}
	if n := members(); n != 0 {
		t.Errorf("%d members before any check", n)
	}
	step("", true, 9)
	step("shared", false, 6)
	step("x1", false, 5)
	step("shared", true, 8)
	if r.Result("nobody", true) == nil {
		t.Error("the checks of a backend that does not exist found something")
	}
}
