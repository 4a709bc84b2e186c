package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const docs = "../../docs/api.md"

var (
	keyRow     = regexp.MustCompile(`^\| ([a-z_0-9]+) \| (string|number|boolean|array|object) \| (.+) \|$`)
	requestRow = regexp.MustCompile(`^\| (GET|POST) (/v1/[a-z]+) \| .+ \|$`)
)

// described returns what docs/api.md says of each type, "number" or "optional string" by key, and which requests there are.
func described(t *testing.T) (types map[string]map[string]string, requests [][2]string) {
	t.Helper()
	text, err := os.ReadFile(docs)
	must(t, err)
	types = map[string]map[string]string{}
	section := ""
	for _, line := range strings.Split(string(text), "\n") {
		if name, ok := strings.CutPrefix(line, "## "); ok {
			section = name
			types[section] = map[string]string{}
		}
		if m := keyRow.FindStringSubmatch(line); m != nil {
			if types[section] == nil {
				t.Fatalf("a key before any type: %s", line)
			}
			types[section][m[1]] = m[2]
			if strings.HasPrefix(m[3], "optional") {
				types[section][m[1]] = "optional " + m[2]
			}
		}
		if m := requestRow.FindStringSubmatch(line); m != nil {
			requests = append(requests, [2]string{m[1], m[2]})
		}
	}
	return types, requests
}

// TestDocs compares the page with the types, those included that they are made of.
func TestDocs(t *testing.T) {
	want := map[string]map[string]string{}
	for _, v := range []any{Status{}, Service{}, Backend{}, Explanation{}, Error{}} {
		describe(t, reflect.TypeOf(v), want)
	}
	got, _ := described(t)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s differs from the code (- code, + page):\n%s", docs, d)
	}
}

func describe(t *testing.T, typ reflect.Type, into map[string]map[string]string) {
	t.Helper()
	if into[typ.Name()] != nil {
		return
	}
	keys := map[string]string{}
	into[typ.Name()] = keys
	for i := range typ.NumField() {
		f := typ.Field(i)
		if f.Anonymous { // its keys are described under its own name
			describe(t, f.Type, into)
			continue
		}
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			t.Errorf("%s.%s has no key", typ.Name(), f.Name)
		}
		kind, of := jsonType(t, f.Type)
		if of != nil {
			describe(t, of, into)
		}
		if options != "" {
			kind = "optional " + kind
		}
		keys[name] = kind
	}
}

// jsonType returns what a Go type is in JSON, and the type of this package that an array is of.
func jsonType(t *testing.T, typ reflect.Type) (kind string, of reflect.Type) {
	t.Helper()
	switch {
	case typ == reflect.TypeFor[time.Time](), typ == reflect.TypeFor[netip.Addr](), typ.Kind() == reflect.String:
		return "string", nil
	case typ.Kind() == reflect.Pointer:
		return jsonType(t, typ.Elem())
	case typ.Kind() == reflect.Bool:
		return "boolean", nil
	case typ.Kind() == reflect.Map:
		return "object", nil
	case typ.Kind() == reflect.Slice && typ.Elem().Kind() == reflect.Struct:
		return "array", typ.Elem()
	case typ.Kind() == reflect.Slice:
		return "array", nil
	case typ.ConvertibleTo(reflect.TypeFor[float64]()):
		return "number", nil
	}
	t.Fatalf("%v: the page has no word for it", typ)
	return "", nil
}

// Every request on the page is answered, and no other.
func TestDocsRequests(t *testing.T) {
	_, requests := described(t)
	h := Handler(&fake{reload: func(context.Context) error { return nil }})
	answered := map[string]bool{}
	for _, r := range requests {
		target := r[1]
		if target == "/v1/explain" {
			target += "?proto=tcp&src=192.0.2.1:1&dst=192.0.2.2:2"
		}
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(r[0], target, nil))
		if rec.Code != http.StatusOK || !json.Valid(rec.Body.Bytes()) {
			t.Errorf("%s %s: %d, %s", r[0], target, rec.Code, rec.Body)
		}
		answered[r[0]+" "+r[1]] = true
	}
	source, err := os.ReadFile("server.go")
	must(t, err)
	patterns := regexp.MustCompile(`HandleFunc\("((?:GET|POST) [^"]+)"`).FindAllStringSubmatch(string(source), -1)
	if len(patterns) != len(answered) {
		t.Errorf("%d requests are handled, %d are on the page", len(patterns), len(answered))
	}
	for _, p := range patterns {
		if !answered[p[1]] {
			t.Errorf("%s is not on the page", p[1])
		}
	}
}
