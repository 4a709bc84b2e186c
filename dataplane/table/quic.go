package table

import (
	"encoding/binary"
	"fmt"

	"xlvs/dataplane/packet"
)

// QUIC says how to read connection IDs that servers made as draft-ietf-quic-load-balancers has it, unencrypted:
//
//	config rotation(3 bits) length or random(5 bits) | server ID | nonce …
type QUIC struct {
	Config  uint8 // config rotation codepoint, 0 to 6
	Len     uint8 // bytes of a server ID, 1 to 15
	Servers []QUICServer

	index index
}

// A QUICServer is a backend with the server ID that it puts into its connection IDs; further bytes are 0.
type QUICServer struct {
	ID      [16]byte
	Backend Ref
}

const (
	quicLongHeader = 0x80 // first bit of a packet (RFC 8999, 5)
	quicLeastNonce = 4    // bytes of a connection ID behind the server ID
)

func (s *Snapshot) buildQUIC() error {
	for i := range s.Services {
		v := &s.Services[i]
		if !v.Live || v.QUIC == nil {
			continue
		}
		q := *v.QUIC
		if q.Config > 6 || q.Len < 1 || q.Len > 15 {
			return fmt.Errorf("snapshot: service %s: QUIC config %d (0 to 6) with server IDs of %d bytes (1 to 15)", v.Name, q.Config, q.Len)
		}
		q.index = newIndex(len(q.Servers))
		for _, server := range q.Servers {
			if b := s.Backend(server.Backend); b == nil || b.Service != v.Ref {
				return fmt.Errorf("snapshot: service %s has a QUIC server ID for %#x, which is no backend of it", v.Name, server.Backend)
			}
			if other := q.index.put(packet.Addr16(server.ID[:]), used, int32(server.Backend.Slot())); other >= 0 {
				return fmt.Errorf("snapshot: service %s has server ID % x twice", v.Name, server.ID[:q.Len])
			}
		}
		v.QUIC = &q
	}
	return nil
}

// Server returns the slot of the backend that the connection ID of UDP payload b names, of a packet with a long header or a short one
// in any version of QUIC (RFC 8999, 5). It is -1 where none is named: for an unknown server or another config, and for a
// connection ID, or a packet, too short to have been made so. A client's first packets have a connection ID of its own
// choice; one that happens to name a server counts, as the draft has it: all these packets come to the same server.
func (q *QUIC) Server(b []byte) int32 {
	const longID = 6 // behind flags, version and the connection ID's length
	if len(b) == 0 {
		return -1
	}
	id := b[1:]
	if b[0]&quicLongHeader != 0 {
		if len(b) < longID || len(b)-longID < int(b[longID-1]) {
			return -1
		}
		id = b[longID:][:b[longID-1]]
	}
	if len(id) < 1+int(q.Len)+quicLeastNonce || id[0]>>5 != q.Config {
		return -1
	}
	var server [16]byte
	copy(server[:q.Len], id[1:])
	return q.index.get(packet.Addr{A: binary.LittleEndian.Uint64(server[:]), B: binary.LittleEndian.Uint64(server[8:])}, used)
}
