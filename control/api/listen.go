package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Server serves the API until Close.
type Server struct {
	http *http.Server
	done chan struct{}
}

// Serve opens the unix socket at path, readable and writable for its owner alone, and serves src on it. A
// socket file that nobody answers on any more is replaced; one that is in use is an error.
func Serve(path string, src Source) (*Server, error) {
	if err := clearStale(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("api: directory of the socket: %w; set director.api to a path that can be written", err)
	}
	ln, err := (&net.ListenConfig{Control: private}).Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, fmt.Errorf("api: listen on %s: %w; set director.api to a path that can be written", path, err)
	}
	s := &Server{http: &http.Server{Handler: Handler(src), ReadHeaderTimeout: 5 * time.Second}, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(ln) // ends with ErrServerClosed
	}()
	return s, nil
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
		return fmt.Errorf("api: %w", err)
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

// Close stops serving and removes the socket. Requests under way have a second to end.
func (s *Server) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = s.http.Close()
	}
	<-s.done
	return err
}
