package table

import (
	"fmt"

	"xlvs/dataplane/packet"
)

// buildPorts tells interfaces from VLANs and indexes the latter.
func (s *Snapshot) buildPorts() error {
	s.Interfaces = 0
	for s.Interfaces < len(s.Ports) && s.Ports[s.Interfaces].Tags == 0 {
		s.Interfaces++
	}
	vlans := s.Ports[s.Interfaces:]
	if s.Interfaces > MaxPorts || len(vlans) > MaxVLANs {
		return fmt.Errorf("snapshot: %d interfaces with %d VLANs; the limits are %d and %d", s.Interfaces, len(vlans), MaxPorts, MaxVLANs)
	}
	s.Tagged, s.vlans = len(vlans) > 0, newIndex(len(vlans))
	for i, p := range vlans {
		switch {
		case p.Tags == 0:
			return fmt.Errorf("snapshot: interface %s comes after VLANs", p.Name)
		case int(p.Trunk) >= s.Interfaces:
			return fmt.Errorf("snapshot: VLAN %s is on port %d of %d interfaces", p.Name, p.Trunk, s.Interfaces)
		}
		if other := s.vlans.put(vlanKey(int(p.Trunk), p.Tags), used, int32(s.Interfaces+i)); other >= 0 {
			return fmt.Errorf("snapshot: VLANs %s and %s are the same", s.Ports[other].Name, p.Name)
		}
	}
	return nil
}

func vlanKey(trunk int, t packet.Tags) packet.Addr {
	return packet.Addr{A: uint64(t), B: uint64(trunk)}
}

// Enter returns the port by which a frame with tags t comes that interface in received: the VLAN's, or in itself
// where it knows none with these tags.
func (s *Snapshot) Enter(in int, t packet.Tags) int {
	if port := s.vlans.get(vlanKey(in, t), used); port >= 0 {
		return int(port)
	}
	return in
}
