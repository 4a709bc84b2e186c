package offline

import (
	"slices"

	"github.com/goccy/go-yaml/ast"

	"xlvs/control/config"
)

// known are the keys that each kind of mapping may have, and below says which of them hold mappings of another kind, or lists of them.
var (
	known = map[string][]string{
		"file":   {"config", "each", "cases"},
		"case":   {"name", "down", "each", "steps", "in", "at", "wire", "packet", "expect"},
		"step":   {"in", "at", "wire", "down", "packet", "expect"},
		"packet": {"proto", "src", "dst", "flags", "ttl", "tos", "id", "df", "payload", "length", "type", "hex"},
		"expect": {"verdict", "reason", "service", "backend", "flow", "out"},
	}
	below = map[string]string{"cases": "case", "steps": "step", "packet": "packet", "expect": "expect"}
)

// checkShape reports what the file has that no case file has. If it is fatal, the rest of the file says nothing.
func (f *CaseFile) checkShape(tree *ast.File) (faults config.Errors, fatal bool) {
	if len(tree.Docs) == 0 || tree.Docs[0].Body == nil {
		return f.fault(place{1, 1}, "", "the file is empty", remedy), true
	}
	for i, doc := range tree.Docs {
		switch {
		case doc.Body == nil:
		case i > 0:
			return f.fault(placeOf(doc.Body), "", "the file has a second YAML document", "remove the --- before it, or make it a file of its own"), true
		default:
			if tags := f.checkTags(doc.Body); len(tags) > 0 {
				return tags, true
			}
			faults = append(faults, f.checkKeys(doc.Body, "file")...)
		}
	}
	if _, mapping := tree.Docs[0].Body.(ast.MapNode); !mapping {
		return f.fault(placeOf(tree.Docs[0].Body), "", "the file is no mapping with config and cases", remedy), true
	}
	return faults, false
}

// casesOf returns the nodes of a file's cases.
func casesOf(root ast.Node) []ast.Node {
	m, ok := root.(*ast.MappingNode)
	if !ok {
		return nil
	}
	for _, v := range m.Values {
		if s, ok := v.Value.(*ast.SequenceNode); ok && v.Key.GetToken().Value == "cases" {
			return s.Values
		}
	}
	return nil
}

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
	case *ast.AnchorNode:
		return f.checkKeys(n.Value, kind)
	case *ast.MappingValueNode:
		key := n.Key.GetToken().Value
		if !slices.Contains(known[kind], key) {
			return f.fault(placeOf(n), "", "unknown key "+key, config.Suggest(key, known[kind]))
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
			faults = append(faults, f.fault(placeOf(t), "", "YAML tags have no use here", "remove "+t.GetToken().Value)...)
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
