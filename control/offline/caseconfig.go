package offline

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"

	"xlvs/control/config"
)

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
