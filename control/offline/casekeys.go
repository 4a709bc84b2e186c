package offline

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"xlvs/control/config"
)

// known are the keys that each kind of mapping may have, and below says which of them hold mappings of another kind, or lists of them.
var (
	known = map[string][]string{
		"file":   {"config", "each", "cases"},
		"case":   {"name", "down", "each", "steps", "in", "at", "wire", "packet", "expect"},
		"step":   {"in", "at", "wire", "packet", "expect"},
		"packet": {"proto", "src", "dst", "flags", "ttl", "tos", "id", "df", "payload", "length", "type", "hex"},
		"expect": {"verdict", "reason", "service", "backend", "flow", "out"},
	}
	below = map[string]string{"cases": "case", "steps": "step", "packet": "packet", "expect": "expect"}
)

// checkKeys reports the keys that a mapping of the given kind, or one below it, cannot have: all, and in the order of the
// file, where the YAML package would name any one of them.
func (f *CaseFile) checkKeys(n ast.Node, kind string) (faults config.Errors) {
	switch n := n.(type) {
	case *ast.SequenceNode:
		for _, e := range n.Values {
			faults = append(faults, f.checkKeys(e, kind)...)
		}
	case *ast.MappingNode:
		for _, v := range n.Values {
			faults = append(faults, f.checkKeys(v, kind)...)
		}
	case *ast.MappingValueNode:
		key := n.Key.GetToken().Value
		if !slices.Contains(known[kind], key) {
			p := placeOf(n)
			return config.Errors{{File: f.Name, Line: p.line, Column: p.column, Problem: fmt.Sprintf("unknown key %s", key),
				Remedy: fmt.Sprintf("a %s can have %s", kind, strings.Join(known[kind], ", "))}}
		}
		if next := below[key]; next != "" {
			faults = f.checkKeys(n.Value, next)
		}
	}
	return faults
}

// checkTags reports YAML tags. Nothing needs them, and the YAML package fails on a tagged scalar where a list belongs.
func (f *CaseFile) checkTags(n ast.Node) (faults config.Errors) {
	ast.Walk(visit(func(n ast.Node) {
		if t, ok := n.(*ast.TagNode); ok {
			p := placeOf(t)
			faults = append(faults, &config.Error{File: f.Name, Line: p.line, Column: p.column, Problem: "YAML tags have no use here",
				Remedy: "remove " + t.GetToken().Value})
		}
	}), n)
	return faults
}

type visit func(ast.Node)

// Visit implements ast.Visitor.
func (v visit) Visit(n ast.Node) ast.Visitor {
	v(n)
	return v
}
