package testenv

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
)

// BackendHeader is the response header that names the server that answered.
const BackendHeader = "X-Backend"

// maxBytes bounds what /bytes/N sends.
const maxBytes = 1 << 30

// handler is the HTTP service of a server:
//
//	GET  /          the server's name
//	GET  /healthz   "ok"; not counted as a request
//	GET  /bytes/N   N bytes
//	POST /upload    the number of bytes received and their SHA-256: "1048576 30e14955…"
//
// Every response carries the server's name in BackendHeader.
func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") })
	mux.HandleFunc("GET /{$}", s.count(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, s.Name+"\n") }))
	mux.HandleFunc("GET /bytes/{n}", s.count(sendBytes))
	mux.HandleFunc("POST /upload", s.count(receive))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(BackendHeader, s.Name)
		mux.ServeHTTP(w, r)
	})
}

func (s *Server) count(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		h(w, r)
	}
}

func sendBytes(w http.ResponseWriter, r *http.Request) {
	n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
	if err != nil || n < 0 || n > maxBytes {
		http.Error(w, fmt.Sprintf("the number of bytes is from 0 to %d", maxBytes), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	// An error means that the client has gone.
	_, _ = io.CopyN(w, &pattern{}, n)
}

// A pattern reads as 0, 1, … 250 over and over: a period that no power of two hides.
type pattern struct{ next byte }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = p.next
		if p.next++; p.next == 251 {
			p.next = 0
		}
	}
	return len(b), nil
}

func receive(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	n, err := io.Copy(sum, r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	fmt.Fprintf(w, "%d %x\n", n, sum.Sum(nil))
}

// serveHTTP listens on addr; counter, if any, counts connections.
func (s *Server) serveHTTP(addr netip.AddrPort, counter *atomic.Uint64) error {
	l, err := s.track(addr, counter)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: s.handler(), ErrorLog: log.New(io.Discard, "", 0)}
	l.onStop = srv.Close
	l.wg.Go(func() { _ = srv.Serve(l) }) // ends with ErrServerClosed or with the listener
	return nil
}

func (s *Server) echoTCP(addr netip.AddrPort) error {
	l, err := s.track(addr, &s.connections)
	if err != nil {
		return err
	}
	l.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			l.wg.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c) // ends when either side does
			})
		}
	})
	return nil
}

// A listener remembers its connections, to be able to reset them.
type listener struct {
	net.Listener
	counter *atomic.Uint64
	onStop  func() error
	wg      sync.WaitGroup

	mu    sync.Mutex
	conns map[*trackedConn]struct{} // nil when stopped
}

type trackedConn struct {
	*net.TCPConn
	l *listener
}

func (s *Server) track(addr netip.AddrPort, counter *atomic.Uint64) (*listener, error) {
	inner, err := s.Listen("tcp", addr.String())
	if err != nil {
		return nil, err
	}
	l := &listener{Listener: inner, counter: counter, conns: map[*trackedConn]struct{}{}}
	s.listening = append(s.listening, l)
	return l, nil
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	t := &trackedConn{c.(*net.TCPConn), l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conns == nil {
		return nil, errors.Join(net.ErrClosed, t.reset())
	}
	l.conns[t] = struct{}{}
	if l.counter != nil {
		l.counter.Add(1)
	}
	return t, nil
}

func (c *trackedConn) Close() error {
	c.l.mu.Lock()
	delete(c.l.conns, c)
	c.l.mu.Unlock()
	return c.TCPConn.Close()
}

// reset closes with a RST instead of a FIN, as the kernel does when a process with unread data dies.
func (c *trackedConn) reset() error {
	return errors.Join(c.SetLinger(0), c.TCPConn.Close())
}

func (l *listener) stop() error {
	err := l.Close()
	l.mu.Lock()
	conns := l.conns
	l.conns = nil
	l.mu.Unlock()
	for c := range conns {
		// The connection may end by itself at this very moment.
		if e := c.reset(); e != nil && !errors.Is(e, net.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	if l.onStop != nil {
		if e := l.onStop(); !errors.Is(e, net.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	l.wg.Wait()
	return err
}

// A datagrams echoes UDP.
type datagrams struct {
	net.PacketConn
	wg sync.WaitGroup
}

func (s *Server) echoUDP(addr netip.AddrPort) error {
	// A socket bound to the VIP answers from the VIP.
	c, err := s.ListenPacket("udp", addr.String())
	if err != nil {
		return err
	}
	d := &datagrams{PacketConn: c}
	s.listening = append(s.listening, d)
	d.wg.Go(func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := c.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // an ICMP error about an earlier answer
			}
			s.requests.Add(1)
			_, _ = c.WriteTo(buf[:n], from) // UDP promises nothing
		}
	})
	return nil
}

func (d *datagrams) stop() error {
	err := d.Close()
	d.wg.Wait()
	return err
}
