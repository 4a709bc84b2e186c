package datapath

import (
	"fmt"
	"strings"

	"xlvs/dataplane/xsk"
)

// keepTags makes all interfaces leave VLAN tags in frames, also where no VLAN is known of yet: a frame whose tag was taken out looks
// like one of the untagged network, and would be forwarded there. It comes before the sockets, because a NIC may
// have to be reset for it. Interfaces get back what was set before by Close.
func (d *Datapath) keepTags() error {
	for k := range d.infos {
		info := &d.infos[k]
		restore, stubborn, err := xsk.KeepTags(info.Name)
		if err != nil {
			return err
		}
		d.restore = append(d.restore, restore)
		if len(stubborn) > 0 {
			info.Notes = append(info.Notes, fmt.Sprintf("VLAN tags are taken out of received frames, and could not be left in: %s; tagged frames look untagged",
				strings.Join(stubborn, ", ")))
		}
	}
	return nil
}
