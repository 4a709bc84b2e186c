package flowlog

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestFullDisk: what cannot be written is counted, told of once, and missed as soon as there is room again.
func TestFullDisk(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	l, path := openTest(t, Options{FlowSample: 1, FlowRate: 1}, &clock{epoch})
	var stderr bytes.Buffer
	l.stderr = &stderr
	good := l.out.file
	for episode := uint64(1); episode <= 2; episode++ {
		l.out.use(full)
		l.Emit(LinkUp{"eth0"})
		l.FlowNew(testFlow())
		l.FlowNew(testFlow())
		l.ReportSuppressed()
		if n, err := l.Lost(); n != 3*episode-(episode-1) || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("while the disk is full: %d lines lost, %v", n, err)
		}
		l.out.use(good)
		l.ReportSuppressed()
		if n, err := l.Lost(); n != 3*episode-(episode-1) || err != nil {
			t.Errorf("after it was: %d lines lost, %v", n, err)
		}
		if n := strings.Count(stderr.String(), "xlvs: the log cannot be written: write /dev/full: no space left on device"); n != int(episode) {
			t.Errorf("after %d times standard error has %q", episode, &stderr)
		}
	}
	full.Close()
	got := lines(t, path)
	// The first time, two events and the first report are lost, and the second flow was cut by the rate limit; the second time, both flows were.
	if len(got) != 4 || got[0]["write_errors"] != float64(3) || got[0]["rate_limited"] != float64(1) ||
		got[1]["event"] != "control.warning" || got[1]["part"] != "log" || got[1]["error"] != "3 lines are missing before this one: write /dev/full: no space left on device" ||
		got[2]["write_errors"] != float64(2) || !strings.HasPrefix(got[3]["error"].(string), "2 lines are missing") {
		t.Errorf("after the disk had room again the log holds %v", got)
	}
}

// onTmpfs runs f on a thread that has a small file system at dir, which goes with the thread.
func onTmpfs(t *testing.T, f func(dir string)) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root: mounts a file system")
		}
		t.Skip("needs root: mounts a file system")
	}
	dir := t.TempDir()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		err := errors.Join(unix.Unshare(unix.CLONE_NEWNS), unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""),
			unix.Mount("tmpfs", dir, "tmpfs", 0, "size=16k"))
		if err == nil {
			f(dir)
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestTornLine fills a disk until a line is written in part: it is the only one that cannot be read.
func TestTornLine(t *testing.T) {
	onTmpfs(t, func(dir string) {
		path, filler := filepath.Join(dir, "log"), filepath.Join(dir, "filler")
		if err := os.WriteFile(filler, make([]byte, 8<<10), 0o600); err != nil {
			t.Error(err)
			return
		}
		l, err := New(Options{Output: path})
		if err != nil {
			t.Error(err)
			return
		}
		var stderr bytes.Buffer
		l.stderr = &stderr
		written := 0
		emit := func() {
			l.Emit(ConfigApplied{Generation: uint64(written)})
			written++
		}
		for n := uint64(0); n < 100; n, _ = l.Lost() {
			emit()
		}
		if err := os.Remove(filler); err != nil {
			t.Error(err)
		}
		for range 5 {
			emit()
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Error(err)
		}
		whole, torn, missing := 0, 0, 0
		for line := range strings.Lines(string(text)) {
			var e struct {
				Event      string
				Error      string
				Generation int
			}
			switch err := json.Unmarshal([]byte(line), &e); {
			case err != nil:
				torn++
			case e.Event == "control.warning":
				_, _ = fmt.Sscanf(e.Error, "%d lines are missing", &missing)
			default:
				whole++
			}
		}
		if torn != 1 || missing != 100 || whole+missing != written || strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%d lines written, %d are whole, %d torn; the log says that %d are missing, standard error %q", written, whole, torn, missing, &stderr)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A log whose last line was torn by whoever wrote to it before is gone on with by a new line.
func TestEndsWithin(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for _, c := range []struct {
		have string
		want int // lines, with ours
	}{{"", 1}, {"{\"ev", 2}, {"{}\n", 2}} {
		if err := os.WriteFile(path, []byte(c.have), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := New(Options{Output: path})
		if err != nil {
			t.Fatal(err)
		}
		l.Emit(LinkUp{"eth0"})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(string(text), "\n"); got != c.want || strings.HasPrefix(string(text), "\n") {
			t.Errorf("after %q the file has %d lines, want %d: %q", c.have, got, c.want, text)
		}
	}
}

// TestSlowReader: a reader that stands still costs lines, and not the director's time; one that goes on misses only what it is told of.
func TestSlowReader(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l, _ := openTest(t, Options{}, &clock{epoch})
	var stderr bytes.Buffer
	l.stderr = &stderr
	file := l.out.file
	l.out.use(w)
	begun := time.Now()
	const emitted = 5000 // a pipe takes 64 KiB, some 700 lines
	long := strings.Repeat("x", 3*roomFor)
	for i := range emitted {
		switch {
		case i == 3: // longer than what is written in one piece
			l.Emit(DirectorStop{Reason: long})
		default:
			l.Emit(LinkUp{"eth0"})
		}
	}
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("%d lines held the director up for %v", emitted, d)
	}
	lost, err := l.Lost()
	if lost == 0 || lost >= emitted || !errors.Is(err, errStuck) {
		t.Fatalf("%d lines lost, %v", lost, err)
	}
	read := make(chan int)
	go func() {
		n := 0
		scan := bufio.NewScanner(r)
		for scan.Buffer(nil, 1<<20); scan.Scan(); n++ {
			if !json.Valid(scan.Bytes()) {
				t.Errorf("a torn line: %.100s", scan.Text())
			}
		}
		read <- n
	}()
	extra := 0
	for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); extra++ {
		l.Emit(LinkDown{Interface: "eth0"})
		_, err = l.Lost()
	}
	lost, err = l.Lost()
	l.out.use(file)
	w.Close()
	if n := <-read; err != nil || uint64(n) != uint64(emitted+extra+1)-lost {
		t.Errorf("%d lines read of %d and the warning, %d lost (%v)", n, emitted+extra, lost, err)
	}
	if strings.Count(stderr.String(), "does not keep up") != 1 {
		t.Errorf("standard error has %q", &stderr)
	}
}

// TestReaderGone: nobody reads any more.
func TestReaderGone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	l, path := openTest(t, Options{}, &clock{epoch})
	l.stderr = &bytes.Buffer{}
	file := l.out.file
	l.out.use(w)
	l.Emit(LinkUp{"eth0"})
	r.Close()
	l.Emit(LinkDown{Interface: "eth0"})
	if n, err := l.Lost(); n != 1 || !errors.Is(err, syscall.EPIPE) {
		t.Errorf("%d lines lost, %v", n, err)
	}
	l.out.use(file)
	l.Emit(LinkUp{"eth0"})
	if got := lines(t, path); len(got) != 2 || got[1]["event"] != "control.warning" {
		t.Errorf("the log holds %v", got)
	}
}
