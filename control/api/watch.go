package api

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// watchEvery is how often the socket's file is looked for.
const watchEvery = 2 * time.Second

// watch makes the socket's file anew when it has gone, until Close. A failure is told of once for as long as it lasts.
func (s *Server) watch() {
	ticker := time.NewTicker(watchEvery)
	defer ticker.Stop()
	told := ""
	for {
		select {
		case <-s.ended:
			return
		case <-ticker.C:
		}
		switch err := s.Restore(); {
		case err == nil:
			told = ""
		case told != err.Error():
			told = err.Error()
			s.warn(err)
		}
	}
}

// Restore looks for the socket's file at once, and makes it anew if it has gone. Another file in its place is left alone, and is an error.
func (s *Server) Restore() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.src || s.isThere() {
		return nil
	}
	if _, err := os.Lstat(s.path); !errors.Is(err, os.ErrNotExist) {
		if err == nil {
			err = errors.New("another file has taken its place; move that away")
		}
		return fmt.Errorf("api: nobody can reach this director on %s: %w", s.path, err)
	}
	old := s.ln
	if err := s.open(); err != nil {
		return fmt.Errorf("the socket was removed and cannot be made anew: %w", err)
	}
	s.accept()
	_ = old.Close() // nobody can connect to it
	s.warn(fmt.Errorf("api: the socket %s was removed, and has been made anew: keep what cleans its directory away from it", s.path))
	return nil
}

// isThere tells whether the socket's file is the one that was made. s.mu is held.
func (s *Server) isThere() bool {
	st, err := os.Lstat(s.path)
	return err == nil && os.SameFile(st, s.file)
}
