package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// A Source answers what the server is asked.
type Source interface {
	Status() Status
	Services() []Service
	Backends() []Backend
	Explain(Question) Explanation
	// ReloadFile reads the configuration file again; on an error everything goes on as before.
	ReloadFile(ctx context.Context) error
}

// A Server serves the API until Close.
type Server struct {
	path string
	ln   net.Listener
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
		return nil, fmt.Errorf("api: directory of the socket: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("api: listen on %s: %w; set director.api to a path that can be written", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("api: %w", err)
	}
	s := &Server{path: path, ln: ln, done: make(chan struct{})}
	s.http = &http.Server{Handler: Handler(src), ReadHeaderTimeout: 5 * time.Second}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(ln) // ends with ErrServerClosed
	}()
	return s, nil
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
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		_ = c.Close()
		return fmt.Errorf("api: another director answers on %s; stop it, or set director.api to another path", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("api: remove the socket that an earlier director left: %w", err)
	}
	return nil
}

// Handler serves src.
func Handler(src Source) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, src.Status()) })
	mux.HandleFunc("GET /v1/services", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, src.Services()) })
	mux.HandleFunc("GET /v1/backends", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, src.Backends()) })
	mux.HandleFunc("GET /v1/explain", explain(src))
	mux.HandleFunc("POST /v1/reload", func(w http.ResponseWriter, r *http.Request) {
		if err := src.ReloadFile(r.Context()); err != nil {
			reply(w, http.StatusConflict, Error{err.Error()})
			return
		}
		reply(w, 200, struct{}{})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		reply(w, http.StatusNotFound, Error{fmt.Sprintf("there is no %s %s", r.Method, r.URL.Path)})
	})
	return mux
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // an error means that the client is gone
}

// Close stops serving and removes the socket.
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
