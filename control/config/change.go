package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// A Change is a value that a running director cannot take from another configuration.
type Change struct {
	Where   string // "director.idle", "interface eth0"
	Problem string
	fields  []any // pointers into the new configuration: the value, and what it stands in
}

// Changes are all that keep a running director from taking another configuration. It is never empty.
type Changes []Change

// restartRemedy is what to do about a Change.
const restartRemedy = "a running director does not take that: restart it, or put the old value back; nothing of the file was applied"

// Error returns a line for each, without a place in the file: Places.Locate gives them one.
func (c Changes) Error() string { return (&Places{newReport("")}).Locate(c).Error() }

// Fixed returns what of the difference between two configurations takes a restart: nil, or Changes. Without one, services
// may change, and of the director its timeouts and, in its log, level, file and flow_rate. What of interfaces is for offline use is nobody's
// business here.
func Fixed(old, next *Config) error {
	var c Changes
	a, b := old.Director, &next.Director
	a.Timeouts = b.Timeouts
	a.Log.Level, a.Log.File, a.Log.FlowRate = b.Log.Level, b.Log.File, b.Log.FlowRate
	c.compare("director", reflect.ValueOf(&a).Elem(), reflect.ValueOf(b).Elem(), nil)
	c.interfaces(old.Interfaces, next)
	if len(c) == 0 {
		return nil
	}
	return c
}

// compare goes through the fields of a struct, and of structs in it.
func (c *Changes) compare(where string, a, b reflect.Value, within []any) {
	within = append([]any{b.Addr().Interface()}, within...)
	for i := range b.NumField() {
		x, y := a.Field(i), b.Field(i)
		if same(x, y) {
			continue
		}
		key := strings.Split(b.Type().Field(i).Tag.Get("yaml"), ",")[0]
		if _, plain := y.Interface().(fmt.Stringer); y.Kind() == reflect.Struct && !plain {
			c.compare(where+"."+key, x, y, within)
			continue
		}
		problem := fmt.Sprintf("%s has changed from %v to %v", key, show(x), show(y))
		if key == "seed" || key == "vlans" { // the one is a secret, the other long
			problem = key + " has changed"
		}
		*c = append(*c, Change{where, problem, append([]any{y.Addr().Interface()}, within...)})
	}
}

// same takes no list for an empty one.
func same(a, b reflect.Value) bool {
	if a.Kind() == reflect.Slice && a.Len() == 0 && b.Len() == 0 {
		return true
	}
	return reflect.DeepEqual(a.Interface(), b.Interface())
}

func show(v reflect.Value) string {
	if s := fmt.Sprint(v.Interface()); s != "" {
		return s
	}
	return `""`
}

func (c *Changes) interfaces(old []Interface, next *Config) {
	named := func(list []Interface, name string) int {
		return slices.IndexFunc(list, func(i Interface) bool { return i.Name == name })
	}
	list := any(&next.Interfaces)
	moved, before := false, len(*c)
	for i := range next.Interfaces {
		b := &next.Interfaces[i]
		where := "interface " + shorten(b.Name)
		k := named(old, b.Name)
		if k < 0 {
			*c = append(*c, Change{where, "it is new", []any{&b.Name, b, list}})
			continue
		}
		moved = moved || k != i
		a := old[k]
		a.MAC, a.Addresses, a.MTU = b.MAC, b.Addresses, b.MTU
		if sameVLANs(a.VLANs, b.VLANs) {
			a.VLANs = b.VLANs
		}
		c.compare(where, reflect.ValueOf(&a).Elem(), reflect.ValueOf(b).Elem(), []any{list})
	}
	for _, a := range old {
		if named(next.Interfaces, a.Name) < 0 {
			*c = append(*c, Change{"interface " + shorten(a.Name), "it is no longer there", []any{list}})
		}
	}
	if moved && len(*c) == before {
		*c = append(*c, Change{"interfaces", "their order has changed", []any{list}})
	}
}

// sameVLANs compares what is not for offline use alone.
func sameVLANs(a, b []VLAN) bool {
	return slices.EqualFunc(a, b, func(x, y VLAN) bool { return x.Name == y.Name && x.ID == y.ID && x.Outer == y.Outer })
}

// Places knows where in its file the values of one Config stand.
type Places struct{ report *report }

// LoadPlaces is Load for whoever has something to say of the values later.
func LoadPlaces(path string) (*Config, *Places, error) {
	data, err := read(path)
	if err != nil {
		return nil, nil, err
	}
	c, r, err := parse(path, data)
	if err != nil {
		return nil, nil, err
	}
	return c, &Places{r}, nil
}

// Locate turns Changes to the Config into Errors, in the order of the file. A value that the file does not mention is
// placed where its section is.
func (p *Places) Locate(changes Changes) Errors {
	r := *p.report
	r.list, r.omitted = nil, 0
	for _, c := range changes {
		r.value(c.fields[0], c.Where, c.Problem, restartRemedy, c.fields[1:]...)
	}
	return r.err().(Errors)
}
