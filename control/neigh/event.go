package neigh

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Sizes of struct ndmsg, ifinfomsg and rtattr (include/uapi/linux).
const (
	sizeofNdmsg     = 12
	sizeofIfinfomsg = 16
	sizeofRtattr    = 4
)

// parseEvent reads one rtnetlink message: typ from its header, data what follows the header. ok is false for what tells nothing.
func parseEvent(typ uint16, data []byte) (e event, ok bool) {
	switch typ {
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		n, ok := parseNeighbour(data)
		if !ok {
			return event{}, false
		}
		return event{neigh: &n, gone: typ == unix.RTM_DELNEIGH}, true
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(data) < sizeofIfinfomsg || data[0] == unix.AF_BRIDGE {
			return event{}, false
		}
		return event{
			refresh: true, ifindex: int(int32(binary.NativeEndian.Uint32(data[4:]))),
			running: typ == unix.RTM_NEWLINK && running(binary.NativeEndian.Uint32(data[8:])),
		}, true
	case unix.RTM_NEWADDR, unix.RTM_DELADDR, unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return event{refresh: true}, true
	}
	return event{}, false
}

// parseNeighbour reads an ndmsg and its attributes. It refuses the forwarding entries of bridges and
// proxy entries, which come in the same messages. netlink.NeighDeserialize would do, but it panics on short attributes.
//
//	 0      1   4       8     10    11   12
//	|family|pad|ifindex|state|flags|type|attributes …
func parseNeighbour(data []byte) (n neighbour, ok bool) {
	if len(data) < sizeofNdmsg || data[0] != unix.AF_INET && data[0] != unix.AF_INET6 {
		return n, false
	}
	n.key.ifindex = int(int32(binary.NativeEndian.Uint32(data[4:])))
	n.state = int(binary.NativeEndian.Uint16(data[8:]))
	n.flags = int(data[10])
	for b := data[sizeofNdmsg:]; len(b) >= sizeofRtattr; {
		size := int(binary.NativeEndian.Uint16(b))
		if size < sizeofRtattr || size > len(b) {
			return n, false
		}
		value := b[sizeofRtattr:size:size]
		switch binary.NativeEndian.Uint16(b[2:]) {
		case netlink.NDA_DST:
			a, _ := netip.AddrFromSlice(value)
			n.key.addr = a.Unmap()
		case netlink.NDA_LLADDR:
			n.mac = slices.Clone(value)
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return n, n.key.addr.IsValid() && n.flags&netlink.NTF_PROXY == 0
}
