package xsk

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestAttributes(t *testing.T) {
	l := newLab(t, 1, 1)
	name := l.links[0].Attrs().Name
	files := []string{"napi_defer_hard_irqs", "gro_flush_timeout"}
	read := func() []Attribute {
		t.Helper()
		got, err := Attributes(name, files...)
		must(t, err)
		return got
	}
	before := read()
	want := []Attribute{{files[0], "2"}, {files[1], "50000"}}
	if slices.Equal(before, want) {
		t.Fatalf("%v is set already", before)
	}
	fds := openFiles(t)
	restore, err := SetAttributes(name, want)
	must(t, err)
	if got := read(); !slices.Equal(got, want) {
		t.Errorf("after setting: %v, want %v", got, want)
	}
	must(t, restore())
	if got := read(); !slices.Equal(got, before) {
		t.Errorf("after restoring: %v, want %v", got, before)
	}

	// The second cannot be set: the first must be as it was.
	_, err = SetAttributes(name, []Attribute{{files[0], "7"}, {files[1], "soon"}})
	if err == nil || !strings.Contains(err.Error(), "set gro_flush_timeout of "+name+" to soon") {
		t.Errorf("a value that is no number: %v", err)
	}
	if got := read(); !slices.Equal(got, before) {
		t.Errorf("after a failure: %v, want %v", got, before)
	}
	if _, err := SetAttributes("none0", want); err == nil || !strings.Contains(err.Error(), "none0") {
		t.Errorf("an interface that is not there: %v", err)
	}
	if n := openFiles(t); n != fds {
		t.Errorf("%d files are open, were %d", n, fds)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	list, err := filepath.Glob("/proc/self/fd/*")
	must(t, err)
	return len(list)
}
