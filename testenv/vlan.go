package testenv

import (
	"errors"
	"fmt"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// Tags says how segments are told apart.
type Tags int

// The tags.
const (
	Untagged Tags = iota // by cables: a bridge a segment
	Tagged               // by an 802.1Q tag: one bridge for all
	QinQ                 // by an 802.1Q tag within an 802.1ad one
)

func (t Tags) String() string { return [...]string{"untagged", "tagged", "QinQ"}[t] }

const (
	trunk       = "br-trunk"
	serviceVLAN = 500
)

// tagInsertion are the offloads that keep a tag beside a frame instead of in it.
var tagInsertion = []string{"tx-vlan-hw-insert", "tx-vlan-stag-hw-insert"}

// ifname names the interface of a segment that a cable leads to.
func (l *Lab) ifname(cable string, s segment) string {
	switch l.Options.Tags {
	case Tagged:
		return fmt.Sprintf("%s.%d", cable, s.vlan)
	case QinQ:
		return fmt.Sprintf("%s.%d.%d", cable, serviceVLAN, s.vlan)
	}
	return cable
}

func (l *Lab) addSegments(segments ...segment) error {
	if l.Options.Tags != Untagged {
		return l.AddBridge(l.Switch, trunk, LinkOptions{MTU: l.trunkMTU()})
	}
	for _, s := range segments {
		if err := l.AddBridge(l.Switch, s.bridge, LinkOptions{MTU: l.Options.MTU}); err != nil {
			return err
		}
	}
	return nil
}

// trunkMTU leaves room for the inner tag of two: the kernel counts it as part of the packet.
func (l *Lab) trunkMTU() int {
	mtu := l.Options.MTU
	if mtu == 0 {
		mtu = 1500
	}
	if l.Options.Tags == QinQ {
		mtu += 4
	}
	return mtu
}

// plugTagged connects a cable of a host to the trunk, unless it is, and makes the interface of a segment on it.
func (l *Lab) plugTagged(h *Host, cable string, s segment, o LinkOptions) error {
	if _, err := h.nl.LinkByName(cable); err != nil {
		o.MTU = l.trunkMTU()
		if err := l.Plug(h, cable, trunk, h.port(cable), o); err != nil {
			return err
		}
		// In QinQ to the director only: the decapsulator of TUN servers knows one tag.
		if l.Options.Tags == Tagged || h == l.Director {
			if err := l.tagInFrame(h, cable); err != nil {
				return err
			}
		}
	}
	return l.addVLAN(h, cable, s)
}

// addVLAN makes the interface of a segment on a cable: the kernel's own kind, unless it has none.
func (l *Lab) addVLAN(h *Host, cable string, s segment) error {
	name, parent, mtu := l.ifname(cable, s), cable, l.Options.MTU
	tags := []tag{{unix.ETH_P_8021Q, uint16(s.vlan)}}
	if l.Options.Tags == QinQ {
		tags = append([]tag{{unix.ETH_P_8021AD, serviceVLAN}}, tags...)
		parent, mtu = fmt.Sprintf("%s.%d", cable, serviceVLAN), l.trunkMTU()-4
	}
	if !l.SoftVLANs && parent != cable {
		if _, err := h.nl.LinkByName(parent); err != nil {
			err := h.makeVLAN(parent, cable, tags[0], 0)
			if l.SoftVLANs = errors.Is(err, unix.EOPNOTSUPP); err != nil && !l.SoftVLANs {
				return err
			}
		}
	}
	if !l.SoftVLANs {
		err := h.makeVLAN(name, parent, tags[len(tags)-1], mtu)
		if l.SoftVLANs = errors.Is(err, unix.EOPNOTSUPP); !l.SoftVLANs {
			return err
		}
	}
	if h == l.Director {
		l.directorVLANs = append(l.directorVLANs, name)
	}
	return l.addSoftVLAN(h, name, cable, mtu, tags)
}

// tagInFrame makes the switch put tags into the frames that it sends to a host. A veth pair otherwise hands them over beside the
// frame, where no XDP program sees them: to it, all frames would be untagged.
func (l *Lab) tagInFrame(h *Host, cable string) error {
	off := map[string]bool{}
	for _, f := range tagInsertion {
		off[f] = false
	}
	return l.Switch.SetFeatures(h.port(cable), off)
}

// makeVLAN makes the kernel's interface for a VLAN of another one. mtu 0 is that one's.
func (h *Host) makeVLAN(name, parent string, t tag, mtu int) error {
	on, err := h.link(parent)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.MTU = name, on.Attrs().Index, mtu
	if err := h.nl.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: int(t.id), VlanProtocol: netlink.VlanProtocol(t.protocol)}); err != nil {
		return fmt.Errorf("make VLAN %d of %s on %s: %w", t.id, parent, h.Name, err)
	}
	return h.SetLink(name, true)
}

// writeVLANs writes the VLANs of the director's only interface that it cannot find by itself.
func (l *Lab) writeVLANs(b *strings.Builder) {
	if len(l.directorVLANs) == 0 {
		return
	}
	b.WriteString("    vlans:\n")
	for _, name := range l.directorVLANs {
		parts := strings.Split(name, ".")
		outer := ""
		if len(parts) > 2 {
			outer = ", outer: " + parts[1]
		}
		fmt.Fprintf(b, "      - { name: %s, id: %s%s }\n", name, parts[len(parts)-1], outer)
	}
}

// ServerTags returns the VLAN tags of the segment that the servers of a mode are on.
func (l *Lab) ServerTags(m table.Mode) (t packet.Tags) {
	if l.Options.Tags == Untagged {
		return 0
	}
	if l.Options.Tags == QinQ {
		t = t.Within(packet.EtherQinQ, serviceVLAN)
	}
	return t.Within(packet.EtherVLAN, uint16(l.plan.segmentOf(m).vlan))
}
