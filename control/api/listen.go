package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Server has the API's socket, from Listen to Close.
type Server struct {
	path string
	http *http.Server
	warn func(error)

	served sync.WaitGroup // a goroutine for each listener, and the one that watches
	ended  chan struct{}  // closed by Close

	mu     sync.Mutex
	ln     *net.UnixListener
	file   os.FileInfo // the socket's file, as it was made
	src    bool        // Serve was called
	closed bool
}

// Listen opens the unix socket at path, readable and writable for its owner alone. A socket file that nobody answers on
// any more is replaced; one that is in use is an error. Who connects waits until Serve; a Close without it ends the wait.
func Listen(path string) (*Server, error) {
	// A directory that is not there may be mistyped, and another one than commands will look in.
	if dir := filepath.Dir(path); !isDirectory(dir) {
		return nil, fmt.Errorf("api: there is no directory %s for the socket; make it (mkdir -p %s), or set director.api to another path", dir, dir)
	}
	s := &Server{path: path, ended: make(chan struct{})}
	if err := s.open(); err != nil {
		return nil, err
	}
	return s, nil
}

// open makes the socket's file.
func (s *Server) open() error {
	if err := clearStale(s.path); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(s.path), 0o755); err != nil {
		return fmt.Errorf("api: directory of the socket: %w; set director.api to a path that can be written", err)
	}
	ln, err := (&net.ListenConfig{Control: private}).Listen(context.Background(), "unix", s.path)
	if err != nil {
		return fmt.Errorf("api: listen on %s: %w; set director.api to a path that can be written", s.path, err)
	}
	s.ln = ln.(*net.UnixListener)
	s.ln.SetUnlinkOnClose(false) // the file of that name may be another director's by then
	if s.file, err = os.Lstat(s.path); err != nil {
		return errors.Join(fmt.Errorf("api: %w", err), s.ln.Close())
	}
	return nil
}

// Serve answers what is asked on the socket, also what was asked since Listen, and goes on in the background. Call it once.
//
// It also watches the socket's file: what cleans directories of temporary files may remove it, and then nobody could ask the
// director any more. A file that is gone is made anew. warn is told of that, and of a file that cannot be made; it may be nil.
func (s *Server) Serve(src Source, warn func(error)) {
	s.warn = warn
	if warn == nil {
		s.warn = func(error) {}
	}
	s.http = &http.Server{Handler: Handler(src), ReadHeaderTimeout: 5 * time.Second}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.src = true
	s.accept()
	s.served.Go(s.watch)
}

// accept serves the present listener. s.mu is held.
func (s *Server) accept() {
	ln := s.ln
	s.served.Go(func() { _ = s.http.Serve(ln) }) // it ends when ln or the server is closed
}

// private restricts a socket before it is bound: the file takes its mode from the socket (net/unix/af_unix.c,
// unix_bind_bsd), so that there is no moment at which others may connect.
func private(_, _ string, c syscall.RawConn) error {
	var err error
	if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
		return e
	}
	return err
}

// clearStale removes a socket that a director which was killed has left.
func clearStale(path string) error {
	st, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("api: %w; set director.api to a path that can be written", err)
	}
	if st.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("api: %s exists and is no socket; remove it, or set director.api to another path", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		_ = c.Close()
		return fmt.Errorf("api: another director answers on %s; stop it, or set director.api to another path", path)
	case errors.Is(err, os.ErrNotExist):
		return nil // it has gone just now
	case !errors.Is(err, syscall.ECONNREFUSED):
		// Somebody may be there: one whose queue is full, or who is not ours to ask.
		return fmt.Errorf("api: %s exists and it cannot be told whether a director uses it: %w; set director.api to another path", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("api: remove the socket that an earlier director left: %w", err)
	}
	return nil
}

// Close stops serving and removes the socket, unless its file is another's by now. Requests under way have a second to end.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.ended)
	if s.isThere() {
		_ = os.Remove(s.path) // it may go at the same moment
	}
	s.mu.Unlock()
	if !s.src {
		return s.ln.Close()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	s.served.Wait()
	return err
}

func isDirectory(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.IsDir()
}
