package control

import (
	"net/netip"
	"reflect"

	"xlvs/control/announce"
	"xlvs/control/flowlog"
)

// vips is what the announcer was last asked for, and what the log has told of it.
type vips struct {
	of   []*service
	ifs  []announce.Interface
	done bool // it worked
	told map[flowlog.VIPAnnounced]bool
}

// announceAll makes the announcer answer for the VIPs that want it. Where it does is its business; its error names the
// interfaces that do not work.
func (c *Controller) announceAll() error {
	var ifs []announce.Interface
	macs, up := map[string][6]byte{}, map[string]bool{}
	for _, f := range c.allFacts() {
		ifs = append(ifs, announce.Interface{Name: f.Name, Index: f.Index, MAC: f.MAC, Addrs: f.Addrs, Up: f.Up, Ups: f.Ups, NoARP: f.NoARP})
		macs[f.Name], up[f.Name] = mac(f.MAC), f.Up
	}
	// A prefix can be many thousand VIPs: not for each health result.
	if c.vips.done && sameArray(c.vips.of, c.services) && reflect.DeepEqual(c.vips.ifs, ifs) {
		return nil
	}
	err := c.parts.announce.Set(ifs, addresses(c.services))
	told := map[flowlog.VIPAnnounced]bool{}
	for _, st := range c.parts.announce.Status() {
		for _, v := range st.VIPs {
			line := flowlog.VIPAnnounced{Address: v, MAC: macs[st.Interface], Interface: st.Interface}
			if c.vips.told[line] {
				told[line] = true
			} else if up[st.Interface] {
				told[line] = true
				c.say(line)
			}
		}
	}
	c.vips = vips{of: c.services, ifs: ifs, done: err == nil, told: told}
	return err
}

// addresses are the VIPs that are to be answered for, each once.
func addresses(services []*service) (out []netip.Addr) {
	seen := map[netip.Addr]bool{}
	for _, s := range services {
		if s.conf.Announce == "off" {
			continue
		}
		for a := s.conf.Address.Addr; s.conf.Address.Contains(a); a = a.Next() {
			if !seen[a] {
				seen[a] = true
				out = append(out, a)
			}
		}
	}
	return out
}
