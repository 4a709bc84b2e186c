package main

import (
	"os"
	"runtime/debug"
	"testing"
)

func TestLimitMemory(t *testing.T) {
	before := debug.SetMemoryLimit(-1) // which only asks
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	for _, c := range []struct {
		env  string
		mib  int
		want int64
	}{
		{mib: 0, want: before},
		{mib: 256, want: 256 << 20},
		{mib: 256, env: "1GiB", want: before}, // the runtime has read it at its start
	} {
		debug.SetMemoryLimit(before)
		t.Setenv("GOMEMLIMIT", c.env)
		if c.env == "" {
			os.Unsetenv("GOMEMLIMIT")
		}
		limitMemory(c.mib)
		if got := debug.SetMemoryLimit(-1); got != c.want {
			t.Errorf("memory_limit %d, GOMEMLIMIT %q: the limit is %d, want %d", c.mib, c.env, got, c.want)
		}
	}
}
