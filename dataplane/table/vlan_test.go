package table

import (
	"strings"
	"testing"

	"xlvs/dataplane/packet"
)

func vlan(id uint16) packet.Tags { return packet.Tags(0).Within(packet.EtherVLAN, id) }

func TestVLANs(t *testing.T) {
	inner := packet.Tags(0).Within(packet.EtherQinQ, 10).Within(packet.EtherVLAN, 10)
	s, err := New(&Snapshot{Ports: []Port{{Name: "a"}, {Name: "b"}, {Name: "a.10", Tags: vlan(10)}, {Name: "b.10", Tags: vlan(10), Trunk: 1},
		{Name: "b.10.10", Tags: inner, Trunk: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	if s.Interfaces != 2 || !s.Tagged {
		t.Errorf("%d interfaces, tagged %v", s.Interfaces, s.Tagged)
	}
	for _, c := range []struct {
		in   int
		tags packet.Tags
		want int
	}{
		{0, vlan(10), 2}, {1, vlan(10), 3}, {1, inner, 4}, {0, inner, 0}, {0, vlan(11), 0}, {1, vlan(0), 1},
		{0, packet.Tags(0).Within(packet.EtherQinQ, 10), 0},
	} {
		if got := s.Enter(c.in, c.tags); got != c.want {
			t.Errorf("tags %#x on port %d come in by %d, want %d", c.tags, c.in, got, c.want)
		}
	}
	if s, err := New(&Snapshot{Ports: []Port{{Name: "a"}}}); err != nil || s.Tagged || s.Enter(0, vlan(1)) != 0 {
		t.Errorf("without VLANs: %v, %v", s, err)
	}
}

func TestVLANsRefused(t *testing.T) {
	many := []Port{{Name: "a"}}
	for i := range MaxVLANs + 1 {
		many = append(many, Port{Tags: vlan(uint16(i))})
	}
	if _, err := New(&Snapshot{Ports: many[:1+MaxVLANs]}); err != nil {
		t.Error(err)
	}
	for want, ports := range map[string][]Port{
		"limits":                  many,
		"b comes after VLANs":     {{Name: "a"}, {Name: "v", Tags: vlan(1)}, {Name: "b"}},
		"v is on port 1 of 1":     {{Name: "a"}, {Name: "v", Tags: vlan(1), Trunk: 1}},
		"v and w are the same":    {{Name: "a"}, {Name: "v", Tags: vlan(1)}, {Name: "w", Tags: vlan(1)}},
		"v is on port 0 of 0 int": {{Name: "v", Tags: vlan(1)}},
	} {
		if _, err := New(&Snapshot{Ports: ports}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want …%s…", err, want)
		}
	}
}
