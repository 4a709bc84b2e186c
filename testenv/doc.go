// Package testenv builds network labs on one machine out of Linux network namespaces: a client,
// a director and real servers for each Linux Virtual Server mode, with IPv4 and IPv6 at once.
// The demo, the end-to-end tests and the performance lab use it. It speaks netlink itself (no ip
// command), needs CAP_NET_ADMIN and CAP_SYS_ADMIN, and never touches an interface of the host: every
// link is created inside a namespace of the lab, and no lab has a way out.
//
// Layout Switched: one segment, 10.0.0.0/16 and 2001:db8::/64, a bridge in the namespace "switch".
// The VIPs are addresses of the segment, so a client asks for them with ARP and neighbour
// discovery, and the director has to answer (the servers hold them on lo and keep silent).
//
//	 client            director           dr1..N           tun1..N           nat1..N
//	10.0.0.100         10.0.0.1         10.0.1.1..N      10.0.2.1..N       10.0.3.1..N
//	2001:db8::100      2001:db8::1      2001:db8::1:1..N 2001:db8::2:1..N  2001:db8::3:1..N
//	   │eth0              │eth0            │eth0             │eth0             │eth0
//	───┴──────────────────┴────────────────┴─────────────────┴─────────────────┴────── br-lan
//	VIPs: dr 10.0.0.11 2001:db8::11   tun 10.0.0.12 2001:db8::12   nat 10.0.0.13 2001:db8::13
//
// NAT servers share the segment with the client, but know no route to it: their addresses are
// /32 and /128, and all they can reach, they reach through the director.
//
// Layout Routed: four segments, each a bridge in the namespace "switch". The VIPs come from
// 203.0.113.0/24 and 2001:db8:f::/64, which the router sends to the director. A frame enters
// the director by eth0 and leaves by eth1. Replies of DR and TUN servers take the router's own leg.
//
//	 client 198.51.100.2, 2001:db8:c::2
//	   │eth0
//	───┴──┬─────────────────────────────────────────── br-client
//	      │eth0 198.51.100.1, 2001:db8:c::1
//	   router ── eth1 10.1.0.254, 2001:db8:1::fe ───┐
//	  │eth3 │eth2                                   ├─ br-front
//	  │     │            director ── eth0 10.1.0.1, 2001:db8:1::1
//	  │     │10.2.0.254     │eth1 10.2.0.1, 2001:db8:2::1
//	  │     │2001:db8:2::fe │
//	  │  ───┴───────────────┴────┬──────────────┬───── br-back
//	  │                          │eth0          │eth0
//	  │                       dr1..N         nat1..N
//	  │                   10.2.1.1..N        10.2.3.1..N
//	  │            2001:db8:2::1:1..N        2001:db8:2::3:1..N
//	  │            (default: router)         (default: director)
//	  │10.3.0.254, 2001:db8:3::fe
//	──┴────────────┬────────────────────────────────── br-far
//	               │eth0
//	            tun1..N  10.3.2.1..N, 2001:db8:3::2:1..N (default: router)
//
//	VIPs: dr 203.0.113.11 2001:db8:f::11   tun .12 ::12   nat .13 ::13
//
// With Options.Tags, all segments are VLANs of one bridge, br-trunk: 10 (Switched), or 11 (client), 12 (front), 13 (back)
// and 14 (far), and with QinQ within the service VLAN 500. Every host's eth<n> is a trunk, and eth<n>.<vlan>, or
// eth<n>.500.<vlan>, has its addresses. The director has one cable, eth0, for both its segments.
//
// Every namespace is bind-mounted in /run/netns, where `ip netns exec` finds it, as
// xlvs-<pid>-<host> (xlvs-<pid>.<n>-<host> for further labs of the same process). Ends that hang
// in "switch" are called <host>-<n> for interface eth<n> of the host.
package testenv
