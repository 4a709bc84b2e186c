package config

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
)

const byteOrderMark = "\ufeff"

// plainText reports what YAML does not take for text: bytes that are not UTF-8, and control characters.
func (r *report) plainText(data []byte) bool {
	p := position{1, 1}
	for len(data) > 0 {
		c, n := utf8.DecodeRune(data)
		switch {
		case c == utf8.RuneError && n == 1:
			r.add(p, "", "the file is not UTF-8 text", "save it as UTF-8")
			return false
		case c < ' ' && c != '\t' && c != '\n' && c != '\r', c == 0x7f:
			r.add(p, "", fmt.Sprintf("here is a control character (%U), which no YAML text has", c), "delete it, or check that this is the right file: it may be a binary or a damaged one")
			return false
		}
		if p.column++; c == '\n' {
			p = position{p.line + 1, 1}
		}
		data = data[n:]
	}
	return true
}

// unseen are characters that look like a space or like nothing, and come with text from web pages and word processors.
var unseen = map[rune]string{
	0xa0: "a no-break space", 0x200b: "a zero-width space", 0x200c: "an invisible character", 0x200d: "an invisible character",
	0x2028: "a line separator", 0x202f: "a no-break space", 0x2060: "an invisible character", 0x3000: "a wide space", 0xfeff: "a byte order mark",
}

// findUnseen looks for such a character in a line of data, from 1.
func findUnseen(data []byte, line int) (name string, p position) {
	for range line - 1 {
		_, data, _ = bytes.Cut(data, []byte("\n"))
	}
	data, _, _ = bytes.Cut(data, []byte("\n"))
	p = position{line, 1}
	for _, c := range string(data) {
		if name = unseen[c]; name != "" {
			return fmt.Sprintf("%s (%U)", name, c), p
		}
		p.column++
	}
	return "", p
}

// A fault is what the parser says of a syntax error, and what is said here: what it means to who wrote the file.
type fault struct{ says, problem, remedy string }

const lookHere = "check the indentation (spaces, no tabs), quotes, colons and brackets here and on the line before"

// The first whose words are in the parser's is used.
var faults = []fault{
	{`\t`, "a tab stands where spaces must", "indent with spaces only"},
	{"tab character", "a tab stands where spaces must", "indent with spaces only"},
	{"non-map value is specified", "here is a value without a key", "write key: value, with a space after the colon"},
	{"mapping value is not allowed", "here is a key where none can be", "indent it like the keys that it belongs with; put text that contains \": \" into quotes"},
	{"could not find flow map content", "what { begins has no key: value in it", "put text that begins with { into quotes; if a template makes this file, have it fill in the value first"},
	{"could not find flow mapping end", "{ has no } that ends it", "add }"},
	{"sequence end token", "[ has no ] that ends it", "add ]"},
	{"',' or '}' must be", "{ has no } that ends it, or a comma is missing", "add it"},
	{"',' or ']' must be", "[ has no ] that ends it, or a comma is missing", "add it"},
	{"could not find '{'", "} has no { that begins it", "remove it, or add {"},
	{"could not find '['", "] has no [ that begins it", "remove it, or add ["},
	{"end character of double-quoted", "the quote \" has no second one that ends the text", "add it"},
	{"end character of single-quoted", "the quote ' has no second one that ends the text", "add it; write '' for ' inside of it"},
	{"is a reserved character", "", "put text that begins with it into quotes"},
	{"unknown escape character", "", `write \\ for \ in double quotes, or use single quotes`},
	{"value is not allowed in this context", "here is a value where none can be", lookHere},
	{"directive", "here is a % directive", "remove the line, as none is needed; put text that begins with % into quotes"},
	{"unexpected end content", "here is text after the end of the document (...)", "remove the line ... or what follows it"},
}

// syntax reports an error of the YAML parser in data.
func (r *report) syntax(err error, data []byte) {
	var syntax yaml.Error
	if !errors.As(err, &syntax) || syntax.GetToken() == nil {
		r.add(position{1, 1}, "", fmt.Sprintf("this is not YAML: %q", err), lookHere)
		return
	}
	p := tokenPosition(syntax.GetToken())
	if name, at := findUnseen(data, p.line); name != "" {
		r.add(at, "", "this is not YAML: here is "+name, "delete it, and type an ordinary space if one belongs here")
		return
	}
	said := fault{problem: oneLine(syntax.GetMessage()), remedy: lookHere}
	for _, f := range faults {
		if strings.Contains(said.problem, f.says) {
			if f.problem != "" {
				said.problem = f.problem
			}
			said.remedy = f.remedy
			break
		}
	}
	r.add(p, "", "this is not YAML: "+said.problem, said.remedy)
}

// oneLine shortens a message that quotes the file.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(strings.ReplaceAll(s, "\t", `\t`)), " ")
	if r := []rune(s); len(r) > 120 {
		s = string(r[:120]) + "…"
	}
	return s
}
