package perf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"
)

// ResultVersion is the version of the result file's form. A reader refuses a newer one.
const ResultVersion = 1

// A Result is a run of scenarios: the content of a result file. The plots travel with it, so that
// a later version of the program draws an old file as it was meant.
type Result struct {
	Version     int               `json:"v"`
	Machine     Machine           `json:"machine"`
	XLVS        string            `json:"xlvs"`
	Started     time.Time         `json:"started"`
	Seconds     float64           `json:"seconds"`
	Quick       bool              `json:"quick"`
	Runs        int               `json:"runs"`
	Interrupted bool              `json:"interrupted,omitempty"`
	Notes       []string          `json:"notes,omitempty"` // what was left out, and why
	Scenarios   []string          `json:"scenarios"`
	Plots       map[string][]Plot `json:"plots"`
	Rows        []Row             `json:"rows"`
}

// Save writes the result file. It replaces an older one only once the new one is complete.
func (r *Result) Save(path string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return fmt.Errorf("result: %w", err)
	}
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, append(b, '\n'), 0o644); err != nil {
		return fmt.Errorf("result: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(fmt.Errorf("result: %w", err), os.Remove(tmp))
	}
	return nil
}

// Load reads a result file.
func Load(path string) (*Result, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("result: %w", err)
	}
	r := &Result{}
	if err := json.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("result: %s is no result file of `xlvs perf run --out`: %w", path, err)
	}
	switch {
	case r.Version == 0:
		return nil, fmt.Errorf("result: %s is no result file of `xlvs perf run --out`: it has no version", path)
	case r.Version > ResultVersion:
		return nil, fmt.Errorf("result: %s has version %d; this program knows up to %d", path, r.Version, ResultVersion)
	}
	return r, nil
}

// Flat returns the row as one JSON object without nesting: scenario, the parameters by name, metric, unit,
// median, min, max, runs.
func (r *Row) Flat() ([]byte, error) {
	var b bytes.Buffer
	put := func(key string, v any) error {
		k, err := json.Marshal(key)
		if err != nil {
			return err
		}
		val, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("row %s of %s: %s: %w", r.Metric, r.Scenario, key, err)
		}
		sep := byte(',')
		if b.Len() == 0 {
			sep = '{'
		}
		b.WriteByte(sep)
		b.Write(k)
		b.WriteByte(':')
		b.Write(val)
		return nil
	}
	err := put("scenario", r.Scenario)
	for _, k := range r.ParamNames() {
		if slices.Contains(reserved, k) {
			return nil, fmt.Errorf("row %s of %s: parameter %q has the name of a column", r.Metric, r.Scenario, k)
		}
		err = errors.Join(err, put(k, r.Params[k]))
	}
	err = errors.Join(err, put("metric", r.Metric), put("unit", r.Unit), put("median", r.Median), put("min", r.Min),
		put("max", r.Max), put("runs", r.Runs))
	b.WriteByte('}')
	return b.Bytes(), err
}

var reserved = []string{"scenario", "metric", "unit", "median", "min", "max", "runs", "values"}

// paramOrder is how people name a case; other parameters follow by the alphabet.
var paramOrder = []string{"forwarder", "mode", "family", "case", "services", "backends", "workers", "flows", "size"}

// ParamNames returns the names of the row's parameters in the order in which to show them.
func (r *Row) ParamNames() []string { return sortParams(slices.Collect(maps.Keys(r.Params))) }

func sortParams(names []string) []string {
	rank := func(s string) int {
		if i := slices.Index(paramOrder, s); i >= 0 {
			return i
		}
		return len(paramOrder)
	}
	slices.SortFunc(names, func(a, b string) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return bytes.Compare([]byte(a), []byte(b))
	})
	return names
}

// ParamsOf returns the names of the parameters that any of rows has, in the order in which to show them.
func ParamsOf(rows []Row) []string {
	all := map[string]bool{}
	for i := range rows {
		for k := range rows[i].Params {
			all[k] = true
		}
	}
	return sortParams(slices.Collect(maps.Keys(all)))
}

// Key identifies what a row measured: the same in every run of the same scenario.
func (r *Row) Key() string {
	b := []byte(r.Scenario)
	for _, k := range r.ParamNames() {
		b = fmt.Appendf(b, " %s=%s", k, Text(r.Params[k]))
	}
	return string(fmt.Appendf(b, " %s", r.Metric))
}

// Text prints a parameter's value, whether it comes from Go or from a file, where all numbers are float64.
func Text(v any) string {
	switch x := v.(type) {
	case float64:
		return formatInt(x)
	case nil:
		return ""
	}
	return fmt.Sprint(v)
}

func formatInt(x float64) string {
	if x == float64(int64(x)) {
		return fmt.Sprint(int64(x))
	}
	return fmt.Sprint(x)
}
