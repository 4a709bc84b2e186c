package config

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// VIP is the address of a service, or a prefix: then Addr is its first address and Bits its length. The zero Bits means
// that Addr is the only one.
type VIP struct {
	netip.Addr
	Bits int
}

// String returns what the configuration file would say.
func (a VIP) String() string {
	if a.Bits == 0 || !a.IsValid() {
		return a.Addr.String()
	}
	return a.Prefix().String()
}

// MarshalText returns the form of String.
func (a VIP) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText parses an address, or one with the length of its prefix.
func (a *VIP) UnmarshalText(text []byte) error {
	word := string(text)
	if !strings.Contains(word, "/") {
		addr, err := netip.ParseAddr(word)
		*a = VIP{Addr: addr}
		return err
	}
	p, err := netip.ParsePrefix(word)
	if err == nil && p.Bits() == 0 {
		err = fmt.Errorf("%s is every address", word)
	}
	*a = VIP{p.Addr(), p.Bits()}
	if p.IsSingleIP() {
		a.Bits = 0
	}
	return err
}

// Prefix returns all of the service's addresses as a prefix.
func (a VIP) Prefix() netip.Prefix {
	if a.Bits == 0 {
		return netip.PrefixFrom(a.Addr, a.BitLen())
	}
	return netip.PrefixFrom(a.Addr, a.Bits)
}

// Contains reports whether b is one of the service's addresses.
func (a VIP) Contains(b netip.Addr) bool { return a.IsValid() && a.Prefix().Contains(b) }

// Tunnel is what `forward: tun` puts between the outer and the inner IP header.
type Tunnel struct {
	Type     string `yaml:"type"`     // ipip (default) | gue | gre
	Port     uint16 `yaml:"port"`     // gue: UDP port of the real servers (default 6080)
	Checksum *bool  `yaml:"checksum"` // gue: an outer UDP checksum (default: over IPv6 only); gre: a checksum (default: none)
}

// Persistence keeps the new flows of a client at the backend of its earlier ones.
type Persistence struct {
	Timeout time.Duration `yaml:"timeout"` // after the last new flow (default 360s)
	Mask    int           `yaml:"mask"`    // bits of the client address that count (default: all)
}

// QUIC says how servers make their connection IDs (draft-ietf-quic-load-balancers, unencrypted).
type QUIC struct {
	ServerIDLength int `yaml:"server_id_length"` // bytes, 1 to 15
	ConfigID       int `yaml:"config_id"`        // config rotation codepoint, 0 (default) to 6
}

// A ServerID is what a backend puts into its QUIC connection IDs; nil: none was configured.
type ServerID []byte

// UnmarshalText parses hexadecimal digits, two a byte.
func (s *ServerID) UnmarshalText(text []byte) (err error) {
	*s, err = hex.DecodeString(string(text))
	return err
}

// String returns what the configuration file would say.
func (s ServerID) String() string { return hex.EncodeToString(s) }
