package offheap

import (
	"reflect"
	"sync"
	"testing"
)

type words struct {
	A uint64
	B [3]uint64
	C int64
}

func TestSlice(t *testing.T) {
	for _, populate := range []bool{false, true} {
		for _, n := range []int{1, 100, 1 << 16} {
			s, r, err := Slice[words](n, populate)
			if err != nil {
				t.Fatal(err)
			}
			for i := range s {
				if s[i] != (words{}) {
					t.Fatalf("element %d of %d is %+v", i, n, s[i])
				}
				s[i].C = -1
			}
			if len(s) != n || cap(s) != n {
				t.Errorf("%d elements, room for %d; %d were asked for", len(s), cap(s), n)
			}
			for range 2 {
				if err := r.Free(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

// What the owner counts, a reader sees: the race detector watches this test, on the memory that tables lie in.
func TestLoadWhileCounting(t *testing.T) {
	s, r, err := Slice[words](1, true)
	if err != nil {
		t.Fatal(err)
	}
	w := &s[0]
	const n = 10_000
	var wg sync.WaitGroup
	wg.Go(func() {
		for range n {
			Add64(&w.A, 1)
			Put64(&w.B[2], w.A)
			AddInt(&w.C, -1)
		}
	})
	for last := uint64(0); last < n; {
		got := Load(w)
		if got.A < last || got.B[0] != 0 || got.C > 0 {
			t.Errorf("after %d: %+v", last, got)
		}
		last = got.A
	}
	wg.Wait()
	if got := Load(w); !reflect.DeepEqual(got, words{A: n, B: [3]uint64{2: n}, C: -n}) {
		t.Errorf("%+v", got)
	}
	if err := r.Free(); err != nil {
		t.Error(err)
	}
}

func TestLoadRefuses(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("half a word was loaded")
		}
	}()
	Load(&struct{ A, B, C uint32 }{})
}
