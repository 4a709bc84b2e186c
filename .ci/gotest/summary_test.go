package main

import (
	"strings"
	"testing"
)

const transcript = `
{"Action":"start","Package":"p"}
{"Action":"run","Package":"p","Test":"TestGood"}
{"Action":"output","Package":"p","Test":"TestGood","Output":"noise of a good test\n"}
{"Action":"pass","Package":"p","Test":"TestGood"}
{"Action":"run","Package":"p","Test":"TestRoot"}
{"Action":"output","Package":"p","Test":"TestRoot","Output":"=== RUN   TestRoot\n"}
{"Action":"output","Package":"p","Test":"TestRoot","Output":"    root_test.go:12: needs root: network namespaces\n"}
{"Action":"output","Package":"p","Test":"TestRoot","Output":"--- SKIP: TestRoot (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestRoot"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.012s\n"}
{"Action":"pass","Package":"p"}
{"Action":"output","Package":"q","Test":"TestBad","Output":"    q_test.go:3: got 1, want 2\n"}
{"Action":"fail","Package":"q","Test":"TestBad"}
{"Action":"output","Package":"q","Test":"TestHung","Output":"panic: test timed out\n"}
{"Action":"output","Package":"q","Output":"FAIL\tq\t0.100s\n"}
{"Action":"fail","Package":"q"}
{"ImportPath":"r","Action":"build-output","Output":"r.go:1:1: expected 'package'\n"}
{"Action":"output","Package":"r","Output":"FAIL\tr [build failed]\n"}
{"Action":"fail","Package":"r"}
{"Action":"output","Package":"s","Output":"?   \ts\t[no test files]\n"}
{"Action":"skip","Package":"s"}
not JSON
`

func TestSummary(t *testing.T) {
	var b strings.Builder
	s := newSummary(&b)
	if err := s.read(strings.NewReader(transcript)); err != nil {
		t.Fatal(err)
	}
	s.close()
	got := b.String()
	for _, want := range []string{
		"ok  \tp\t0.012s\n",
		"q_test.go:3: got 1, want 2\n",
		"panic: test timed out\n",
		"FAIL\tq\t0.100s\n",
		"r.go:1:1: expected 'package'\n",
		"?   \ts\t[no test files]\n",
		"not JSON\n",
		"Skipped:\n  needs root: network namespaces\n    p TestRoot\n",
		"Failed:\n  q TestBad\n  q TestHung\n  r\n",
		"1 tests passed, 3 failed, 1 skipped\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the summary lacks %q:\n%s", want, got)
		}
	}
	if strings.Contains(got, "noise") {
		t.Errorf("the summary repeats what a passing test printed:\n%s", got)
	}
}

// TestExitStatus runs the real thing: the status of go test must not get lost on the way.
func TestExitStatus(t *testing.T) {
	for _, c := range []struct {
		args []string
		want int
	}{
		{[]string{"-run", "TestSummary", "./"}, 0},
		{[]string{"./no-such-package"}, 1},
		{[]string{"-p=none"}, 2},
	} {
		var b strings.Builder
		got, err := run(c.args, &b)
		if err != nil || got != c.want {
			t.Errorf("go test %v: status %d, error %v, want status %d\n%s", c.args, got, err, c.want, &b)
		}
	}
}
