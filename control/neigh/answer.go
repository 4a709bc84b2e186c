package neigh

import (
	"errors"
	"fmt"

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

func joinErrors(errs []error) error {
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("next hops: %w", err)
	}
	return nil
}
