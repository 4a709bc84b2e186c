package config

import (
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// text returns what a scalar says, whatever type YAML gives it: an operator who writes name: 10
// or announce: off means the text.
func text(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// scalar decodes n into ptr if that points to a type written as one word. known says that it does;
// problem is empty when all is well.
func scalar(n ast.Node, ptr any, key string) (known bool, problem, remedy string) {
	switch ptr := ptr.(type) {
	case *string, *bool, *int, *uint16, *uint64, *time.Duration, *netip.Addr, *netip.Prefix, *MAC, *VIP, *ServerID:
		word, ok := text(n)
		if !ok {
			return true, key + " must be a single value, not a list or mapping", oneOf(ptr, key)
		}
		word = strings.TrimSpace(word)
		if problem, remedy = parseWord(word, ptr, key); problem == "" && quoted(n) && isNumber(ptr) {
			if _, block := n.(*ast.LiteralNode); block {
				return true, fmt.Sprintf("%s is %q, which | or > makes text", key, word), fmt.Sprintf("write %s: %s", key, word)
			}
			return true, fmt.Sprintf("%s is %q, which the quotes make text", key, word), "remove the quotes: write " + word
		}
		return true, problem, remedy
	}
	return false, "", ""
}

// oneOf words the remedy for several values where one belongs.
func oneOf(ptr any, key string) string {
	switch key {
	case "protocol", "port", "address":
		return "write one; what it is to serve besides takes a service or backend of its own"
	}
	return "write " + key + ": " + example(ptr)
}

// quoted tells whether a word is text for every reader of YAML, whatever it looks like.
func quoted(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.StringNode:
		t := n.GetToken().Type
		return t == token.SingleQuoteType || t == token.DoubleQuoteType
	case *ast.LiteralNode:
		return true
	}
	return false
}

// isNumber tells whether ptr points to what YAML has a type for: to quote it is a mistake, and one that other readers of
// the file would not forgive.
func isNumber(ptr any) bool {
	switch ptr.(type) {
	case *bool, *int, *uint16, *uint64:
		return true
	}
	return false
}

// example returns a value of ptr's type as one writes it.
func example(ptr any) string {
	switch ptr.(type) {
	case *bool:
		return "true"
	case *int, *uint64:
		return "1"
	case *uint16:
		return "80"
	case *time.Duration:
		return "2s"
	case *netip.Addr, *VIP:
		return "192.0.2.10"
	case *ServerID:
		return "01af"
	case *netip.Prefix:
		return "192.0.2.1/24"
	case *MAC:
		return `"02:00:00:00:00:01"`
	}
	return "text"
}

func parseWord(word string, ptr any, key string) (problem, remedy string) {
	var err error
	remedy = "write a value such as " + example(ptr)
	switch ptr := ptr.(type) {
	case *string:
		*ptr = word
	case *bool:
		*ptr = word == "true"
		if word != "true" && word != "false" {
			return fmt.Sprintf("%s is %s, which is neither true nor false", key, shorten(word)), "write true or false"
		}
	case *int, *uint16, *uint64:
		return parseNumber(word, reflect.ValueOf(ptr).Elem(), key)
	case *time.Duration:
		if *ptr, err = time.ParseDuration(word); err != nil {
			return fmt.Sprintf("%s is %s, which is not a duration", key, shorten(word)), "write a number with its unit, such as 500ms, 2s or 15m"
		}
	case *netip.Addr:
		if *ptr, err = netip.ParseAddr(word); err != nil {
			return fmt.Sprintf("%s is %s, which is not an IP address", key, shorten(word)), "write an IPv4 or IPv6 address without a prefix length or port, such as 192.0.2.10 or \"2001:db8::10\""
		}
	case *VIP:
		if err = ptr.UnmarshalText([]byte(word)); err != nil {
			return fmt.Sprintf("%s is %s, which is neither an IP address nor a prefix", key, shorten(word)), "write an IPv4 or IPv6 address without a port, such as 192.0.2.10 or \"2001:db8::10\", or a prefix, such as 192.0.2.0/28"
		}
	case *ServerID:
		if err = ptr.UnmarshalText([]byte(word)); err != nil || len(*ptr) == 0 {
			return fmt.Sprintf("%s is %s, which is not a sequence of bytes in hexadecimal", key, shorten(word)), "write two digits for each byte, in quotes, such as " + `"01af"`
		}
	case *netip.Prefix:
		if *ptr, err = netip.ParsePrefix(word); err != nil {
			return fmt.Sprintf("%s is not an address with its prefix length", shorten(word)), remedy
		}
	case *MAC:
		if err = ptr.UnmarshalText([]byte(word)); err == nil && ptr.IsZero() {
			return key + " is all zeros", remedy + ", or remove the key"
		}
		if err != nil {
			return fmt.Sprintf("%s is %s, which is not an Ethernet address", key, shorten(word)), "write six octets in quotes, such as " + example(ptr)
		}
	}
	return "", remedy
}

// parseNumber accepts decimal numbers without a leading zero only: 010 is eight to some
// readers of YAML and ten to others.
func parseNumber(word string, v reflect.Value, key string) (problem, remedy string) {
	digits := strings.TrimPrefix(word, "-")
	if len(digits) > 1 && digits[0] == '0' || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return fmt.Sprintf("%s is %s, which is not a whole number", key, shorten(word)), "write decimal digits without a leading zero"
	}
	if v.CanUint() {
		n, err := strconv.ParseUint(word, 10, v.Type().Bits())
		if err != nil {
			remedy := "use a number from 0 that is smaller"
			if bits := v.Type().Bits(); bits < 64 {
				remedy = fmt.Sprintf("use 0 to %d", ^uint64(0)>>(64-bits))
			}
			return fmt.Sprintf("%s is %s, which is out of range", key, shorten(word)), remedy
		}
		v.SetUint(n)
		return "", ""
	}
	// 32 bits are plenty for every int of the configuration and the same on every machine.
	n, err := strconv.ParseInt(word, 10, 32)
	if err != nil {
		return fmt.Sprintf("%s is %s, which is out of range", key, shorten(word)), "use a smaller number"
	}
	v.SetInt(n)
	return "", ""
}

// queues decodes the word all or a list of numbers.
func (d *decoder) queues(n ast.Node, v reflect.Value, q *Queues, p place) {
	if word, ok := text(n); ok && word == "all" {
		*q = Queues{All: true}
		return
	}
	if _, ok := n.(*ast.SequenceNode); !ok {
		d.reject(n, v, p, "queues is neither all nor a list of queue numbers", "write all, or a list such as [0, 1]")
		return
	}
	q.All = false
	d.sequence(n, reflect.ValueOf(&q.List).Elem(), place{p.where, "a queue"})
}
