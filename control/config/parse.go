package config

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"reflect"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits on what is read, so that a wrong file name or a hostile file costs an
// error message and not the machine's memory.
const (
	maxFileSize  = 64 << 20
	maxFlowDepth = 32   // [ and { inside each other; the types need 5
	maxColumn    = 1024 // of block structure: the parser recurses once a level
)

// Load reads the file at path and parses it. A file that cannot be read gives an error
// that wraps that of package os; one that is wrong gives Errors.
func Load(path string) (*Config, error) {
	data, err := read(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, fmt.Errorf("cannot read the configuration: %w", err)
	}
	return data, nil
}

// Parse decodes and validates data, strictly, and fills in every default. name is what errors
// call the file. The error is of type Errors and holds every problem found.
func Parse(name string, data []byte) (*Config, error) {
	c, _, err := parse(name, data)
	return c, err
}

// parse is Parse; the report knows where the values of the Config stand.
func parse(name string, data []byte) (*Config, *report, error) {
	r := newReport(name)
	c := &Config{Director: defaultDirector()}
	body, ok := r.document(data)
	if !ok {
		return nil, nil, r.err()
	}
	d := &decoder{report: r, targets: make(map[*ast.AliasNode]ast.Node)}
	d.bind(body, make(map[string]ast.Node))
	d.value(body, reflect.ValueOf(c).Elem(), place{})
	c.fill(r)
	(&validator{r}).config(c)
	if err := r.err(); err != nil {
		return nil, nil, err
	}
	return c, r, nil
}

// Validate checks a Config that came from no file; the defaults must be filled in. The
// error is of type Errors, without lines and columns.
func (c *Config) Validate() error {
	v := &validator{newReport("")}
	v.config(c)
	return v.err()
}

// document parses data as YAML and returns the body of its one document.
func (r *report) document(data []byte) (ast.Node, bool) {
	start := position{1, 1}
	if len(data) > maxFileSize {
		r.add(start, "", fmt.Sprintf("the file is larger than %d MiB", maxFileSize>>20), "check that this is the right file, or split the services among directors")
		return nil, false
	}
	data = bytes.TrimPrefix(data, []byte(byteOrderMark)) // which some editors put at the start, and YAML allows there
	if !r.plainText(data) {
		return nil, false
	}
	tokens := lexer.Tokenize(string(data))
	if p, deep := tooDeep(tokens); deep {
		r.add(p, "", "values are nested too deeply", "compare the brackets and the indentation here with docs/configuration.md")
		return nil, false
	}
	// Duplicate keys are allowed here because the decoder reports them together with everything else.
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		r.syntax(err, data)
		return nil, false
	}
	return r.single(file)
}

func (r *report) single(file *ast.File) (ast.Node, bool) {
	var docs []*ast.DocumentNode
	for _, doc := range file.Docs {
		if doc.Body != nil {
			docs = append(docs, doc)
		}
	}
	if len(docs) == 0 {
		r.add(position{1, 1}, "", "the file is empty", "it needs at least an interface; docs/configuration.md has an example")
		return nil, false
	}
	if len(docs) > 1 {
		p := nodePosition(docs[1].Body)
		if docs[1].Start != nil {
			p = tokenPosition(docs[1].Start)
		}
		r.add(p, "", "a second YAML document begins", "remove the --- line, or put the rest into a file of its own")
		return nil, false
	}
	return docs[0].Body, true
}

// tooDeep looks for nesting that would make the parser, which recurses, slow or worse.
func tooDeep(tokens token.Tokens) (position, bool) {
	flow := 0
	for _, t := range tokens {
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow = max(0, flow-1) // a stray ] must not make room for more [
		case token.SequenceEntryType, token.MappingValueType, token.MappingKeyType:
			if flow == 0 && t.Position.Column > maxColumn {
				return tokenPosition(t), true
			}
		}
		if flow > maxFlowDepth {
			return tokenPosition(t), true
		}
	}
	return position{}, false
}

func tokenPosition(t *token.Token) position { return position{t.Position.Line, t.Position.Column} }

// nodePosition returns where n begins. The parser's own token of a block mapping is its first colon.
func nodePosition(n ast.Node) position {
	switch n := n.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return nodePosition(n.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return nodePosition(n.Key)
	}
	if t := n.GetToken(); t != nil {
		return tokenPosition(t)
	}
	return position{1, 1}
}
