package offline

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

	text []byte
}

// A Case is a packet, or several in a row, and what is to become of each.
type Case struct {
	Name  word                `yaml:"name"`
	Down  []string            `yaml:"down"`
	Each  []map[string]string `yaml:"each"`
	Steps []Step              `yaml:"steps"`
	Step  `yaml:",inline"`
}

// A Step is one packet of a case.
type Step struct {
	In     string  `yaml:"in"`
	At     string  `yaml:"at"`
	Wire   string  `yaml:"wire"`
	Packet *packet `yaml:"packet"`
	Expect *Expect `yaml:"expect"`
}

// Expect is what is to become of a packet. What is nil is not compared.
type Expect struct {
	Verdict *string `yaml:"verdict"`
	Reason  *string `yaml:"reason"`
	Service *string `yaml:"service"`
	Backend list    `yaml:"backend"`
	Flow    *string `yaml:"flow"`
	Out     *list   `yaml:"out"`
}

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
type list []word

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
	*l = list{}
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		*l = make(list, 1)
		return (*l)[0].UnmarshalYAML(n)
	}
	for _, e := range s.Values {
		var w word
		if err := w.UnmarshalYAML(e); err != nil {
			return err
		}
		*l = append(*l, w)
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
	return yaml.NodeToValue(n, p.form, yaml.Strict())
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
	f := &CaseFile{Name: name, text: text}
	const remedy = "docs/replay.md says how cases are written"
	tree, err := parser.ParseBytes(text, 0)
	if err != nil {
		return nil, f.yamlFault(err, "check the indentation, quotes, colons and brackets here and on the line before")
	}
	for _, doc := range tree.Docs {
		if faults := f.checkTags(doc.Body); len(faults) > 0 {
			return nil, faults
		}
		if faults := f.checkKeys(doc.Body, "file"); len(faults) > 0 {
			return nil, faults
		}
	}
	if err := yaml.UnmarshalWithOptions(text, f, yaml.Strict()); err != nil {
		return nil, f.yamlFault(err, remedy)
	}
	start := place{1, 1}
	if f.Config.node == nil {
		return nil, f.fault(start, "", "the file names no configuration", "write `config: FILE`, or the configuration itself below `config:`")
	}
	if len(f.Cases) == 0 {
		return nil, f.fault(start, "", "the file has no cases", remedy)
	}
	for i := range f.Cases {
		c := &f.Cases[i]
		if c.Name.text == "" {
			return nil, f.fault(start, fmt.Sprintf("case number %d", i+1), "it has no name", "give it one")
		}
		if len(c.Steps) == 0 {
			c.Steps = []Step{c.Step}
		} else if c.Packet != nil || c.Expect != nil {
			return nil, f.fault(c.Name.place, "case "+c.Name.text, "it has both `steps` and a packet of its own", "put all packets into `steps`")
		}
		for _, s := range c.Steps {
			if s.Packet == nil {
				return nil, f.fault(c.Name.place, "case "+c.Name.text, "a step has no packet", remedy)
			}
		}
	}
	return f, nil
}

// fault is a problem of the file, in the form that configurations' problems have.
func (f *CaseFile) fault(p place, where, problem, remedy string) error {
	return config.Errors{{File: f.Name, Line: p.line, Column: p.column, Where: where, Problem: problem, Remedy: remedy}}
}

func (f *CaseFile) yamlFault(err error, remedy string) error {
	p, problem := place{1, 1}, err.Error()
	var y yaml.Error
	if errors.As(err, &y) {
		problem = y.GetMessage()
		if t := y.GetToken(); t != nil {
			p = place{t.Position.Line, t.Position.Column}
		}
	}
	return f.fault(p, "", strings.Join(strings.Fields(problem), " "), remedy)
}

// config loads the configuration with variables replaced. One that stands in the case file itself is parsed with the lines of
// that file, so that its faults are found there.
func (f *CaseFile) config(vars map[string]string) (*config.Config, error) {
	if _, mapping := f.Config.node.(ast.MapNode); !mapping {
		var file string
		if err := yaml.NodeToValue(f.Config.node, &file); err != nil || file == "" {
			return nil, f.fault(f.Config.place, "", "config is neither a file's name nor a mapping", "write `config: FILE`")
		}
		if file = expand(file, vars); !filepath.IsAbs(file) {
			file = filepath.Join(filepath.Dir(f.Name), file)
		}
		return config.Load(file)
	}
	lines := strings.SplitAfter(string(f.text), "\n")
	var b strings.Builder
	for i, l := range lines {
		inside := i+1 >= f.Config.line && (strings.TrimSpace(l) == "" || l[0] == ' ' || l[0] == '#')
		if i+1 >= f.Config.line && !inside {
			break
		}
		if inside {
			b.WriteString(expand(l, vars))
		} else {
			b.WriteString("\n")
		}
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
