package control

import (
	"net/netip"

	"xlvs/control/announce"
	"xlvs/control/flowlog"
)

// announced are the lines that the log has of VIPs that are answered for.
type announced map[flowlog.VIPAnnounced]bool

// announceAll makes the announcer answer for the VIPs that want it. Where it does is its business; its error names the
// interfaces that do not work.
func (c *Controller) announceAll() error {
	var vips []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, s := range c.services {
		if s.conf.Announce == "off" {
			continue
		}
		for a := s.conf.Address.Addr; s.conf.Address.Contains(a); a = a.Next() {
			if !seen[a] {
				seen[a] = true
				vips = append(vips, a)
			}
		}
	}
	var ifs []announce.Interface
	macs := map[string][6]byte{}
	for _, f := range c.facts {
		ifs = append(ifs, announce.Interface{Name: f.Name, Index: f.Index, MAC: f.MAC, Addrs: f.Addrs, Up: f.Up, Ups: f.Ups, NoARP: f.NoARP})
		macs[f.Name] = mac(f.MAC)
	}
	err := c.parts.announce.Set(ifs, vips)
	now := announced{}
	for _, st := range c.parts.announce.Status() {
		for _, v := range st.VIPs {
			line := flowlog.VIPAnnounced{Address: v, MAC: macs[st.Interface], Interface: st.Interface}
			now[line] = true
			if !c.vips[line] {
				c.say(line)
			}
		}
	}
	c.vips = now
	return err
}
