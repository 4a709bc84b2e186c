package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"xlvs/testenv"
)

// A conn is one HTTP connection whose local port is known even if it could not be opened, so that the
// director's log can tell which backend it was sent to.
type conn struct {
	port uint16
	c    net.Conn
	r    *bufio.Reader
}

// ports hands out local ports, each once. They lie below those that Linux takes by itself.
type ports struct{ next uint16 }

const firstPort, lastPort = 10000, 32000

func (p *ports) take() (uint16, error) {
	if p.next < firstPort {
		p.next = firstPort
	}
	if p.next > lastPort {
		return 0, errors.New("out of local ports")
	}
	p.next++
	return p.next - 1, nil
}

// dial opens a connection from a port of its own.
func dial(ctx context.Context, from *testenv.Host, port uint16, to netip.AddrPort) (*conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{Port: int(port)}, Timeout: answerLimit}
	d.SetMultipathTCP(false)
	k := &conn{port: port}
	err := from.Do(func() (err error) {
		k.c, err = d.DialContext(ctx, "tcp", to.String())
		return err
	})
	if err != nil {
		return nil, err
	}
	k.r = bufio.NewReader(k.c)
	return k, nil
}

// answerLimit is how long a request may take before it counts as failed.
const answerLimit = 5 * time.Second

// get asks for the server's name, and leaves the connection open if keep says so.
func (k *conn) get(keep bool) (backend string, err error) {
	if err := k.c.SetDeadline(time.Now().Add(answerLimit)); err != nil {
		return "", err
	}
	end := "close"
	if keep {
		end = "keep-alive"
	}
	if _, err := fmt.Fprintf(k.c, "GET / HTTP/1.1\r\nHost: demo\r\nConnection: %s\r\n\r\n", end); err != nil {
		return "", err
	}
	resp, err := http.ReadResponse(k.r, nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "", err
	}
	return resp.Header.Get(testenv.BackendHeader), nil
}

// A request is one HTTP request on a connection of its own.
type request struct {
	Began   time.Time
	Port    uint16 // the client's
	Backend string // that answered
	Err     error
}

// A load sends requests at a steady rate, whether earlier ones are answered or not, until stop is called.
type load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu   sync.Mutex
	done []request
	err  error
}

func startLoad(ctx context.Context, from *testenv.Host, to netip.AddrPort, rate int, p *ports) *load {
	ctx, cancel := context.WithCancel(ctx)
	l := &load{cancel: cancel}
	l.wg.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			port, err := p.take()
			if err != nil {
				l.mu.Lock()
				l.err = err
				l.mu.Unlock()
				return
			}
			l.wg.Go(func() { l.one(from, to, port) })
		}
	})
	return l
}

// one sends a request. It is not ended by stop, which lets requests that have begun run to their end.
func (l *load) one(from *testenv.Host, to netip.AddrPort, port uint16) {
	r := request{Began: time.Now(), Port: port}
	k, err := dial(context.Background(), from, port, to)
	if err == nil {
		r.Backend, err = k.get(false)
		k.c.Close()
	}
	r.Err = err
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = append(l.done, r)
}

// stop returns all requests, in no particular order.
func (l *load) stop() ([]request, error) {
	l.cancel()
	l.wg.Wait()
	return l.done, l.err
}

// kept are connections that stay open, each with the backend that answered it first.
type kept map[*conn]string

// keep opens n connections.
func keep(ctx context.Context, from *testenv.Host, to netip.AddrPort, n int, p *ports) (kept, error) {
	open := kept{}
	for range n {
		port, err := p.take()
		if err != nil {
			return open, err
		}
		k, err := dial(ctx, from, port, to)
		if err != nil {
			return open, fmt.Errorf("open a connection to keep: %w", err)
		}
		if open[k], err = k.get(true); err != nil {
			return open, fmt.Errorf("first request on a connection to keep: %w", err)
		}
	}
	return open, nil
}

// check asks on every connection again. It returns how many were not with the dead backend, and how many of
// those no longer work or are answered by another backend than before.
func (open kept) check(dead string) (others, moved int) {
	for k, was := range open {
		if was == dead {
			continue
		}
		others++
		if now, err := k.get(true); err != nil || now != was {
			moved++
		}
	}
	return others, moved
}

func (open kept) close() {
	for k := range open {
		k.c.Close()
	}
}
