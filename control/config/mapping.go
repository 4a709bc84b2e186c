package config

import (
	"fmt"
	"reflect"
	"strings"
	"sync"

	"github.com/goccy/go-yaml/ast"
)

// mapping decodes the pairs of n into the fields of the struct v.
func (d *decoder) mapping(n ast.Node, v reflect.Value, p place) {
	if _, ok := n.(ast.MapNode); !ok {
		d.reject(n, v, p, fmt.Sprintf("%s must be a mapping of keys to values", quoteKey(p.key)), mappingRemedy(v))
		return
	}
	seen := make(map[string]position)
	for _, pair := range pairs(n) {
		if pair.Key.IsMergeKey() {
			continue
		}
		key := pair.Key.GetToken().Value
		if first, twice := seen[key]; twice {
			d.add(nodePosition(pair.Key), p.where, fmt.Sprintf("%s is given twice, first on line %d", shorten(key), first.line), "remove one of the two")
			continue
		}
		seen[key] = nodePosition(pair.Key)
		d.pair(pair, v, p)
	}
	// Merged keys come last: what the mapping says itself wins.
	for _, pair := range pairs(n) {
		if pair.Key.IsMergeKey() {
			d.merge(pair.Value, v, p, seen)
		}
	}
}

const wholeRemedy = "write interfaces: and services: as docs/configuration.md shows"

// mappingRemedy shows how one writes a mapping of v's type.
func mappingRemedy(v reflect.Value) string {
	remedy := "write key: value pairs, one a line and indented, or in { }"
	switch v.Addr().Interface().(type) {
	case *Config:
		return wholeRemedy
	case *Interface:
		return remedy + ", such as { name: eth0 }"
	case *Backend:
		return remedy + ", such as { name: web1, address: 192.0.2.11 }"
	case *Health:
		return remedy + ", such as { type: http, path: /healthz }"
	case *Idle:
		return remedy + ", such as { mode: busy }"
	case *Tunnel:
		return remedy + ", such as { type: gue }"
	case *VLAN:
		return remedy + ", such as { name: eth0.100, id: 100 }"
	case *Log:
		return remedy + ", such as { level: info }"
	case *Memory:
		return remedy + ", such as { frames: 8192 }"
	case *Persistence:
		return remedy + ", such as { timeout: 360s }"
	case *QUIC:
		return remedy + ", such as { server_id_length: 2 }"
	case *Timeouts:
		return remedy + ", such as { established: 900s }"
	}
	return remedy
}

// maxMerging bounds the depth of merges, which are decoded by recursion.
const maxMerging = 64

// merge decodes the mapping behind a << key, except for keys already seen.
func (d *decoder) merge(n ast.Node, v reflect.Value, p place, seen map[string]position) {
	source := d.resolve(n, place{p.where, "<<"})
	if source == nil {
		return
	}
	if _, ok := source.(ast.MapNode); !ok {
		d.add(nodePosition(n), p.where, "<< merges one mapping, and this is none", "write an alias of a mapping, such as *defaults")
		return
	}
	if d.merging == maxMerging {
		d.add(nodePosition(n), p.where, fmt.Sprintf("more than %d << are inside of each other", maxMerging), "write the keys out, or merge fewer mappings")
		return
	}
	d.inAlias, d.merging = d.inAlias+1, d.merging+1
	defer func() { d.inAlias, d.merging = d.inAlias-1, d.merging-1 }()
	for _, pair := range pairs(source) {
		key := pair.Key.GetToken().Value
		if _, own := seen[key]; own {
			continue
		}
		if pair.Key.IsMergeKey() {
			d.merge(pair.Value, v, p, seen)
			continue
		}
		seen[key] = nodePosition(pair.Key)
		d.pair(pair, v, p)
	}
}

func (d *decoder) pair(pair *ast.MappingValueNode, v reflect.Value, p place) {
	key := pair.Key.GetToken().Value
	i, ok := schemaOf(v.Type()).index[key]
	if !ok {
		d.unknownKey(pair.Key, key, v, p)
		return
	}
	field := v.Field(i)
	fp := place{p.where, key}
	if kind := field.Kind(); field.Type().PkgPath() == v.Type().PkgPath() && kind == reflect.Struct || kind == reflect.Pointer && field.Type().Elem().Kind() == reflect.Struct {
		if fp.where = structPlace(p, field, key); fp.where != p.where {
			fp.key = "this"
		}
	}
	if _, alias := pair.Value.(*ast.AliasNode); alias {
		d.inAlias++
		defer func() { d.inAlias-- }()
	}
	d.value(pair.Value, field, fp)
}

// structPlace is where a nested mapping's keys are; Queues and VIP are structs in Go and values in the file.
func structPlace(p place, field reflect.Value, key string) string {
	if t := field.Type(); t == reflect.TypeFor[Queues]() || t == reflect.TypeFor[VIP]() {
		return p.where
	}
	return p.in(key)
}

func (d *decoder) unknownKey(n ast.Node, key string, v reflect.Value, p place) {
	known := schemaOf(v.Type())
	if word, value, two := strings.Cut(key, " "); two {
		if i, ok := known.index[word]; ok {
			d.bad[v.Field(i).Addr().Interface()] = true
			d.add(nodePosition(n), p.where, fmt.Sprintf("there is no colon in %s", shorten(key)), fmt.Sprintf("write %s: %s", word, oneLine(value)))
			return
		}
	}
	if _, explicit := n.(*ast.MappingKeyNode); explicit {
		d.add(nodePosition(n), p.where, "keys are written without ?", "write key: value")
		return
	}
	if i, ok := known.index[nearest(key, known.keys)]; ok {
		// The key that was meant is not missing, it is misspelt: one message is enough.
		d.bad[v.Field(i).Addr().Interface()] = true
	}
	d.add(nodePosition(n), p.where, fmt.Sprintf("unknown key %s", shorten(key)), choose(key, known.keys))
}

// A schema is what the decoder knows of a struct type: the index of each yaml key, and the keys in order.
type schema struct {
	index map[string]int
	keys  []string
}

var schemas sync.Map // reflect.Type to *schema: large files ask once a key

func schemaOf(t reflect.Type) *schema {
	if known, ok := schemas.Load(t); ok {
		return known.(*schema)
	}
	s := &schema{index: make(map[string]int)}
	for i := range t.NumField() {
		key, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ",")
		if key != "" && key != "-" {
			s.index[key] = i
			s.keys = append(s.keys, key)
		}
	}
	schemas.Store(t, s)
	return s
}

// shorten quotes what could be confusing or long in a message.
func shorten(s string) string {
	const most = 60
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	if quoted := fmt.Sprintf("%q", s); quoted != `"`+s+`"` || s == "" || strings.ContainsAny(s, " :;,") {
		return quoted
	}
	return s
}
