package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// summary keeps the output of tests until it is known whether anybody needs it.
type summary struct {
	out     io.Writer
	output  map[string][]string // lines of running tests, by package and test
	skipped map[string][]string // names of skipped tests, by reason
	passed  int
	failed  []string
}

func newSummary(out io.Writer) *summary {
	return &summary{out: out, output: map[string][]string{}, skipped: map[string][]string{}}
}

func (s *summary) add(e event) {
	name := e.Package
	if e.Test != "" {
		name += " " + e.Test
	}
	switch e.Action {
	case "output":
		s.output[name] = append(s.output[name], e.Output)
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "pass":
		s.end(e, name, false)
	case "fail":
		s.end(e, name, true)
	case "skip":
		if e.Test != "" {
			reason := skipReason(s.output[name])
			s.skipped[reason] = append(s.skipped[reason], name)
		}
		s.end(e, name, false)
	}
}

// end prints what a test or package that has ended leaves to be read.
func (s *summary) end(e event, name string, failed bool) {
	switch {
	case failed:
		s.print(s.output[name])
		if e.Test == "" {
			s.printRunning(e.Package)
		}
		// A package without a failed test did not build, or failed outside of its tests.
		if e.Test != "" || !slices.ContainsFunc(s.failed, func(f string) bool { return strings.HasPrefix(f, e.Package+" ") }) {
			s.failed = append(s.failed, name)
		}
	case e.Test == "":
		s.print(closingLines(s.output[name]))
	case e.Action == "pass":
		s.passed++
	}
	delete(s.output, name)
}

// printRunning prints the output of tests that never ended: a package that panicked or ran out of time
// leaves them behind, and the reason is often in there.
func (s *summary) printRunning(pkg string) {
	for name, lines := range s.output {
		if strings.HasPrefix(name, pkg+" ") {
			s.print(lines)
			s.failed = append(s.failed, name)
			delete(s.output, name)
		}
	}
}

func (s *summary) print(lines []string) {
	for _, l := range lines {
		fmt.Fprint(s.out, l)
	}
}

// closingLines are what go test prints last of a package: "ok  xlvs/maglev 0.5s" or "?  xlvs/cmd [no test files]".
func closingLines(lines []string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(l string) bool {
		return !strings.HasPrefix(l, "ok  ") && !strings.HasPrefix(l, "?   ") && !strings.HasPrefix(l, "\t")
	})
}

var (
	runnerLine = regexp.MustCompile(`^\s*(===|---) `)
	fileLine   = regexp.MustCompile(`^\s+\S+\.go:\d+: `)
)

// skipReason is what the test gave to t.Skip: all that it printed but the runner's own lines and the place.
func skipReason(lines []string) string {
	var said []string
	for _, l := range lines {
		if !runnerLine.MatchString(l) {
			said = append(said, strings.TrimSpace(fileLine.ReplaceAllString(l, "")))
		}
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}

// close prints the end of the run.
func (s *summary) close() {
	var n int
	reasons := make([]string, 0, len(s.skipped))
	for r, names := range s.skipped {
		reasons = append(reasons, r)
		n += len(names)
	}
	slices.Sort(reasons)
	if n > 0 {
		fmt.Fprintf(s.out, "\nSkipped:\n")
	}
	for _, r := range reasons {
		fmt.Fprintf(s.out, "  %s\n", r)
		for _, name := range s.skipped[r] {
			fmt.Fprintf(s.out, "    %s\n", name)
		}
	}
	if len(s.failed) > 0 {
		fmt.Fprintf(s.out, "\nFailed:\n")
	}
	for _, name := range s.failed {
		fmt.Fprintf(s.out, "  %s\n", name)
	}
	fmt.Fprintf(s.out, "\n%d tests passed, %d failed, %d skipped\n", s.passed, len(s.failed), n)
}
