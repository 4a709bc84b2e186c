package control

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"xlvs/control/health"
	"xlvs/dataplane/table"
)

// many is a configuration of n services with the same 100 backends.
func many(n int, health string) string {
	var b strings.Builder
	b.WriteString(services0)
	for i := range n {
		fmt.Fprintf(&b, "\n  - name: s%d\n    address: 203.0.%d.%d\n    port: 80\n    protocol: tcp\n    forward: dr\n    health: %s\n    backends:\n",
			i, i/250, 1+i%250, health)
		for j := range 100 {
			fmt.Fprintf(&b, "      - {name: b%d, address: 10.1.1.%d}\n", j, 1+j)
		}
	}
	return b.String()
}

// up brings all backends up.
func (w *world) up() {
	w.t.Helper()
	for _, target := range w.check.targets {
		w.inbox.put(healthUpdate(target.ID, true))
	}
	w.settle()
}

// TestTablesAreShared: services with equal inputs have one table, and their log lines one figure.
func TestTablesAreShared(t *testing.T) {
	w := started(t, many(3, "{type: tcp}"))
	w.up()
	v := func(i int) table.Service { s, _ := w.entry(fmt.Sprint("s", i), ""); return s }
	if a, b := v(0), v(2); !sameArray(a.Slots, b.Slots) || a.Members[0] == b.Members[0] {
		t.Error("services with the same backends do not share their table, or share their members")
	}
	if len(w.tables) != 1 {
		t.Errorf("%d tables are kept", len(w.tables))
	}
	old := v(1)
	mark := len(w.lines("table.published"))
	w.result(false, "10.1.1.50:80")
	w.settle()
	l := w.lines("table.published")[mark:]
	if len(l) != 3 || l[0]["slots_moved"] != l[2]["slots_moved"] || l[0]["backends"] != 99.0 {
		t.Errorf("%v", l)
	}
	moved, now := 0, v(1)
	for i := range now.Slots {
		if old.Members[old.Slots[i]] != now.Members[now.Slots[i]] {
			moved++
		}
	}
	if l[1]["slots_moved"] != float64(moved) {
		t.Errorf("%v slots moved, by count %d", l[1]["slots_moved"], moved)
	}
	if len(w.tables) != 1 {
		t.Errorf("%d tables are kept", len(w.tables))
	}
}

// TestSameNotices changes each field of what workers read, also fields that are added later: none may be overlooked.
func TestSameNotices(t *testing.T) {
	w := started(t, services(web))
	w.up()
	fresh := func() inputs {
		c := w.last
		c.of = append([]*service(nil), c.of...) // of other services, as after a reload
		c.services = append([]table.Service(nil), c.services...)
		c.backends = append([]table.Backend(nil), c.backends...)
		c.ports = append([]table.Port(nil), c.ports...)
		return c
	}
	x := fresh()
	if !x.same(&w.last) {
		t.Fatal("the same is not the same")
	}
	for name, pick := range map[string]func(*inputs) reflect.Value{
		"service": func(x *inputs) reflect.Value { return reflect.ValueOf(&x.services[0]).Elem() },
		"backend": func(x *inputs) reflect.Value { return reflect.ValueOf(&x.backends[0]).Elem() },
		"port":    func(x *inputs) reflect.Value { return reflect.ValueOf(&x.ports[0]).Elem() },
		"timeouts": func(x *inputs) reflect.Value {
			return reflect.ValueOf(&struct{ T *table.Timeouts }{&x.timeouts}).Elem()
		},
	} {
		x := fresh()
		for i := range pick(&x).NumField() {
			x := fresh()
			v := pick(&x)
			disturb(v.Field(i))
			if x.same(&w.last) {
				t.Errorf("a changed %s of a %s is not noticed", v.Type().Field(i).Name, name)
			}
		}
	}
}

// disturb makes a value another one.
func disturb(v reflect.Value) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), v.Len()+1, v.Len()+1))
	case reflect.Array:
		disturb(v.Index(0))
	case reflect.Struct:
		disturb(v.Field(0))
	case reflect.Pointer:
		if v.IsNil() {
			v.Set(reflect.New(v.Type().Elem()))
		} else {
			disturb(v.Elem())
		}
	default:
		if v.CanUint() {
			v.SetUint(v.Uint() + 1)
		} else {
			v.SetInt(v.Int() + 1)
		}
	}
}

// BenchmarkPublish is what a death costs: one of 100 backends, which all services share, goes down or comes up. It ends
// when workers have the new snapshot and the log its lines.
func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := started(b, many(n, "{type: tcp}"))
			w.up()
			ids := w.check.ids("10.1.1.50:80")
			up := true
			var published time.Duration
			b.ReportAllocs()
			for b.Loop() {
				up = !up
				start := time.Now()
				w.takeResults([]health.Update{healthUpdate(ids[0], up)})
				w.lookAtInterfaces()
				w.lookAtHops(w.services)
				must(b, w.install(w.conf, w.services))
				published += time.Since(start)
				w.report(time.Now())
				w.writeLines()
			}
			b.ReportMetric(float64(published.Microseconds())/1000/float64(b.N), "ms/published")
			b.ReportMetric(float64(b.Elapsed().Microseconds())/1000/float64(b.N), "ms/op")
		})
	}
}

// BenchmarkNothing is what a look at a present state costs that has not changed.
func BenchmarkNothing(b *testing.B) {
	for _, n := range []int{1, 100, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := started(b, many(n, "{type: tcp}"))
			w.up()
			for b.Loop() {
				w.reconcile()
			}
		})
	}
}

// different is n services of three backends each, of which one is everybody's.
func different(n int) string {
	var b strings.Builder
	b.WriteString(services0)
	for i := range n {
		fmt.Fprintf(&b, "\n  - {name: s%d, address: 203.0.%d.%d, port: 80, protocol: tcp, forward: dr, table_size: 251, health: {type: tcp}, backends: [", i, i/250, 1+i%250)
		fmt.Fprintf(&b, "{name: shared, address: 10.1.1.1}, {name: x%d, address: 10.1.2.%d}, {name: y%d, address: 10.1.3.%d}]}\n", i, 1+i%250, i, 1+i%250)
	}
	return b.String()
}

// TestStandIn: workers know of a death before the tables of several services are built anew, and find other backends
// in the old ones.
func TestStandIn(t *testing.T) {
	for _, c := range []struct {
		name     string
		services int
		dies     string
		early    bool
	}{
		{"a backend of two services", 2, "10.1.1.1:80", true},
		{"a backend of one service", 2, "10.1.2.1:80", false},
		{"one service", 1, "10.1.1.1:80", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := started(t, different(c.services))
			w.up()
			before := w.engine.Snapshot()
			for _, id := range w.check.ids(c.dies) {
				w.takeResults([]health.Update{healthUpdate(id, false)})
			}
			w.standIn()
			now := w.engine.Snapshot()
			if early := now != before; early != c.early {
				t.Fatalf("published ahead of the tables: %t, want %t", early, c.early)
			}
			w.standIn()
			if w.engine.Snapshot() != now {
				t.Error("the same death was published twice")
			}
			if c.early {
				for i := range now.Services {
					v := &now.Services[i]
					if len(v.Members) != 3 {
						t.Errorf("%s has %d members already, so its table was built", v.Name, len(v.Members))
					}
					for h := range uint64(1000) {
						if b := now.Pick(v, h<<54); b == nil || b.Name == "shared" {
							t.Fatalf("%s, hash %#x: picked %+v", v.Name, h<<54, b)
						}
					}
				}
			}
			must(t, w.install(w.conf, w.services))
			if n := len(w.takes("s0")); n != 2 {
				t.Errorf("%d backends in the new table, want 2", n)
			}
		})
	}
}

// BenchmarkStandIn is the time from the death of everybody's backend to the snapshot that leaves it out, ahead of the tables.
func BenchmarkStandIn(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := started(b, different(n))
			w.up()
			ids := w.check.ids("10.1.1.1:80")
			up := true
			for b.Loop() {
				up = !up
				for _, id := range ids {
					w.takeResults([]health.Update{healthUpdate(id, up)})
				}
				w.standIn()
				b.StopTimer()
				must(b, w.install(w.conf, w.services))
				b.StartTimer()
			}
		})
	}
}
