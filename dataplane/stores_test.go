package dataplane_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// shared matches what a worker writes and others read: its counters, its backends' counters, a flow's packets and last sign of life.
var shared = regexp.MustCompile(`^([pw]\.count\.|bc\.|[pw]\.backends\[|e\.(LastSeen|Packets|Bytes)$)`)

// TestSharedWordsAreStored: the race detector finds a plain write to what others read only if a test makes both at once.
// This looks at all of them.
func TestSharedWordsAreStored(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatal("no source files found: ", err)
	}
	set := token.NewFileSet()
	check := func(at ast.Node, written ast.Expr) {
		if s := types.ExprString(written); shared.MatchString(s) {
			t.Errorf("%s: %s is written plainly, and others read it: use offheap.Put or Add", set.Position(at.Pos()), s)
		}
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(set, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.IncDecStmt:
				check(n, n.X)
			case *ast.AssignStmt:
				for _, l := range n.Lhs {
					if n.Tok != token.DEFINE {
						check(n, l)
					}
				}
			}
			return true
		})
	}
}
