package testenv

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"
)

// DialContext connects from inside the namespace, like net.Dialer. address must be an IP address and a
// port: a name would be looked up by other threads, in another namespace.
func (h *Host) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dial from %s: %w", h.Name, err)
	}
	d := net.Dialer{FallbackDelay: -1}
	d.SetMultipathTCP(false)
	var conn net.Conn
	err := h.Do(func() (err error) {
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Dial is DialContext without a context.
func (h *Host) Dial(network, address string) (net.Conn, error) {
	return h.DialContext(context.Background(), network, address)
}

// Listen opens a listening socket inside the namespace. It is plain TCP, not Multipath TCP
// as Go's default is, because a director sees subflows as separate connections.
func (h *Host) Listen(network, address string) (net.Listener, error) {
	var c net.ListenConfig
	c.SetMultipathTCP(false)
	var l net.Listener
	err := h.Do(func() (err error) {
		l, err = c.Listen(context.Background(), network, address)
		return err
	})
	return l, err
}

// ListenPacket opens a datagram socket inside the namespace.
func (h *Host) ListenPacket(network, address string) (net.PacketConn, error) {
	var c net.PacketConn
	err := h.Do(func() (err error) {
		c, err = net.ListenPacket(network, address)
		return err
	})
	return c, err
}

// HTTPOptions configure an HTTPClient. The zero value opens a connection for each request.
type HTTPOptions struct {
	KeepAlive bool          // use connections again
	Timeout   time.Duration // of a whole request; 0 means 10 s
}

// An HTTPClient is a client in a namespace, with connections of its own and counters.
type HTTPClient struct {
	http.Client
	transport                       *http.Transport
	connections, requests, failures atomic.Uint64
}

// HTTPCounts are what a client has done so far. A failure is a request without a response; a
// response with an error status is none.
type HTTPCounts struct{ Connections, Requests, Failures uint64 }

// HTTPClient returns a new client. Closing the lab closes its idle connections.
func (h *Host) HTTPClient(o HTTPOptions) *HTTPClient {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	c := &HTTPClient{}
	c.transport = &http.Transport{
		DisableKeepAlives:   !o.KeepAlive,
		DisableCompression:  true,
		MaxIdleConnsPerHost: 1000,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := h.DialContext(ctx, network, address)
			if err == nil {
				c.connections.Add(1)
			}
			return conn, err
		},
	}
	c.Client = http.Client{Transport: counted{c}, Timeout: o.Timeout}
	h.lab.atClose(func() error { c.transport.CloseIdleConnections(); return nil })
	return c
}

// Counts returns the counters.
func (c *HTTPClient) Counts() HTTPCounts {
	return HTTPCounts{c.connections.Load(), c.requests.Load(), c.failures.Load()}
}

type counted struct{ c *HTTPClient }

func (t counted) RoundTrip(r *http.Request) (*http.Response, error) {
	t.c.requests.Add(1)
	resp, err := t.c.transport.RoundTrip(r)
	if err != nil {
		t.c.failures.Add(1)
	}
	return resp, err
}

// CloseIdleConnections lets http.Client.CloseIdleConnections work.
func (t counted) CloseIdleConnections() { t.c.transport.CloseIdleConnections() }
