package config

import (
	"testing"
	"time"
)

func TestShapes(t *testing.T) {
	c, err := Load("testdata/good/shapes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	by := map[string]*Service{}
	for i := range c.Services {
		by[c.Services[i].Name] = &c.Services[i]
	}
	if s := by["single"]; s.Address.Bits != 0 || s.Address.String() != "203.0.113.10" || s.Hash != "source" || s.Tunnel != nil || s.Persistence != nil {
		t.Errorf("a prefix of one address is that address: %+v", s)
	}
	s := by["prefix"]
	if s.Address.String() != "203.0.113.16/28" || s.Hash != "tuple" || s.Tunnel.Port != 6080 || s.Tunnel.Checksum != nil {
		t.Errorf("%+v, tunnel %+v", s, s.Tunnel)
	}
	if p := *s.Persistence; p != (Persistence{360 * time.Second, 32}) {
		t.Errorf("persistence without keys is %+v", p)
	}
	if p := *by["prefix-in-it"].Persistence; p != (Persistence{5 * time.Minute, 24}) {
		t.Errorf("persistence is %+v", p)
	}
	if s := by["many"]; !s.OnePacket || s.Tunnel.Type != "gre" || !*s.Tunnel.Checksum || s.Tunnel.Port != 0 {
		t.Errorf("%+v, tunnel %+v", s, s.Tunnel)
	}
	s = by["six"]
	if p := *s.Persistence; p != (Persistence{360 * time.Second, 64}) || *s.QUIC != (QUIC{2, 3}) {
		t.Errorf("persistence %+v, QUIC %+v", p, s.QUIC)
	}
	if a, b := s.Backends[0].ServerID.String(), s.Backends[1].ServerID.String(); a != "0a01" || b != "1234" {
		t.Errorf("server IDs %s and %s", a, b)
	}
	if text, err := s.Address.MarshalText(); err != nil || string(text) != "2001:db8:f::/120" {
		t.Errorf("%s, %v", text, err)
	}
}

func TestVIPContains(t *testing.T) {
	var p, one VIP
	if err := p.UnmarshalText([]byte("203.0.113.16/28")); err != nil {
		t.Fatal(err)
	}
	if err := one.UnmarshalText([]byte("203.0.113.16")); err != nil {
		t.Fatal(err)
	}
	if !p.Contains(one.Addr) || !one.Contains(one.Addr) || one.Contains(one.Next()) || !p.Contains(one.Next()) || p.Contains(one.Prev()) {
		t.Error("a VIP does not know its own addresses")
	}
	if (VIP{}).Contains(one.Addr) {
		t.Error("no address contains one")
	}
}
