package health

import (
	"testing"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDamper(t *testing.T) {
	for _, tt := range []struct {
		name       string
		rise, fall int
		results    string // + success, - failure
		news       string // what each result led to: U up, D down, . nothing
	}{
		{"first success", 3, 3, "++", "U."},
		{"first failure", 3, 3, "--", "D."},
		{"falls", 2, 3, "+---", "U..D"},
		{"rises", 2, 3, "-++", "D.U"},
		{"a flap does not count", 2, 2, "+-+-+-", "U....."},
		{"a flap starts the count anew", 2, 3, "+--+---", "U.....D"},
		{"down and up again", 2, 2, "+--++", "U.D.U"},
		{"no damping", 1, 1, "+-+", "UDU"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := damper{rise: tt.rise, fall: tt.fall}
			got := ""
			for _, r := range tt.results {
				switch {
				case !d.observe(r == '+'):
					got += "."
				case d.up:
					got += "U"
				default:
					got += "D"
				}
			}
			if got != tt.news {
				t.Errorf("%s gave %s, want %s", tt.results, got, tt.news)
			}
		})
	}
}

// After the first result the state differs from what it was only where the last rise (or fall) results were alike.
func TestDamperProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := damper{rise: rapid.IntRange(1, 5).Draw(t, "rise"), fall: rapid.IntRange(1, 5).Draw(t, "fall")}
		results := rapid.SliceOfN(rapid.Bool(), 1, 60).Draw(t, "results")
		for i, ok := range results {
			before := d.up
			news := d.observe(ok)
			run := 0
			for j := i; j >= 0 && results[j] == ok; j-- {
				run++
			}
			need := d.fall
			if ok {
				need = d.rise
			}
			want := i == 0 || before != ok && run >= need
			if news != want {
				t.Fatalf("result %d of %v: news %v, want %v", i, results, news, want)
			}
			if news && d.up != ok || !news && d.up != before {
				t.Fatalf("result %d of %v: up %v, before %v", i, results, d.up, before)
			}
		}
	})
}
