package config

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

const document = "../../docs/configuration.md"

// TestDocumentHasEveryKey looks for each key of each type in the tables of the reference.
func TestDocumentHasEveryKey(t *testing.T) {
	text := string(mustRead(t, document))
	sections := map[string]reflect.Type{
		"## Top level":          reflect.TypeFor[Config](),
		"## director":           reflect.TypeFor[Director](),
		"### director.idle":     reflect.TypeFor[Idle](),
		"### director.log":      reflect.TypeFor[Log](),
		"### director.timeouts": reflect.TypeFor[Timeouts](),
		"### director.memory":   reflect.TypeFor[Memory](),
		"## interfaces":         reflect.TypeFor[Interface](),
		"### interfaces.vlans":  reflect.TypeFor[VLAN](),
		"## services":           reflect.TypeFor[Service](),
		"### services.health":   reflect.TypeFor[Health](),
		"### services.backends": reflect.TypeFor[Backend](),

		"### services.tunnel":      reflect.TypeFor[Tunnel](),
		"### services.persistence": reflect.TypeFor[Persistence](),
		"### services.quic":        reflect.TypeFor[QUIC](),
	}
	for heading, typ := range sections {
		_, section, found := strings.Cut(text, "\n"+heading+"\n")
		if !found {
			t.Errorf("there is no section %q", heading)
			continue
		}
		section, _, _ = strings.Cut(section, "\n#")
		keys := schemaOf(typ).keys
		for _, key := range keys {
			if !strings.Contains(section, fmt.Sprintf("\n| `%s` |", key)) {
				t.Errorf("%q has no row for %s", heading, key)
			}
		}
		if rows := strings.Count(section, "\n| `"); heading != "## services" && rows != len(keys) {
			t.Errorf("%q has %d rows for %d keys", heading, rows, len(keys))
		}
	}
}

// TestDocumentedTypesAreAll makes sure that a type added later gets its section and its row above.
func TestDocumentedTypesAreAll(t *testing.T) {
	seen := make(map[string]bool)
	var walk func(reflect.Type)
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Slice || typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || typ.PkgPath() != reflect.TypeFor[Config]().PkgPath() || typ == reflect.TypeFor[Queues]() || typ == reflect.TypeFor[VIP]() || seen[typ.Name()] {
			return
		}
		seen[typ.Name()] = true
		for i := range typ.NumField() {
			if typ.Field(i).Tag.Get("yaml") == "" {
				t.Errorf("%s.%s has no yaml key", typ.Name(), typ.Field(i).Name)
			}
			walk(typ.Field(i).Type)
		}
	}
	walk(reflect.TypeFor[Config]())
	if len(seen) != 14 {
		t.Errorf("the configuration has %d types, and the reference has sections for 14", len(seen))
	}
}

func TestDocumentedExamplesParse(t *testing.T) {
	blocks := strings.Split(string(mustRead(t, document)), "```yaml\n")[1:]
	if len(blocks) < 2 {
		t.Fatalf("found %d examples", len(blocks))
	}
	for i, block := range blocks {
		text, _, _ := strings.Cut(block, "```")
		if _, err := Parse(fmt.Sprintf("example %d", i+1), []byte(text)); err != nil {
			t.Error(err)
		}
	}
}

// TestDocumentedExampleIsComplete checks that the first example shows every key there is.
func TestDocumentedExampleIsComplete(t *testing.T) {
	text, _, _ := strings.Cut(strings.Split(string(mustRead(t, document)), "```yaml\n")[1], "```")
	for _, typ := range []reflect.Type{
		reflect.TypeFor[Config](), reflect.TypeFor[Director](), reflect.TypeFor[Idle](), reflect.TypeFor[Log](), reflect.TypeFor[Timeouts](),
		reflect.TypeFor[Memory](), reflect.TypeFor[Interface](), reflect.TypeFor[Service](), reflect.TypeFor[Health](), reflect.TypeFor[Backend](),
		reflect.TypeFor[Tunnel](), reflect.TypeFor[Persistence](), reflect.TypeFor[QUIC](),
	} {
		keys := schemaOf(typ).keys
		for _, key := range keys {
			if !strings.Contains(text, key+":") {
				t.Errorf("the example does not show %s of %s", key, typ.Name())
			}
		}
	}
}

// TestDocumentedDefaults compares the defaults that the tables name with those that Parse fills in.
func TestDocumentedDefaults(t *testing.T) {
	text := string(mustRead(t, document))
	c, err := Parse("x", []byte(strings.Replace(base, "    backends:", "    health: { type: http }\n    backends:", 1)))
	if err != nil {
		t.Fatal(err)
	}
	d, s := c.Director, c.Services[0]
	for row, value := range map[string]any{
		"`flows` | 1024 to 67108864":                 d.Flows,
		"`api` | absolute path, at most 107 bytes":   d.API,
		"`mode` | `adaptive`, `busy`":                d.Idle.Mode,
		"`busy_poll` | `auto`, `on`, `off`":          d.BusyPoll,
		"`shed` | `auto`, `off`":                     d.Shed,
		"`level` | `debug`, `info`, `warn`, `error`": d.Log.Level,
		"`file` | absolute path, `stderr`, `stdout`": d.Log.File,
		"`flow_rate` | number":                       d.Log.FlowRate,
		"`frames` | power of two, 128 to 1048576":    d.Memory.Frames,
		"`frame_size` | `2048`, `4096`":              d.Memory.FrameSize,
		"`ring` | power of two, 64 to 32768":         d.Memory.Ring,
		"`queues` | `all` or a list of numbers":      c.Interfaces[0].Queues,
		"`rss` | `auto`, `keep`":                     c.Interfaces[0].RSS,
		"`attach` | `auto`, `native`, `generic`":     c.Interfaces[0].Attach,
		"`table_size` | prime, at most 16777213":     s.TableSize,
		"`no_backend` | `drop`, `reject`":            s.NoBackend,
		"`announce` | `auto`, `off`":                 s.Announce,
		"`hash` | `tuple`, `source`":                 s.Hash,
		"`echo` | `on`, `off`":                       s.Echo,
		"`fragment` | `fragment`, `drop`":            s.Fragment,
		"`mss_clamp` | `off`, `auto`, 536 to 65495":  s.MSSClamp,
		"`path` | text that begins with `/`":         s.Health.Path,
		"`interval` | 50ms to 1h":                    s.Health.Interval,
		"`rise` | 1 to 1000":                         s.Health.Rise,
		"`fall` | 1 to 1000":                         s.Health.Fall,
		"`weight` | 0 to 65535":                      *s.Backends[0].Weight,
		"`established`":                              fmt.Sprintf("%.0fs", d.Timeouts.Established.Seconds()),
		"`udp`":                                      fmt.Sprintf("%.0fs", d.Timeouts.UDP.Seconds()),
	} {
		if want := fmt.Sprintf("| %s | `%v` |", row, value); !strings.Contains(text, want) {
			t.Errorf("the reference does not say %s", want)
		}
	}
}
