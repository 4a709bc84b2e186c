package flowlog

import (
	"fmt"
	"os"
	"sync"
)

// output is where lines go: a standard stream, or a file that can be opened again while in use.
// It is a zapcore.WriteSyncer.
type output struct {
	mu   sync.Mutex
	file *os.File
	path string // empty for a standard stream
}

func openOutput(name string) (*output, error) {
	switch name {
	case "", "stderr":
		return &output{file: os.Stderr}, nil
	case "stdout":
		return &output{file: os.Stdout}, nil
	}
	f, err := openFile(name)
	if err != nil {
		return nil, err
	}
	return &output{file: f, path: name}, nil
}

// openFile appends, so that a restart keeps the log and logrotate's copytruncate works too. Flow events name
// clients, hence no access for others.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return nil, fmt.Errorf("log file: %w; name a writable path, stderr or stdout", err)
	}
	return f, nil
}

// Write writes one line whole, or not at all as far as the kernel grants it.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.file.Write(p)
}

// Sync does nothing: a log line is not worth waiting for the disk.
func (o *output) Sync() error { return nil }

func (o *output) reopen() error {
	if o.path == "" {
		return nil
	}
	f, err := openFile(o.path)
	if err != nil {
		return err
	}
	o.mu.Lock()
	old := o.file
	o.file = f
	o.mu.Unlock()
	return old.Close()
}

// Close closes a file, and leaves a standard stream to its owner.
func (o *output) Close() error {
	if o.path == "" {
		return nil
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.file.Close()
}
