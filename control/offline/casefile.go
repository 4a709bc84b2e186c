package offline

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"xlvs/control/config"
)

// A CaseFile holds unit tests of a configuration, as docs/replay.md describes them.
type CaseFile struct {
	Name   string
	Config node                `yaml:"config"`
	Each   []map[string]string `yaml:"each"`
	Cases  []Case              `yaml:"cases"`

	// Warnings are the backends that cannot be reached, and why: packets to them are dropped.
	Warnings []string `yaml:"-"`

	text  []byte
	confs []*config.Config // by variant of Each
}

// A Case is a packet, or several in a row, and what is to become of each.
type Case struct {
	Name  word                `yaml:"name"`
	Each  []map[string]string `yaml:"each"`
	Steps []Step              `yaml:"steps"`
	Step  `yaml:",inline"`    // its only one, which becomes the first of Steps; else Down alone, which holds from the beginning

	place  place
	broken bool // it has keys that are none
}

// A Step is one packet of a case. What is nil was not given.
type Step struct {
	In     *word   `yaml:"in"`
	At     *word   `yaml:"at"`
	Wire   *word   `yaml:"wire"`
	Down   *list   `yaml:"down"` // from here on
	Packet *packet `yaml:"packet"`
	Expect *Expect `yaml:"expect"`
}

// Expect is what is to become of a packet. What is nil is not compared.
type Expect struct {
	Verdict *word `yaml:"verdict"`
	Reason  *word `yaml:"reason"`
	Service *word `yaml:"service"`
	Backend *list `yaml:"backend"`
	Flow    *word `yaml:"flow"`
	Out     *list `yaml:"out"`
}

// nothing says whether any packet would be as expected.
func (e *Expect) nothing() bool { return e == nil || *e == Expect{} }

// A place is where a value begins in its file, from 1.
type place struct{ line, column int }

// A word is a text that knows its place.
type word struct {
	place
	text string
}

// A node is a value that is read later.
type node struct {
	place
	node ast.Node
}

// A list is a list of texts, or one.
type list struct {
	place
	words []word
}

// packet is a packet's text, or its mapping.
type packet struct {
	place
	text string // a line of layers
	form *form
}

// form is a packet written as a mapping.
type form struct {
	Proto, Src, Dst, Flags, TTL, TOS, ID, Payload, Length, Hex, Type string
	DF                                                               bool
}

func placeOf(n ast.Node) place {
	if m, ok := n.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		n = m.Values[0].Key
	}
	if v, ok := n.(*ast.MappingValueNode); ok {
		n = v.Key
	}
	p := n.GetToken().Position
	return place{p.Line, p.Column}
}

// UnmarshalYAML implements yaml.NodeUnmarshaler.
func (w *word) UnmarshalYAML(n ast.Node) error {
	w.place = placeOf(n)
	return yaml.NodeToValue(n, &w.text)
}

// UnmarshalYAML implements yaml.NodeUnmarshaler.
func (v *node) UnmarshalYAML(n ast.Node) error {
	v.place, v.node = placeOf(n), n
	return nil
}

// UnmarshalYAML implements yaml.NodeUnmarshaler.
func (l *list) UnmarshalYAML(n ast.Node) error {
	*l = list{place: placeOf(n)}
	nodes := []ast.Node{n}
	if s, ok := n.(*ast.SequenceNode); ok {
		nodes = s.Values
	}
	for _, e := range nodes {
		var w word
		if err := w.UnmarshalYAML(e); err != nil {
			return err
		}
		l.words = append(l.words, w)
	}
	return nil
}

// UnmarshalYAML implements yaml.NodeUnmarshaler.
func (p *packet) UnmarshalYAML(n ast.Node) error {
	p.place = placeOf(n)
	if _, mapping := n.(ast.MapNode); !mapping {
		return yaml.NodeToValue(n, &p.text)
	}
	p.form = &form{}
	return yaml.NodeToValue(n, p.form)
}

// LoadCases reads a case file. What is wrong with it comes back as config.Errors; a file that cannot be read, as an error that
// wraps that of package os.
func LoadCases(name string) (*CaseFile, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("cannot read the cases: %w", err)
	}
	return ParseCases(name, text)
}

// ParseCases is LoadCases for a file's text.
func ParseCases(name string, text []byte) (*CaseFile, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	f := &CaseFile{Name: name, text: text}
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, f.yamlFault(err, "check the indentation, quotes, colons and brackets here and on the line before")
	}
	faults, fatal := f.checkShape(tree)
	if fatal {
		return nil, faults
	}
	if err := yaml.Unmarshal(text, f); err != nil {
		return nil, f.inOrder(append(faults, f.decodeFaults(err, tree.Docs[0].Body)...))
	}
	f.locate(casesOf(tree.Docs[0].Body))
	if faults = append(faults, f.check()...); len(faults) > 0 {
		return nil, f.inOrder(faults)
	}
	return f, nil
}

// locate gives the cases their places, and each its step.
func (f *CaseFile) locate(nodes []ast.Node) {
	for i := range f.Cases {
		c := &f.Cases[i]
		if c.place = (place{1, 1}); i < len(nodes) {
			c.place, c.broken = placeOf(nodes[i]), len(f.checkKeys(nodes[i], "case")) > 0
		}
		if len(c.Steps) == 0 {
			c.Steps = []Step{c.Step}
			c.Step = Step{}
		}
	}
}

// remedy is what to do about what has no better remedy.
const remedy = "docs/replay.md says how cases are written"

// fault is a problem of the file, in the form that configurations' problems have.
func (f *CaseFile) fault(p place, where, problem, remedy string) config.Errors {
	return config.Errors{{File: f.Name, Line: p.line, Column: p.column, Where: where, Problem: problem, Remedy: remedy}}
}

func (f *CaseFile) yamlFault(err error, remedy string) config.Errors {
	p, problem := place{1, 1}, err.Error()
	var y yaml.Error
	if errors.As(err, &y) {
		problem = y.GetMessage()
		if t := y.GetToken(); t != nil {
			p = place{t.Position.Line, t.Position.Column}
		}
	}
	return f.fault(p, "", inWords(strings.Join(strings.Fields(problem), " ")), remedy)
}

var (
	wrongType = regexp.MustCompile(`cannot unmarshal (\S+(?: {})?) into Go (?:struct field \S+|value) of type (\S+)`)
	wrongKind = regexp.MustCompile(`(\S+) was used where (\S+) is expected`)
	kinds     = strings.NewReplacer("map[string]interface {}", "a mapping", "[]interface {}", "a list", "uint64", "a number", "int64", "a number",
		"float64", "a number", "string", "a text", "bool", "true or false", "mapping", "a mapping", "sequence", "a list", "null", "nothing")
)

// inWords says what the YAML package says in the terms of Go.
func inWords(problem string) string {
	for _, re := range []*regexp.Regexp{wrongType, wrongKind} {
		if m := re.FindStringSubmatch(problem); m != nil {
			return kinds.Replace(m[1]) + " stands where " + kinds.Replace(m[2]) + " belongs"
		}
	}
	return problem
}

// decodeFaults are those of a file of which the YAML package has named one: it is asked for each case by itself.
func (f *CaseFile) decodeFaults(err error, root ast.Node) (faults config.Errors) {
	first := f.yamlFault(err, remedy)
	for _, n := range casesOf(root) {
		var c Case
		if err := yaml.NodeToValue(n, &c); err != nil && !strings.Contains(err.Error(), "alias") { // its anchor may be elsewhere
			faults = append(faults, f.yamlFault(err, remedy)...)
		}
	}
	if !slices.ContainsFunc(faults, func(e *config.Error) bool { return e.Line == first[0].Line && e.Column == first[0].Column }) {
		faults = append(first, faults...)
	}
	return faults
}

// inOrder sorts faults by their places, those of the configuration's file behind the others.
func (f *CaseFile) inOrder(faults config.Errors) config.Errors {
	foreign := func(e *config.Error) int {
		if e.File == f.Name {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(faults, func(a, b *config.Error) int {
		return cmp.Or(cmp.Compare(foreign(a), foreign(b)), cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return faults
}

// config loads the configuration with variables replaced. One that stands in the case file itself is parsed with the lines of
// that file, so that its faults are found there.
func (f *CaseFile) config(vars map[string]string) (*config.Config, error) {
	switch n := f.Config.node.(type) {
	case *ast.MappingNode:
		if n.IsFlowStyle {
			return f.inline(vars, n.Start.Position.Line, n.Start.Position.Column, n.End.Position.Line, n.End.Position.Column)
		}
		return f.inline(vars, f.Config.line, 1, f.lastOf(f.Config.line), 0)
	case *ast.MappingValueNode:
		return f.inline(vars, f.Config.line, 1, f.lastOf(f.Config.line), 0)
	case *ast.LiteralNode:
		return nil, f.fault(f.Config.place, "", "the configuration is a text", "write it as a mapping below `config:`, without the "+n.Start.Value)
	}
	var file string
	if err := yaml.NodeToValue(f.Config.node, &file); err != nil || file == "" {
		return nil, f.fault(f.Config.place, "", "config is neither a file's name nor a mapping", "write `config: FILE`")
	}
	if file = expand(file, vars); !filepath.IsAbs(file) {
		file = filepath.Join(filepath.Dir(f.Name), file)
	}
	conf, err := config.Load(file)
	var faults config.Errors
	if err == nil || errors.As(err, &faults) {
		return conf, err
	}
	return nil, f.fault(f.Config.place, "", err.Error(), "write `config: FILE`, relative to this file, or the configuration itself below `config:`")
}

// lastOf returns the last line of a block of indented lines.
func (f *CaseFile) lastOf(line int) int {
	lines := strings.Split(string(f.text), "\n")
	for line < len(lines) {
		l := strings.TrimRight(lines[line], "\r\t ") // the next one
		if l != "" && l[0] != ' ' && l[0] != '#' {
			break
		}
		line++
	}
	return line
}

// inline parses the configuration that stands in the file from one place to another, both included; column 0 is a line's end. The rest
// of the file becomes blank.
func (f *CaseFile) inline(vars map[string]string, line, column, lastLine, lastColumn int) (*config.Config, error) {
	var b strings.Builder
	for i, l := range strings.SplitAfter(string(f.text), "\n") {
		switch n := i + 1; {
		case n < line || n > lastLine:
			b.WriteString("\n")
			continue
		case n == lastLine && lastColumn > 0:
			l = string([]rune(l)[:min(lastColumn, len([]rune(l)))])
			fallthrough
		default:
			if n == line {
				r := []rune(l)
				l = strings.Repeat(" ", min(column-1, len(r))) + string(r[min(column-1, len(r)):])
			}
		}
		b.WriteString(expand(l, vars))
	}
	return config.Parse(f.Name, []byte(b.String()))
}

// expand replaces each ${key}.
func expand(s string, vars map[string]string) string {
	if !strings.Contains(s, "${") {
		return s
	}
	for k, v := range vars {
		s = strings.ReplaceAll(s, "${"+k+"}", v)
	}
	return s
}
