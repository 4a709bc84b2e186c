package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Verdict is what a check says of its target.
type Verdict uint8

// None is the verdict of a check that this host could not make (no descriptor, no local port, no memory):
// it says nothing about the backend, and taking every backend down for it would turn a local
// shortage into an outage.
const (
	None Verdict = iota
	Good
	Bad
)

func (v Verdict) String() string { return [...]string{"none", "good", "bad"}[v] }

// A Result is the outcome of one check.
type Result struct {
	Verdict Verdict
	Reason  string // for people
	Latency time.Duration
	silent  bool // nothing came back in time
}

type dialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// A checker checks one target; check must return soon after its context ends.
type checker interface {
	check(ctx context.Context) Result
	close()
}

func newChecker(t Target, dial dialFunc) checker {
	switch t.Spec.Type {
	case TCP:
		return &tcpChecker{t, dial}
	case HTTP:
		return newHTTPChecker(t, dial)
	}
	return badChecker(fmt.Sprintf("unknown type of health check %q: want tcp or http", t.Spec.Type))
}

// badChecker fails for what configuration should have refused.
type badChecker string

func (c badChecker) check(context.Context) Result { return Result{Verdict: Bad, Reason: string(c)} }
func (c badChecker) close()                       {}

type tcpChecker struct {
	target Target
	dial   dialFunc
}

func (c *tcpChecker) check(ctx context.Context) Result {
	conn, err := c.dial(ctx, "tcp", c.target.Addr.String())
	if err != nil {
		return failure(err, c.target)
	}
	abort(conn)
	return Result{Verdict: Good, Reason: "connected to " + c.target.Addr.String()}
}

func (c *tcpChecker) close() {}

// abort closes with a reset, so that thousands of checks leave no sockets in TIME_WAIT.
func abort(c net.Conn) {
	lingerZero(c)
	c.Close()
}

func lingerZero(c net.Conn) {
	if t, ok := c.(interface{ SetLinger(int) error }); ok {
		// It fails only on a connection that is already gone.
		_ = t.SetLinger(0)
	}
}

// maxBody is how much of an answer's body is read, maxHeader of its header.
const (
	maxBody   = 64 << 10
	maxHeader = 64 << 10
)

type httpChecker struct {
	target    Target
	url       *url.URL
	host      string
	transport *http.Transport
}

func newHTTPChecker(t Target, dial dialFunc) checker {
	path := t.Spec.Path
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	u, err := url.Parse("http://" + t.Addr.String() + path)
	if err != nil {
		return badChecker(fmt.Sprintf("health check path %q: %v", t.Spec.Path, err))
	}
	c := &httpChecker{target: t, url: u, host: t.Spec.Host}
	if c.host == "" {
		c.host = hostHeader(t.Addr)
	}
	c.transport = &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			conn, err := dial(ctx, network, t.Addr.String())
			if err == nil {
				lingerZero(conn)
			}
			return conn, err
		},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
	return c
}

// hostHeader is the address as a Host header (RFC 9110, 7.2): IPv6 in brackets, the default port left out.
func hostHeader(a netip.AddrPort) string {
	if a.Port() != 80 {
		return a.String()
	}
	return strings.TrimSuffix(a.String(), ":80")
}

func (c *httpChecker) check(ctx context.Context) Result {
	req := (&http.Request{Method: http.MethodGet, URL: c.url, Host: c.host, Header: http.Header{
		"User-Agent": {"xlvs-health"},
		"Accept":     {"*/*"},
	}}).WithContext(ctx)
	// RoundTrip and not a Client: a redirect is an answer to be judged, not to be followed.
	resp, err := c.transport.RoundTrip(req)
	if err != nil {
		return failure(err, c.target)
	}
	defer resp.Body.Close()
	if !accepted(resp.StatusCode, c.target.Spec.Status) {
		return Result{Verdict: Bad, Reason: fmt.Sprintf("status %d, wanted %s", resp.StatusCode, wanted(c.target.Spec.Status))}
	}
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxBody)); err != nil {
		return failure(err, c.target)
	}
	return Result{Verdict: Good, Reason: fmt.Sprintf("status %d", resp.StatusCode)}
}

func (c *httpChecker) close() { c.transport.CloseIdleConnections() }

func accepted(code int, status []int) bool {
	if len(status) == 0 {
		return code >= 200 && code <= 299
	}
	return slices.Contains(status, code)
}

func wanted(status []int) string {
	if len(status) == 0 {
		return "200–299"
	}
	s := make([]string, len(status))
	for i, c := range status {
		s[i] = strconv.Itoa(c)
	}
	return strings.Join(s, ", ")
}

// failure turns an error into a result that a person understands.
func failure(err error, t Target) Result {
	bad := func(format string, a ...any) Result {
		return Result{Verdict: Bad, Reason: fmt.Sprintf(format, a...)}
	}
	var netErr net.Error
	for _, local := range []error{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM, syscall.EPERM} {
		if errors.Is(err, local) {
			return Result{Verdict: None, Reason: fmt.Sprintf("this host could not make the check: %v", local)}
		}
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		r := bad("no answer in %v", t.Spec.Timeout)
		r.silent = true
		return r
	case errors.Is(err, syscall.ECONNREFUSED):
		return bad("connection refused by %v", t.Addr)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return bad("connection reset by %v", t.Addr)
	case errors.Is(err, syscall.EHOSTUNREACH):
		return bad("%v is unreachable: it answers no address resolution, or a router says so", t.Addr.Addr())
	case errors.Is(err, syscall.ENETUNREACH):
		return bad("no route to %v", t.Addr.Addr())
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return bad("%v closed the connection without a whole answer", t.Addr)
	}
	return bad("%v", err)
}
