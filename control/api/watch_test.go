package api

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Who asks before the director is there waits for it.
func TestAskedBeforeServing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, err := Listen(path)
	must(t, err)
	ask := func() net.Conn {
		c, err := net.Dial("unix", path)
		must(t, err)
		_, err = c.Write([]byte("GET /v1/status HTTP/1.1\r\nHost: xlvs\r\nConnection: close\r\n\r\n"))
		must(t, err)
		return c
	}
	c := ask()
	defer c.Close()
	s.Serve(&fake{}, nil)
	if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200") {
		t.Errorf("the answer is %q, %v", b, err)
	}
	must(t, s.Close())

	// A director that does not come to serve leaves nothing, and nobody waiting.
	s, err = Listen(path)
	must(t, err)
	c = ask()
	defer c.Close()
	must(t, s.Close())
	if b, _ := io.ReadAll(c); len(b) > 0 {
		t.Errorf("answered by nobody: %q", b)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket: %v", err)
	}
}

func TestSocketIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "s")
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "mkdir -p "+filepath.Dir(path)) {
		t.Errorf("in a directory that is not there: %v", err)
	}
	must(t, os.Mkdir(filepath.Dir(path), 0o755))
	warned := make(chan string, 10)
	s, err := Listen(path)
	must(t, err)
	s.Serve(&fake{}, func(err error) { warned <- err.Error() })
	defer s.Close()
	answers := func() {
		t.Helper()
		_, err := NewClient(path).Status(t.Context())
		must(t, err)
	}
	answers()
	// The file and its directory, noticed by itself.
	must(t, os.RemoveAll(filepath.Dir(path)))
	if w := <-warned; !strings.Contains(w, "was removed, and has been made anew") {
		t.Errorf("warned: %s", w)
	}
	answers()
	if st, err := os.Lstat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the new socket: %v, %v", st, err)
	}
	// At once, when asked to look.
	must(t, os.Remove(path))
	must(t, s.Restore())
	answers()
	<-warned
	// Nothing to do, nothing done.
	before, err := os.Lstat(path)
	must(t, err)
	must(t, s.Restore())
	if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("a socket that was in place is another now: %v", err)
	}
}

// Another director's socket, or whatever else is there, is not ours to remove, neither now nor at the end.
func TestSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	warned := make(chan string, 10)
	s, err := Listen(path)
	must(t, err)
	s.Serve(&fake{}, func(err error) { warned <- err.Error() })
	must(t, os.Remove(path))
	other := listenAndServe(t, path, &fake{status: Status{PID: 7}})
	defer other.Close()
	if w := <-warned; !strings.Contains(w, "another file has taken its place") {
		t.Errorf("warned: %s", w)
	}
	if err := s.Restore(); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Restore: %v", err)
	}
	must(t, s.Close())
	if st, err := NewClient(path).Status(t.Context()); err != nil || st.PID != 7 {
		t.Errorf("the other director: %+v, %v", st, err)
	}
	if len(warned) > 0 {
		t.Errorf("told again: %s", <-warned)
	}
}
