// Command gotest runs `go test -json` with its own arguments and prints what a person wants to
// read: each package's closing line as it ends, the whole output of what failed, and at the end
// the tests that were skipped, with their reasons. It exits with the status of go test.
//
//	go run ./.ci/gotest -count=1 ./...
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

func main() {
	status, err := run(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gotest:", err)
		os.Exit(1)
	}
	os.Exit(status)
}

// run returns the exit status of go test; an error means that it could not be run or read.
func run(args []string, out io.Writer) (int, error) {
	goTool := os.Getenv("GO")
	if goTool == "" {
		goTool = "go"
	}
	// An interrupt from the terminal reaches go test as well, which then ends by itself. To catch it here, rather
	// than to ignore it, leaves go test its default: ignored signals are inherited, handlers are not.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGINT)
	cmd := exec.Command(goTool, append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	s := newSummary(out)
	readErr := s.read(pipe)
	err = cmd.Wait()
	s.close()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode(), nil
	}
	return 0, errors.Join(err, readErr)
}

// event is one line of `go test -json` (see `go doc test2json`).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output events
	Test       string
	Output     string
}

func (s *summary) read(r io.Reader) error {
	lines := bufio.NewReaderSize(r, 1<<16)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) == nil {
				s.add(e)
			} else {
				// Not everything that go test prints is JSON, a complaint about its arguments for one.
				s.out.Write(line)
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
