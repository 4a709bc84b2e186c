package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
)

// Queues selects receive queues of an interface: `all`, or a list of queue indices.
type Queues struct {
	All  bool
	List []int
}

// UnmarshalYAML accepts the word all or a list of numbers.
func (q *Queues) UnmarshalYAML(data []byte) error {
	if strings.TrimSpace(string(data)) == "all" {
		*q = Queues{All: true}
		return nil
	}
	var list []int
	if err := yaml.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("%q is neither all nor a list of queue numbers", strings.TrimSpace(string(data)))
	}
	*q = Queues{List: list}
	return nil
}

// String returns what the configuration file would say.
func (q Queues) String() string {
	if q.All {
		return "all"
	}
	words := make([]string, len(q.List))
	for i, n := range q.List {
		words[i] = strconv.Itoa(n)
	}
	return "[" + strings.Join(words, ", ") + "]"
}

// MAC is an Ethernet address. The zero MAC means that none was configured.
type MAC [6]byte

// UnmarshalText parses six octets in any notation of net.ParseMAC.
func (m *MAC) UnmarshalText(text []byte) error {
	hw, err := net.ParseMAC(string(text))
	if err != nil || len(hw) != len(m) {
		return fmt.Errorf("%q is not an Ethernet address", text)
	}
	copy(m[:], hw)
	return nil
}

// MarshalText returns the form of String, and nothing for the zero MAC.
func (m MAC) MarshalText() ([]byte, error) {
	if m.IsZero() {
		return nil, nil
	}
	return []byte(m.String()), nil
}

// UnmarshalYAML accepts a quoted or plain scalar.
func (m *MAC) UnmarshalYAML(data []byte) error {
	return m.UnmarshalText([]byte(strings.Trim(strings.TrimSpace(string(data)), `"'`)))
}

// IsZero reports that no address was configured.
func (m MAC) IsZero() bool { return m == MAC{} }

// String returns six octets with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }
