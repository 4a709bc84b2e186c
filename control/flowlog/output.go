package flowlog

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// output is where lines go: a standard stream, or a file that can be opened again while in use.
// It is a zapcore.WriteSyncer.
type output struct {
	mu     sync.Mutex
	file   *os.File
	path   string // empty for a standard stream
	waits  bool   // a pipe, a socket or a terminal: writing may have to wait for somebody to read
	stuck  bool   // nobody did, the last time
	torn   bool   // what was written last ends within a line
	joined []byte // scratch
}

// patience is how long a line waits for a reader that keeps up no longer. After that, lines are lost without
// waiting until there is room again: the director must not stand still for its log.
const patience = 100 * time.Millisecond

// roomFor is how much poll(2) promises: what a pipe takes whole (PIPE_BUF) once it says that it can be written to.
const roomFor = 4096

var errStuck = errors.New("what reads it does not keep up")

func openOutput(name string) (*output, error) {
	switch name {
	case "", "stderr":
		return newOutput(os.Stderr, ""), nil
	case "stdout":
		return newOutput(os.Stdout, ""), nil
	}
	f, err := openFile(name)
	if err != nil {
		return nil, err
	}
	return newOutput(f, name), nil
}

func newOutput(f *os.File, path string) *output {
	o := &output{path: path}
	o.use(f)
	return o
}

// use makes f the file. o.mu is held, or nobody else has o.
func (o *output) use(f *os.File) {
	st, err := f.Stat()
	regular := err == nil && st.Mode().IsRegular()
	o.file, o.waits, o.stuck = f, !regular, false
	o.torn = regular && o.path != "" && endsWithin(o.path, st.Size())
}

// endsWithin tells whether a file ends within a line, as a director leaves it that was killed while the disk was full.
func endsWithin(path string, size int64) bool {
	f, err := os.Open(path)
	if err != nil || size == 0 {
		return false
	}
	defer f.Close()
	var last [1]byte
	_, err = f.ReadAt(last[:], size-1)
	return err == nil && last[0] != '\n'
}

// openFile appends, so that a restart keeps the log and logrotate's copytruncate works too. Flow events name
// clients, hence no access for others. A named pipe must have its reader already: nobody waits for one.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NONBLOCK, 0o640)
	if err != nil {
		return nil, fmt.Errorf("log file: %w; name a writable path, stderr or stdout", err)
	}
	return f, nil
}

// Write writes one line. What the kernel takes of a line that it does not take whole stays there, as a line of its own: the next
// one to be written begins a new line.
func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	b := p
	if o.torn {
		o.joined = append(append(o.joined[:0], '\n'), p...)
		b = o.joined
	}
	before := len(b) - len(p)
	n, err := o.write(b)
	if n > 0 {
		o.torn = n > before && n < len(b)
	}
	return max(n-before, 0), err
}

func (o *output) write(b []byte) (n int, err error) {
	if !o.waits {
		return o.file.Write(b)
	}
	for n < len(b) && err == nil {
		if err = o.room(); err != nil {
			break
		}
		var k int
		k, err = o.file.Write(b[n:min(len(b), n+roomFor)])
		n += k
	}
	return n, err
}

// room waits until writing does not have to wait, or returns errStuck.
func (o *output) room() error {
	wait := patience
	if o.stuck {
		wait = 0
	}
	raw, err := o.file.SyscallConn()
	if err != nil {
		return err
	}
	var ready int
	var failed error
	end := time.Now().Add(wait)
	err = raw.Control(func(fd uintptr) {
		for {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
			ready, failed = unix.Poll(p, int(max(time.Until(end), 0).Milliseconds()))
			if !errors.Is(failed, unix.EINTR) {
				return
			}
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	if o.stuck = ready == 0; o.stuck {
		return &os.PathError{Op: "write", Path: o.file.Name(), Err: errStuck}
	}
	return nil
}

func (o *output) isStderr() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.file == os.Stderr
}

// Sync does nothing: a log line is not worth waiting for the disk.
func (o *output) Sync() error { return nil }

func (o *output) reopen() error {
	o.mu.Lock()
	path := o.path
	o.mu.Unlock()
	if path == "" {
		return nil
	}
	f, err := openFile(path)
	if err != nil {
		return err
	}
	return o.replace(f, path)
}

// replace goes on in another file, and closes the one before.
func (o *output) replace(f *os.File, path string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	old := o.file
	o.path = path
	o.use(f)
	return closeFile(old)
}

// closeFile closes a file, and leaves a standard stream to its owner.
func closeFile(f *os.File) error {
	if f == os.Stderr || f == os.Stdout {
		return nil
	}
	return f.Close()
}

// Close closes a file, and leaves a standard stream to its owner.
func (o *output) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return closeFile(o.file)
}
