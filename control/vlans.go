package control

import (
	"fmt"
	"slices"

	"xlvs/control/config"
	"xlvs/control/flowlog"
	"xlvs/control/neigh"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
)

// A vlan is an interface of the kernel's that has the addresses of a VLAN on one of the director's interfaces: a VLAN interface
// on it, or on such a one (QinQ), or whatever the configuration says. Its frames come and leave by that interface, tagged. What tells it from others is where its frames go, and
// not its name: flows name its port for as long as the director lives.
type vlan struct {
	facts neigh.Facts
	trunk int
	tags  packet.Tags
	here  bool // false: the kernel has it no more; its port stays
}

// lookAtVLANs takes up which VLANs the kernel has on the director's interfaces. One whose interface vanished
// keeps its port, since flows name it.
func (c *Controller) lookAtVLANs() {
	vlans := slices.Clone(c.vlans)
	for i := range vlans {
		vlans[i].here = false
	}
	for _, v := range slices.Concat(c.configuredVLANs(), c.kernelVLANs()) {
		var err error
		vlans, err = c.takeIn(vlans, v)
		c.warn("neigh", v.facts.Name, err)
	}
	c.tellVLANs(vlans)
	c.mu.Lock()
	c.vlans = vlans
	c.mu.Unlock()
}

// takeIn adds v to vlans, or what is new about it.
func (c *Controller) takeIn(vlans []vlan, v vlan) ([]vlan, error) {
	f, on := &v.facts, &c.facts[v.trunk]
	k := slices.IndexFunc(vlans, func(o vlan) bool { return o.trunk == v.trunk && o.tags == v.tags })
	switch {
	case !v.here:
		return vlans, fmt.Errorf("%s, configured as a VLAN of %s: there is no interface of that name here (`ip link` lists them)", f.Name, on.Name)
	case !slices.Equal(f.MAC, on.MAC):
		return vlans, fmt.Errorf("%s has another MAC address than %s, whose steering program takes frames for its own only: give it %v", f.Name, on.Name, on.MAC)
	case k >= 0 && vlans[k].here:
		return vlans, nil // the configured one comes first
	case k >= 0:
		vlans[k] = v
		return vlans, nil
	case len(vlans) == table.MaxVLANs:
		return vlans, fmt.Errorf("%s is one VLAN too many: a director knows %d from its start on, those that are gone included", f.Name, table.MaxVLANs)
	}
	return append(vlans, v), nil
}

func (c *Controller) configuredVLANs() (out []vlan) {
	for i := range c.conf.Interfaces {
		for _, l := range c.conf.Interfaces[i].VLANs {
			v := vlan{trunk: i}
			if v.facts, v.here = c.neigh.Interface(l.Name); !v.here {
				v.facts.Name = l.Name
			}
			if l.Outer != 0 {
				v.tags = v.tags.Within(packet.EtherQinQ, uint16(l.Outer))
			}
			v.tags = v.tags.Within(packet.EtherVLAN, uint16(l.ID))
			out = append(out, v)
		}
	}
	return out
}

// kernelVLANs are those that the kernel calls VLANs of the director's interfaces.
func (c *Controller) kernelVLANs() (out []vlan) {
	all := c.neigh.VLANs()
	for _, f := range all {
		if trunk, tags := trunkOf(f, c.facts, all); trunk >= 0 {
			out = append(out, vlan{f, trunk, tags, true})
		}
	}
	return out
}

// trunkOf finds out on which of the director's interfaces f is a VLAN, and which tags its frames have there. A trunk of -1: on
// none. all are all VLANs.
func trunkOf(f neigh.Facts, interfaces, all []neigh.Facts) (trunk int, tags packet.Tags) {
	// From the inside out; an 802.1Q VLAN of an 802.1ad one is the only nesting that the packet path knows.
	var nested []neigh.VLAN
	for v := f.VLAN; len(nested) < 2; {
		nested = append(nested, v)
		if trunk = slices.IndexFunc(interfaces, func(i neigh.Facts) bool { return i.Index == v.Parent }); trunk >= 0 {
			for _, v := range slices.Backward(nested) {
				tags = tags.Within(v.Type, v.ID)
			}
			return trunk, tags
		}
		k := slices.IndexFunc(all, func(o neigh.Facts) bool { return o.Index == v.Parent })
		if k < 0 {
			break
		}
		v = all[k].VLAN
	}
	return -1, 0
}

// checkInterfaces refuses interfaces that are not there, and two of which one is a VLAN of the other: its frames come in by that one.
func (c *Controller) checkInterfaces() error {
	var facts []neigh.Facts
	for _, i := range c.conf.Interfaces {
		f, ok := c.neigh.Interface(i.Name)
		if !ok {
			return fmt.Errorf("interface %s: there is none of that name here (`ip link` lists them)", i.Name)
		}
		facts = append(facts, f)
	}
	for _, f := range facts {
		if trunk, _ := trunkOf(f, facts, c.neigh.VLANs()); trunk >= 0 {
			return fmt.Errorf("interface %s is a VLAN of %s, by which its frames come in: take it out of `interfaces`, the director finds it by itself",
				f.Name, facts[trunk].Name)
		}
	}
	return nil
}

// tellVLANs logs what comes up and goes down.
func (c *Controller) tellVLANs(vlans []vlan) {
	for i := range vlans {
		is, was := &vlans[i], vlan{}
		if i < len(c.vlans) {
			was = c.vlans[i]
		}
		switch up, wasUp := is.up(), was.up(); {
		case up && !wasUp:
			c.sayUp(is.facts.Name)
		case !up && wasUp:
			c.say(flowlog.LinkDown{Interface: was.facts.Name, Reason: whyDown(is.here)})
		}
	}
}

func (v *vlan) up() bool { return v.here && v.facts.Up }

// allFacts are what is known of all that VIPs are announced on: interfaces and the VLANs on them.
func (c *Controller) allFacts() []neigh.Facts {
	all := slices.Clone(c.facts)
	for _, v := range c.vlans {
		if v.here {
			all = append(all, v.facts)
		}
	}
	return all
}

// egress returns the port by which what the kernel would send by an interface has to leave. The error begins with the interface.
func (c *Controller) egress(name string, index int) (int, error) {
	if i := slices.IndexFunc(c.conf.Interfaces, func(i config.Interface) bool { return i.Name == name }); i >= 0 {
		if c.facts[i].Index != index {
			return 0, errMadeAnew(name)
		}
		return i, nil
	}
	if i := slices.IndexFunc(c.vlans, func(v vlan) bool { return v.here && v.facts.Index == index }); i >= 0 {
		return len(c.conf.Interfaces) + i, nil
	}
	if f, ok := c.neigh.Interface(name); ok && f.VLAN.Parent != 0 {
		return 0, fmt.Errorf("%s, a VLAN of none of `interfaces` that it could leave by: add that one there and restart the director", name)
	}
	return 0, fmt.Errorf("%s, which is not among `interfaces`: add it there and restart the director", name)
}
