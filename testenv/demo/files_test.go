package demo

import (
	"os"
	"path/filepath"
	"testing"
)

// A demo removes what killed ones have left, and nothing else.
func TestSweep(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	begin := func() *workdir {
		t.Helper()
		w, err := newWorkdir()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(w.path, "log.json"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		return w
	}
	running, kept, killed, done := begin(), begin(), begin(), begin()
	if err := kept.keep(); err != nil {
		t.Error(err)
	}
	if err := done.remove(); err != nil {
		t.Error(err)
	}
	killed.lock.Close() // as the kernel does for a process that is no more
	link, elsewhere := filepath.Join(tmp, "xlvs-demo-link"), t.TempDir()
	for _, err := range []error{os.WriteFile(filepath.Join(elsewhere, mark), nil, 0o600), os.Symlink(elsewhere, link)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	last := begin()
	for path, want := range map[string]bool{running.path: true, kept.path: true, killed.path: false, done.path: false, last.path: true, link: true,
		filepath.Join(elsewhere, mark): true} {
		if _, err := os.Lstat(path); (err == nil) != want {
			t.Errorf("%s: %v, want it to be there: %t", path, err, want)
		}
	}
	for _, w := range []*workdir{running, last} {
		if err := w.remove(); err != nil {
			t.Error(err)
		}
	}
}
