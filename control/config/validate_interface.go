package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

func (v *validator) interfaces(c *Config) {
	if v.bad[&c.Interfaces] {
		return
	}
	if len(c.Interfaces) == 0 {
		v.value(&c.Interfaces, "", "there is no interface to work on", "add interfaces: with at least one, such as - name: eth0", c)
	}
	if len(c.Interfaces) > maxInterfaces {
		v.value(&c.Interfaces, "", fmt.Sprintf("there are %d interfaces", len(c.Interfaces)), fmt.Sprintf("a director works on at most %d; remove some", maxInterfaces))
	}
	names, owners, vlans := make(map[string]position), make(map[netip.Addr]string), 0
	for i := range c.Interfaces {
		in := &c.Interfaces[i]
		if v.bad[in] {
			continue
		}
		where := label("interface", i, in.Name)
		v.name(&in.Name, in, where, "interface", names)
		v.interfaceName(&in.Name, where, in)
		v.queues(in, where)
		v.word(&in.RSS, where, "rss", in.RSS, []string{"auto", "keep"}, in)
		v.word(&in.Attach, where, "attach", in.Attach, []string{"auto", "native", "generic"}, in)
		v.word(&in.Bind, where, "bind", in.Bind, []string{"auto", "zerocopy", "copy"}, in)
		if in.Attach == "generic" && in.Bind == "zerocopy" {
			v.value(&in.Bind, where, "zerocopy does not work with attach: generic", "use bind: copy, or attach: native", in)
		}
		v.mac(&in.MAC, where, in)
		v.addresses(in.Addresses, where, owners, in)
		v.mtu(&in.MTU, in.Addresses, where, in)
		v.vlans(in, where, names, owners)
		vlans += len(in.VLANs)
	}
	if vlans > maxVLANs {
		v.value(&c.Interfaces, "", fmt.Sprintf("there are %d VLANs in all", vlans), fmt.Sprintf("a director has at most %d; remove some", maxVLANs))
	}
}

func (v *validator) vlans(in *Interface, where string, names map[string]position, owners map[netip.Addr]string) {
	type tags struct{ outer, id int }
	seen := map[tags]bool{}
	for i := range in.VLANs {
		l := &in.VLANs[i]
		if v.bad[l] {
			continue
		}
		where := where + ": " + label("VLAN", i, l.Name)
		v.name(&l.Name, l, where, "interface", names)
		v.interfaceName(&l.Name, where, l)
		if l.ID == 0 && !v.given(&l.ID) {
			v.value(&l.ID, where, "the VLAN has no id", "add the number of its tag, such as id: 100", l)
			continue
		}
		ok := v.number(&l.ID, where, "id", l.ID, 1, maxVLAN, l)
		if l.Outer != 0 || v.given(&l.Outer) {
			ok = v.number(&l.Outer, where, "outer", l.Outer, 1, maxVLAN, l) && ok
		}
		if t := (tags{l.Outer, l.ID}); ok && seen[t] {
			v.value(&l.ID, where, fmt.Sprintf("VLAN %d is listed twice", l.ID), "list each VLAN of an interface once", l)
		} else {
			seen[t] = true
		}
		v.addresses(l.Addresses, where, owners, l)
		v.mtu(&l.MTU, l.Addresses, where, l)
	}
}

// interfaceName applies dev_valid_name of net/core/dev.c; name has already checked spaces and slashes.
func (v *validator) interfaceName(field *string, where string, in any) {
	switch name := *field; {
	case len(name) > maxInterfaceName:
		v.value(field, where, fmt.Sprintf("the name has %d bytes", len(name)), fmt.Sprintf("Linux allows at most %d; write it as ip link shows it", maxInterfaceName), in)
	case name == "lo":
		v.value(field, where, "lo is the loopback interface, which has no network behind it", "name the interface that clients' packets come in by", in)
	case strings.Contains(name, "@"):
		short, _, _ := strings.Cut(name, "@")
		v.value(field, where, "what ip link shows behind @ is the interface's peer or parent, and no part of its name", "write name: "+short, in)
	case name == "." || name == ".." || strings.Contains(name, ":"):
		v.value(field, where, "Linux has no interfaces of this name", "write it as ip link shows it, without the colon", in)
	}
}

func (v *validator) queues(in *Interface, where string) {
	q := &in.Queues
	if v.given(&in.Channels) {
		v.number(&in.Channels, where, "channels", in.Channels, 1, maxQueue+1, in)
	}
	if q.All {
		return
	}
	if len(q.List) == 0 {
		v.value(q, where, "queues is an empty list", "write all, or a list such as [0, 1]", in)
	}
	for i, n := range q.List {
		switch {
		case n < 0 || n > maxQueue:
			v.value(&q.List[i], where, fmt.Sprintf("queue %d does not exist", n), fmt.Sprintf("queues count from 0 to %d; ethtool -l shows how many there are", maxQueue), q, in)
		case slices.Contains(q.List[:i], n):
			v.value(&q.List[i], where, fmt.Sprintf("queue %d is listed twice", n), "list each queue once", q, in)
		case in.Channels > 0 && n >= in.Channels:
			v.value(&q.List[i], where, fmt.Sprintf("queue %d does not exist with channels: %d", n, in.Channels), "queues count from 0; give it more channels, or list fewer queues", q, in)
		}
	}
}

func (v *validator) addresses(list []netip.Prefix, where string, owners map[netip.Addr]string, in any) {
	for i := range list {
		field := &list[i]
		if v.bad[field] {
			continue
		}
		a := field.Addr()
		if other, taken := owners[a]; taken {
			v.value(field, where, fmt.Sprintf("address %s is already on %s", a, other), "give each address to one interface", in)
			continue
		}
		owners[a] = where
		if !field.IsValid() || a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() || a.Is4In6() {
			v.value(field, where, fmt.Sprintf("%s is not the address of a host", field), "write the interface's own unicast address with its prefix length, such as 192.0.2.1/24", in)
		}
	}
}

// mtu checks against the least that IPv4 (RFC 791) and IPv6 (RFC 8200, section 5) demand of a link.
func (v *validator) mtu(field *int, addresses []netip.Prefix, where string, in any) {
	if *field == 0 && !v.given(field) {
		return
	}
	least := 68
	if slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		least = 1280
	}
	v.number(field, where, "mtu", *field, least, 65535, in)
}
