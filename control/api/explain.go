package api

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
)

// A Question asks where a new flow would go.
type Question struct {
	Proto    string // tcp | udp
	Src, Dst netip.AddrPort
}

// NewQuestion reads a question's three parts.
func NewQuestion(proto, src, dst string) (q Question, err error) {
	if proto != "tcp" && proto != "udp" {
		return q, fmt.Errorf("proto is %q; only tcp and udp are possible", proto)
	}
	q.Proto = proto
	for _, e := range []struct {
		name, text string
		into       *netip.AddrPort
	}{{"src", src, &q.Src}, {"dst", dst, &q.Dst}} {
		a, err := netip.ParseAddrPort(e.text)
		if err != nil {
			return q, fmt.Errorf("%s is %q, which is no address with a port, such as 192.0.2.1:80 or [2001:db8::1]:80", e.name, e.text)
		}
		*e.into = netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
	}
	if q.Src.Addr().Is4() != q.Dst.Addr().Is4() {
		return q, fmt.Errorf("src %s and dst %s are of different families", q.Src, q.Dst)
	}
	return q, nil
}

// An Explanation says where a new flow would go, and why.
type Explanation struct {
	Service  string     `json:"service"` // empty: none has this address, port and protocol
	Forward  string     `json:"forward,omitempty"`
	Hash     string     `json:"hash,omitempty"` // of the flow, or of its client's address, hexadecimal
	Slot     int        `json:"slot"`
	Slots    int        `json:"slots"`   // of the service's table; 0: no backend takes new flows
	Backend  string     `json:"backend"` // that has the slot; empty: none
	Address  netip.Addr `json:"address,omitzero"`
	Port     uint16     `json:"port,omitempty"`
	Reached  bool       `json:"reached"` // its next hop is known
	Backends []Share    `json:"backends"`
}

// A Share is what one backend of the service has of its table.
type Share struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
	Port    uint16     `json:"port"`
	Weight  int        `json:"weight"`
	Up      bool       `json:"up"`
	Reason  string     `json:"reason"`
	Slots   int        `json:"slots"`
	// Unreached is why there is no next hop; empty where there is one.
	Unreached string `json:"unreached,omitempty"`
}

// Explain asks where a new flow would go.
func (c *Client) Explain(ctx context.Context, q Question) (e Explanation, err error) {
	v := url.Values{"proto": {q.Proto}, "src": {q.Src.String()}, "dst": {q.Dst.String()}}
	return e, c.call(ctx, http.MethodGet, "/v1/explain?"+v.Encode(), &e)
}

func explain(src Source) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v := r.URL.Query()
		q, err := NewQuestion(v.Get("proto"), v.Get("src"), v.Get("dst"))
		if err != nil {
			reply(w, http.StatusBadRequest, Error{err.Error()})
			return
		}
		reply(w, http.StatusOK, src.Explain(q))
	}
}
