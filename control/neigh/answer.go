package neigh

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// nudValid are the states in which an entry has a MAC that may be used (NUD_VALID of net/neighbour.h).
const nudValid = netlink.NUD_PERMANENT | netlink.NUD_NOARP | netlink.NUD_REACHABLE | netlink.NUD_PROBE |
	netlink.NUD_STALE | netlink.NUD_DELAY

func (a answer) equal(o answer) bool {
	if (a.err == nil) != (o.err == nil) {
		return false
	}
	if a.err != nil {
		return a.err.Error() == o.err.Error()
	}
	return a.hop.equal(o.hop)
}

// answer is what Lookup will say of w, whose route is p.
func (r *Resolver) answer(w Want, p path) answer {
	if p.err != nil {
		return answer{err: p.err}
	}
	link := r.seen[p.route.ifindex]
	h := Hop{
		Ifindex: link.Index, Interface: link.Name, SrcMAC: link.MAC, DstMAC: w.MAC,
		Gateway: p.route.gateway, Source: p.route.source, MTU: link.MTU,
	}
	if p.route.mtu > 0 && p.route.mtu < h.MTU {
		h.MTU = p.route.mtu
	}
	if w.MAC != nil {
		return answer{hop: h}
	}
	n, ok := r.table[p.key]
	switch {
	case ok && valid(n):
		h.DstMAC = n.mac
		return answer{hop: h}
	case link.Checking6 && w.Addr.Is6():
		return answer{err: fmt.Errorf("%v is on %s, whose own IPv6 addresses the kernel uses only when it has seen that nobody else has them (duplicate address detection): a few seconds",
			w.Addr, link.Name)}
	case h.Gateway.IsValid():
		return answer{err: fmt.Errorf("%v is behind %v on %s, no answer to %s yet", w.Addr, h.Gateway, link.Name, protocol(p.key))}
	}
	return answer{err: fmt.Errorf("%v is on %s, no answer to %s yet", w.Addr, link.Name, protocol(p.key))}
}

func protocol(k neighKey) string {
	if k.addr.Is4() {
		return "ARP"
	}
	return "neighbour solicitation"
}

func downError(addr netip.Addr, link Facts) error {
	return cutError(fmt.Sprintf("%v is on %s, which is down or has no carrier", addr, link.Name))
}

// noRoute says why there is no route to addr, as far as can be known: with an interface that is set down the kernel removes the
// routes over it, and without its address those to the address's subnet.
func (r *Resolver) noRoute(addr netip.Addr) error {
	family := "IPv6"
	if addr.Is4() {
		family = "IPv4"
	}
	last, found := r.last[addr]
	link, here := r.seen[last]
	switch {
	case !found:
		return cutError(fmt.Sprintf("no route to %v", addr))
	case !here:
		return cutError(fmt.Sprintf("no route to %v: the interface that it was on is gone", addr))
	case !link.Up:
		return downError(addr, link)
	case !slices.ContainsFunc(link.Addrs, func(p netip.Prefix) bool {
		return p.Addr().Is4() == addr.Is4() && (addr.Is4() || !p.Addr().IsLinkLocalUnicast())
	}):
		return cutError(fmt.Sprintf("no route to %v: %s, which it was on, has no %s address any more; give it back (`ip address add`)", addr, link.Name, family))
	}
	return cutError(fmt.Sprintf("no route to %v: there is none over %s any more; set it again (`ip route add`)", addr, link.Name))
}

func joinErrors(errs []error) error {
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("next hops: %w", err)
	}
	return nil
}
