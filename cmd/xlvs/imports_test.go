package main_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the import path of the repository's root, root its directory.
const (
	module = "xlvs"
	root   = "../.."
)

// mayImport says which packages of this module each package may import (outside its tests). A
// name stands for the package alone; "name/..." for all below it, not for itself. A package
// is governed by its most specific row, and one without a row may import nothing of ours.
//
//	cmd → control → dataplane → {rewrite, flow, table} → packet
//	      control → maglev
//	xsk, memio → dataplane; only cmd, perf and control/offline choose among them, or have datapath join xsk and steer
var mayImport = map[string][]string{
	"cmd/xlvs": {"control", "control/...", "dataplane", "dataplane/...", "maglev", "testenv", "testenv/...", "perf", "perf/..."},
	"perf/...": {"control", "control/...", "dataplane", "dataplane/...", "maglev", "testenv", "testenv/...", "perf", "perf/..."},
	"perf":     {"control", "control/...", "dataplane", "dataplane/...", "maglev", "testenv", "testenv/...", "perf/..."},

	"control": {"control/...", "dataplane", "dataplane/table", "dataplane/flow", "dataplane/packet", "dataplane/steer", "maglev"},
	// The parts of the control side meet in control; each knows only the configuration's types.
	"control/...": {"control/config"},
	// Validation holds a file against the limits of what will carry it.
	"control/config":  {"maglev", "dataplane/table"},
	"control/metrics": {"control/config", "dataplane", "dataplane/table"},
	// A director over files and memory: the one part of the control side that stands above control.
	"control/offline": {"control", "control/api", "control/config", "dataplane", "dataplane/memio", "dataplane/packet", "dataplane/pcapio", "dataplane/steer", "dataplane/notation"},

	"dataplane":          {"dataplane/frag", "dataplane/rewrite", "dataplane/flow", "dataplane/table", "dataplane/packet", "dataplane/offheap"},
	"dataplane/datapath": {"dataplane", "dataplane/steer", "dataplane/xsk"},
	"dataplane/xsk":      {"dataplane"},
	"dataplane/memio":    {"dataplane"},
	"dataplane/pcapio":   {},
	"dataplane/notation": {},
	"dataplane/frag":     {"dataplane/packet", "dataplane/table"},
	"dataplane/rewrite":  {"dataplane/packet", "dataplane/table"},
	"dataplane/flow":     {"dataplane/packet", "dataplane/table", "dataplane/offheap"},
	"dataplane/table":    {"dataplane/packet"},
	"dataplane/steer":    {},
	"dataplane/packet":   {},
	"dataplane/offheap":  {},
	"maglev":             {},

	"testenv":     {"dataplane/packet", "dataplane/table", "dataplane/steer", "testenv/..."},
	"testenv/...": {"dataplane/packet"},
	// The demo runs the real program, and sees of it what an operator sees.
	"testenv/demo": {"testenv", "control/api", "dataplane/table"},
}

// matches says whether pattern ("a/b" or "a/b/...") covers pkg.
func matches(pattern, pkg string) bool {
	if below, ok := strings.CutSuffix(pattern, "/..."); ok {
		return strings.HasPrefix(pkg, below+"/")
	}
	return pattern == pkg
}

// allowed says whether package from may import package to, both without the module's name.
func allowed(from, to string) bool {
	patterns, ok := mayImport[from]
	for dir := from; !ok && dir != "."; {
		dir = filepath.Dir(dir)
		patterns, ok = mayImport[dir+"/..."]
	}
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, to) })
}

// allowedInTest is the rule for test files, which may choose a Port and build labs, but not turn the direction round.
func allowedInTest(from, to string) bool {
	switch {
	case strings.HasPrefix(to, "cmd/"):
		return false
	case strings.HasPrefix(from, "dataplane"):
		return !strings.HasPrefix(to, "control")
	}
	return true
}

func TestImportRule(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"cmd/xlvs", "dataplane/xsk", true},
		{"cmd/xlvs", "control", true},
		{"control", "dataplane", true},
		{"control", "dataplane/xsk", false},
		{"control", "dataplane/datapath", false},
		{"control", "cmd/xlvs", false},
		{"control/health", "control/config", true},
		{"control/health", "control", false},
		{"control/health", "dataplane", false},
		{"dataplane", "control", false},
		{"dataplane", "dataplane/xsk", false},
		{"dataplane/xsk", "dataplane", true},
		{"dataplane/flow", "dataplane", false},
		{"dataplane/packet", "dataplane/table", false},
		{"dataplane/newcomer", "dataplane/packet", false},
		{"maglev", "dataplane/table", false},
		{"perf/report", "dataplane/memio", true},
	} {
		if got := allowed(c.from, c.to); got != c.want {
			t.Errorf("%s → %s: allowed is %v, want %v", c.from, c.to, got, c.want)
		}
	}
	if allowedInTest("dataplane", "control/config") || allowedInTest("control", "cmd/xlvs") || !allowedInTest("dataplane", "dataplane/memio") {
		t.Error("the rule for test files is not what it says")
	}
}

// sourceFile is one Go file of the repository.
type sourceFile struct {
	path    string // from the repository's root
	pkg     string // its directory
	test    bool
	imports []string
}

// sourceFiles parses the imports of every Go file, whatever its build constraints.
func sourceFiles(t *testing.T) []sourceFile {
	t.Helper()
	var files []sourceFile
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin" || name == "dist") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		s := sourceFile{path: rel, pkg: filepath.Dir(rel), test: strings.HasSuffix(name, "_test.go")}
		for _, i := range f.Imports {
			p, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			s.imports = append(s.imports, p)
		}
		files = append(files, s)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("no Go file found: the rule was not checked")
	}
	return files
}

func TestImportsRunOneWay(t *testing.T) {
	for _, f := range sourceFiles(t) {
		for _, p := range f.imports {
			to, ours := strings.CutPrefix(p, module+"/")
			if !ours || to == f.pkg {
				continue
			}
			if f.test && !allowedInTest(f.pkg, to) || !f.test && !allowed(f.pkg, to) {
				t.Errorf("%s imports %s, against the direction that ARCHITECTURE.md gives", f.path, p)
			}
		}
	}
}

// TestTopLevelIsFixed: a new directory at the top is a decision for ARCHITECTURE.md, not an accident.
func TestTopLevelIsFixed(t *testing.T) {
	known := []string{"cmd", "control", "dataplane", "deploy", "docs", "maglev", "perf", "testenv", "bin", "dist"}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && !slices.Contains(known, e.Name()) {
			t.Errorf("directory %s is not part of the layout", e.Name())
		}
		if strings.HasSuffix(e.Name(), ".go") {
			t.Errorf("%s: no Go files at the top", e.Name())
		}
	}
}

// importers returns the files outside tests that import path.
func importers(t *testing.T, path string) []string {
	var found []string
	for _, f := range sourceFiles(t) {
		if !f.test && slices.Contains(f.imports, path) {
			found = append(found, f.path)
		}
	}
	return found
}

// TestUnsafeIsConfined: unsafe code sits in one file a package, where it can be read as a whole, and only in packages
// that share memory with the kernel or keep it off the Go heap (testenv: the argument of the tap device's ioctl).
func TestUnsafeIsConfined(t *testing.T) {
	mayUseUnsafe := []string{"dataplane/xsk", "dataplane/flow", "dataplane/offheap", "perf/wire", "testenv"}
	seen := map[string]string{}
	for _, path := range importers(t, "unsafe") {
		pkg := filepath.Dir(path)
		if !slices.Contains(mayUseUnsafe, pkg) {
			t.Errorf("%s imports unsafe; only %s may", path, strings.Join(mayUseUnsafe, ", "))
		}
		if other, twice := seen[pkg]; twice {
			t.Errorf("%s and %s both import unsafe: one file a package", other, path)
		}
		seen[pkg] = path
	}
}

// TestOneFileKnowsAsavie: the library opens the first socket and nothing else.
func TestOneFileKnowsAsavie(t *testing.T) {
	got := importers(t, "github.com/asavie/xdp")
	if len(got) != 1 || filepath.Dir(got[0]) != "dataplane/xsk" {
		t.Errorf("github.com/asavie/xdp is imported by %v, want one file of dataplane/xsk", got)
	}
}
