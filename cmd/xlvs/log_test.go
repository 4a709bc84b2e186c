package main_test

import (
	"encoding/json"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"xlvs/control/api"
	"xlvs/dataplane/table"
	"xlvs/testenv"
	"xlvs/testenv/demo"
)

// TestLogReaderGoes: `xlvs run | head` ends the log, not the director.
func TestLogReaderGoes(t *testing.T) {
	w := start(t, setup{lab: testenv.Options{Modes: []table.Mode{table.DR}, Servers: 1}})
	fatal(t, w.dir.Stop())
	for _, stream := range []string{"stdout", "stderr"} {
		t.Run(stream, func(t *testing.T) {
			w.rewrite(t, replace(strconv.Quote(w.dir.Log), stream))
			defer w.rewrite(t, replace("file: "+stream, "file: "+strconv.Quote(w.dir.Log)))
			r, out, err := os.Pipe()
			fatal(t, err)
			defer r.Close()
			cmd := w.Director.Command(t.Context(), program, "run", "-c", w.dir.File)
			cmd.Stdout, cmd.Stderr = out, out
			p, err := w.Director.Start(cmd)
			out.Close()
			fatal(t, err)
			for d := json.NewDecoder(r); ; { // up to some line
				var e struct{ Event string }
				fatal(t, d.Decode(&e))
				if e.Event == "director.ready" {
					break
				}
			}
			fatal(t, r.Close())
			until(t, "lines are lost, and the director says so", func() bool {
				fatal(t, p.Signal(syscall.SIGHUP)) // something to log
				var s api.Status
				w.json(t, &s, "status")
				return s.LogLost > 0 && strings.Contains(s.LogError, "broken pipe")
			})
			if text, _ := w.xlvs(t, "status", "--api", w.api()); !strings.Contains(text, "log:       cannot be written: write /dev/"+stream+": broken pipe; ") {
				t.Errorf("xlvs status shows:\n%s", text)
			}
			w.answers(t)
			fatal(t, p.Signal(syscall.SIGTERM))
			if err := p.Wait(); err != nil {
				t.Errorf("on SIGTERM it ended with %v", err)
			}
		})
	}
	w.run(t)
}

// TestLogRotates does what logrotate does, and then has a reload change the log.
func TestLogRotates(t *testing.T) {
	w := start(t, setup{lab: testenv.Options{Modes: []table.Mode{table.DR}, Servers: 1}})
	old := w.dir.Log + ".1"
	fatal(t, os.Rename(w.dir.Log, old))
	fatal(t, w.dir.Process.Signal(syscall.SIGHUP))
	until(t, "the log goes on in a new file", func() bool {
		f, err := os.Open(w.dir.Log)
		if err != nil {
			return false
		}
		defer f.Close()
		text, err := io.ReadAll(f)
		return err == nil && strings.Contains(string(text), `"event":"config.applied"`)
	})
	// A reload moves the log elsewhere, and changes what it holds; a file that cannot be had is refused, and everything stays.
	elsewhere := w.dir.Log + ".2"
	w.rewrite(t, replace(strconv.Quote(w.dir.Log), strconv.Quote(w.dir.Log+"/none")))
	if out, status := w.xlvs(t, "reload", "--api", w.api()); status == 0 || !strings.Contains(out, w.dir.Log+"/none: not a directory") {
		t.Errorf("xlvs reload: status %d, %q", status, out)
	}
	w.await(t, "the reload was refused", func(e demo.Event) bool { return e.Event == "config.rejected" })
	w.rewrite(t, replace(strconv.Quote(w.dir.Log+"/none"), strconv.Quote(elsewhere)+", level: error"))
	if out, status := w.xlvs(t, "reload", "--api", w.api()); status != 0 {
		t.Errorf("xlvs reload: status %d, %q", status, out)
	}
	w.rewrite(t, replace("services:", "service:"))
	if out, status := w.xlvs(t, "reload", "--api", w.api()); status == 0 {
		t.Errorf("xlvs reload: %q", out)
	}
	fatal(t, w.dir.Stop())
	text, err := os.ReadFile(elsewhere)
	fatal(t, err)
	if !strings.Contains(string(text), `"event":"config.rejected"`) || strings.Count(string(text), "\n") != 1 {
		t.Errorf("a log of errors at its new place holds %q", text)
	}
	text, err = os.ReadFile(old)
	fatal(t, err)
	if strings.Contains(string(text), "director.stop") || strings.Count(string(text), "config.applied") != 1 {
		t.Errorf("the old file was written to after the new one was there:\n%s", text)
	}
}
