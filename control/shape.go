package control

import (
	"time"

	"xlvs/control/config"
	"xlvs/dataplane/table"
)

// shape fills in what a service goes by beyond one address and the flow's hash.
func shape(v *table.Service, c *config.Service) {
	width := c.Address.BitLen()
	if c.Address.Bits != 0 {
		v.Bits = uint8(128 - width + c.Address.Bits)
	}
	v.OnePacket = c.OnePacket
	mask := width
	if p := c.Persistence; p != nil {
		v.Persist, mask = uint32(p.Timeout/time.Millisecond), p.Mask
	}
	if v.BySource = c.Hash == "source"; v.BySource || v.Persist != 0 {
		v.Mask = table.MaskBits(128 - width + mask)
	}
}

// encapsulate fills in how TUN wraps packets for a backend.
func encapsulate(b *table.Backend, t *config.Tunnel) {
	if t == nil {
		return
	}
	switch t.Type {
	case "gue":
		b.Encap, b.EncapTo, b.EncapSum = table.GUE, t.Port, b.V6
	case "gre":
		b.Encap = table.GRE
	}
	if t.Checksum != nil {
		b.EncapSum = *t.Checksum
	}
}

// serverIDs are what the service's backends put into QUIC connection IDs; nil if nobody is to look.
func (s *service) serverIDs() *table.QUIC {
	c := s.conf.QUIC
	if c == nil {
		return nil
	}
	q := &table.QUIC{Config: uint8(c.ConfigID), Len: uint8(c.ServerIDLength)}
	for _, b := range s.backends {
		server := table.QUICServer{Backend: b.ref}
		copy(server.ID[:], b.conf.ServerID)
		q.Servers = append(q.Servers, server)
	}
	return q
}
