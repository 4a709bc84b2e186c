package config

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// maxAliased bounds how many values may come out of aliases, so that a short file of
// aliases to aliases cannot fill the memory.
const maxAliased = 1 << 20

// A decoder walks the syntax tree beside the types. The yaml package could decode as
// well, but it stops at the first error and forgets where the values stood.
type decoder struct {
	*report
	targets map[*ast.AliasNode]ast.Node // what each alias stands for; see bind
	merging int                         // << inside of each other
	inAlias int
	aliased int
}

// A place is how an error names a value: what it belongs to, and its key.
type place struct{ where, key string }

func (p place) in(part string) string {
	if p.where == "" {
		return part
	}
	return p.where + ": " + part
}

// value decodes n into v, which must be addressable.
func (d *decoder) value(n ast.Node, v reflect.Value, p place) {
	if anchor, ok := n.(*ast.AnchorNode); ok {
		d.value(anchor.Value, v, p)
		return
	}
	if n = d.resolve(n, p); n == nil {
		d.bad[v.Addr().Interface()] = true
		return
	}
	if d.inAlias > 0 {
		if d.aliased++; d.aliased > maxAliased {
			d.bad[v.Addr().Interface()] = true
			if d.aliased == maxAliased+1 {
				d.add(nodePosition(n), p.where, fmt.Sprintf("aliases expand to more than %d values", maxAliased), "write the values out, or use fewer aliases")
			}
			return
		}
	}
	ptr := v.Addr().Interface()
	d.at[ptr] = nodePosition(n)
	if q, ok := ptr.(*Queues); ok {
		d.queues(n, v, q, p)
		return
	}
	if known, problem, remedy := scalar(n, ptr, p.key); known {
		if problem != "" {
			d.reject(n, v, p, problem, remedy)
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		d.pointer(n, v, p)
	case reflect.Struct:
		d.mapping(n, v, p)
	case reflect.Slice:
		d.sequence(n, v, p)
	default:
		panic("config: no decoder for " + v.Type().String())
	}
}

func (d *decoder) reject(n ast.Node, v reflect.Value, p place, problem, remedy string) {
	d.bad[v.Addr().Interface()] = true
	d.add(nodePosition(n), p.where, problem, remedy)
}

// bind finds what the aliases in n stand for: the value of the last anchor of their name that is complete before them. So
// no alias contains itself, also where a name is given twice.
func (d *decoder) bind(n ast.Node, anchors map[string]ast.Node) {
	switch n := n.(type) {
	case *ast.AnchorNode:
		d.bind(n.Value, anchors)
		anchors[n.Name.GetToken().Value] = n.Value
	case *ast.AliasNode:
		d.targets[n] = anchors[n.Value.GetToken().Value]
	case *ast.TagNode:
		d.bind(n.Value, anchors)
	case *ast.SequenceNode:
		for _, e := range n.Values {
			d.bind(e, anchors)
		}
	case *ast.MappingNode, *ast.MappingValueNode:
		for _, pair := range pairs(n) {
			d.bind(pair.Value, anchors)
		}
	}
}

// follow returns what aliases and anchors lead to: a value, or an alias that stands for nothing.
func (d *decoder) follow(n ast.Node) ast.Node {
	for {
		switch at := n.(type) {
		case *ast.AnchorNode:
			n = at.Value
		case *ast.AliasNode:
			if d.targets[at] == nil {
				return n
			}
			n = d.targets[at]
		default:
			return n
		}
	}
}

// resolve follows aliases to the node that holds the value. It returns nil after reporting what is no value.
func (d *decoder) resolve(n ast.Node, p place) ast.Node {
	switch n := d.follow(n).(type) {
	case *ast.AliasNode:
		d.add(nodePosition(n), p.where, fmt.Sprintf("no anchor &%s stands before this alias", shorten(n.Value.GetToken().Value)), "define it earlier in the file, or write the value out; quote the value if it is meant to begin with *")
	case *ast.TagNode:
		d.add(nodePosition(n), p.where, "YAML tags have no use here", "remove "+n.GetToken().Value)
	case *ast.NullNode, nil:
		pos := position{1, 1}
		if n != nil {
			pos = nodePosition(n)
		}
		remedy := "write one, or remove the key"
		if p.key == "" {
			remedy = wholeRemedy
		}
		d.add(pos, p.where, quoteKey(p.key)+" has no value", remedy)
	default:
		return n
	}
	return nil
}

func quoteKey(key string) string {
	if key == "" {
		return "the configuration"
	}
	return key
}

func (d *decoder) pointer(n ast.Node, v reflect.Value, p place) {
	v.Set(reflect.New(v.Type().Elem()))
	d.value(n, v.Elem(), p)
}

func (d *decoder) sequence(n ast.Node, v reflect.Value, p place) {
	list, ok := n.(*ast.SequenceNode)
	if !ok {
		remedy := "write - and a space before each element, or [ ] around them"
		switch {
		case p.key == "status":
			remedy = "write status: [200, 204]"
		case v.Type().Elem().Kind() == reflect.Int:
			remedy = fmt.Sprintf("write %s: [0, 1]", p.key)
		}
		d.reject(n, v, p, fmt.Sprintf("%s must be a list", p.key), remedy)
		return
	}
	// The elements must not move once their addresses are keys of the report.
	v.Set(reflect.MakeSlice(v.Type(), len(list.Values), len(list.Values)))
	for i, element := range list.Values {
		d.element(element, v.Index(i), p, i)
	}
}

// element decodes element i of a list, and notes that an aliased element is a copy.
func (d *decoder) element(n ast.Node, v reflect.Value, p place, i int) {
	ep := place{p.where, p.key}
	if v.Kind() == reflect.Struct && v.Type().PkgPath() == reflect.TypeOf(*d).PkgPath() {
		setDefaults(v.Addr().Interface())
		noun := strings.ToLower(v.Type().Name())
		ep = place{p.in(label(noun, i, d.peekName(n))), "this"}
	}
	_, alias := n.(*ast.AliasNode)
	if alias {
		d.inAlias++
	}
	d.value(n, v, ep)
	if alias {
		d.inAlias--
	}
}

// label names element i of a list by its name, or by its number from 1.
func label(noun string, i int, name string) string {
	if name == "" {
		return fmt.Sprintf("%s number %d", noun, i+1)
	}
	return noun + " " + shorten(name)
}

// peekName returns what a mapping says for name, before it is decoded.
func (d *decoder) peekName(n ast.Node) string {
	if n = d.follow(n); n == nil {
		return ""
	}
	for _, e := range pairs(n) {
		if e.Key.GetToken().Value == "name" {
			name, _ := text(e.Value)
			return name
		}
	}
	return ""
}

// pairs returns the keys and values of a mapping, which the parser may hand out as its one pair.
func pairs(n ast.Node) []*ast.MappingValueNode {
	switch n := n.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	return nil
}
