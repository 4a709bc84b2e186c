package offline

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"os"
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
