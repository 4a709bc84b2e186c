package flowlog

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const docs = "../../docs/logs.md"

// section is what docs/logs.md says of one event: the JSON type of each key, and the example lines.
type section struct {
	keys     map[string]string
	examples []string
}

var keyRow = regexp.MustCompile(`^\| ([a-z_0-9]+) \| (string|number|array|object) \| .+ \|$`)

// parseDocs returns the sections by heading; the keys of every event are under "".
func parseDocs(t *testing.T) map[string]*section {
	t.Helper()
	text, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	common := &section{keys: map[string]string{}}
	sections := map[string]*section{"": common}
	current, inJSON := common, false
	for _, line := range strings.Split(string(text), "\n") {
		if name, ok := strings.CutPrefix(line, "### "); ok {
			current = &section{keys: map[string]string{}}
			sections[name] = current
			continue
		}
		switch {
		case line == "```json":
			inJSON = true
		case line == "```":
			inJSON = false
		case inJSON:
			current.examples = append(current.examples, line)
		}
		if m := keyRow.FindStringSubmatch(line); m != nil {
			current.keys[m[1]] = m[2]
		}
	}
	return sections
}

// shape maps each key of a line to its JSON type.
func shape(m map[string]any) map[string]string {
	s := map[string]string{}
	for k, v := range m {
		switch v.(type) {
		case string:
			s[k] = "string"
		case float64:
			s[k] = "number"
		case []any:
			s[k] = "array"
		case map[string]any:
			s[k] = "object"
		default:
			s[k] = "other"
		}
	}
	return s
}

func TestDocsNameEveryEvent(t *testing.T) {
	sections := parseDocs(t)
	known := map[string]bool{"": true}
	for _, name := range Events() {
		known[name] = true
		if sections[name] == nil {
			t.Errorf("%s does not document %s", docs, name)
		}
	}
	for name := range sections {
		if !known[name] {
			t.Errorf("%s documents %s, which is no event", docs, name)
		}
	}
}

// TestDocsNameEveryKey holds what is written and what is documented against each other, both ways.
func TestDocsNameEveryKey(t *testing.T) {
	sections := parseDocs(t)
	l, path := openTest(t, Options{Level: "debug"}, &clock{epoch})
	for _, r := range samples() {
		l.Emit(r)
	}
	for _, line := range lines(t, path) {
		name := line["event"].(string)
		if s := sections[name]; s != nil {
			if d := cmp.Diff(withCommon(sections, s), shape(line)); d != "" {
				t.Errorf("%s: documented (-) and written (+) keys differ:\n%s", name, d)
			}
		}
	}
}

func TestDocsExamples(t *testing.T) {
	sections := parseDocs(t)
	for name, s := range sections {
		if name != "" && len(s.examples) == 0 {
			t.Errorf("%s has no example", name)
		}
		for _, e := range s.examples {
			var m map[string]any
			if err := json.Unmarshal([]byte(e), &m); err != nil {
				t.Errorf("%s: example is not JSON: %v", name, err)
				continue
			}
			if m["event"] != name || m["v"] != float64(Version) {
				t.Errorf("%s: example says event %v, v %v", name, m["event"], m["v"])
			}
			if d := cmp.Diff(withCommon(sections, s), shape(m)); d != "" {
				t.Errorf("%s: documented (-) and example's (+) keys differ:\n%s", name, d)
			}
		}
	}
}

func withCommon(sections map[string]*section, s *section) map[string]string {
	all := map[string]string{}
	for k, v := range sections[""].keys {
		all[k] = v
	}
	for k, v := range s.keys {
		all[k] = v
	}
	return all
}

// TestDocsLevels: the page names the level of each event.
func TestDocsLevels(t *testing.T) {
	text, err := os.ReadFile(docs)
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range kinds {
		want := "### " + k.name + "\n\nLevel " + k.level.String() + ". "
		if !strings.Contains(string(text), want) {
			t.Errorf("%s does not say %q", docs, want)
		}
	}
}
