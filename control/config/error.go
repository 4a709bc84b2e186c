package config

import (
	"fmt"
	"sort"
	"strings"
)

// An Error is one thing wrong with a configuration, with its place and its remedy.
type Error struct {
	File         string // as given to Load or Parse; empty for a Config that came from no file
	Line, Column int    // from 1, in characters; 0 when the value stands in no file
	Where        string // what it concerns: "service web: backend web1"
	Problem      string
	Remedy       string
}

// Error returns "file:line:column: where: problem; remedy".
func (e *Error) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File + ":")
	}
	if e.Line > 0 {
		fmt.Fprintf(&b, "%d:%d:", e.Line, e.Column)
	}
	if b.Len() > 0 {
		b.WriteString(" ")
	}
	if e.Where != "" {
		b.WriteString(e.Where + ": ")
	}
	b.WriteString(e.Problem + "; " + e.Remedy)
	return b.String()
}

// Errors are all the problems of one configuration, in the order of the file. It is never empty.
type Errors []*Error

// Error returns one line for each problem.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives errors.As each Error.
func (e Errors) Unwrap() []error {
	list := make([]error, len(e))
	for i, one := range e {
		list[i] = one
	}
	return list
}

// maxErrors keeps the report of a file that is wrong throughout readable.
const maxErrors = 100

type position struct{ line, column int }

// A report collects problems. It knows where the values of a Config stand in the file by
// their addresses: pointers to fields and elements are the keys of at and bad.
type report struct {
	file    string
	at      map[any]position
	bad     map[any]bool // values that were not understood, so that nothing more is said about them
	list    Errors
	omitted int
}

func newReport(file string) *report {
	return &report{file: file, at: make(map[any]position), bad: make(map[any]bool)}
}

func (r *report) add(p position, where, problem, remedy string) {
	if len(r.list) >= maxErrors {
		r.omitted++
		return
	}
	r.list = append(r.list, &Error{r.file, p.line, p.column, where, problem, remedy})
}

// value reports a problem with the value that field points to. If the file does not
// mention it (a default, or a key that is missing), the place is the first of within that it does.
func (r *report) value(field any, where, problem, remedy string, within ...any) {
	if r.bad[field] {
		return
	}
	for _, ptr := range append([]any{field}, within...) {
		if p, ok := r.at[ptr]; ok {
			r.add(p, where, problem, remedy)
			return
		}
	}
	r.add(position{}, where, problem, remedy)
}

// given says whether the file has the value that field points to, right or wrong.
func (r *report) given(field any) bool {
	_, ok := r.at[field]
	return ok || r.bad[field]
}

// err returns the problems sorted by place, or nil when there are none.
func (r *report) err() error {
	if len(r.list) == 0 {
		return nil
	}
	sort.SliceStable(r.list, func(i, j int) bool {
		a, b := r.list[i], r.list[j]
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Column < b.Column
	})
	if r.omitted > 0 {
		last := r.list[len(r.list)-1]
		r.list = append(r.list, &Error{r.file, last.Line, last.Column, "",
			fmt.Sprintf("there are %d more problems", r.omitted), "correct these first"})
	}
	return r.list
}
