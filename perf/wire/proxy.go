package wire

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// RunProxy is the least that a TCP proxy can be: it accepts on listen, connects to one server after the other, and has
// the kernel move the bytes in both directions (splice(2)). It is what the director's modes are compared with. It returns
// when ctx ends, without an error, or when it cannot listen.
func RunProxy(ctx context.Context, listen string, servers []string) error {
	if len(servers) == 0 {
		return errors.New("proxy: no servers")
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	var next atomic.Uint64
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		server := servers[next.Add(1)%uint64(len(servers))]
		wg.Go(func() { relay(ctx, c, server) })
	}
}

// relay moves bytes between a client and a server until both have ended.
func relay(ctx context.Context, client net.Conn, server string) {
	defer client.Close()
	var d net.Dialer
	s, err := d.DialContext(ctx, "tcp", server)
	if err != nil {
		return // the client sees its connection closed
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { _ = client.Close(); _ = s.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { pipe(s, client) })
	pipe(client, s)
	wg.Wait()
}

// pipe copies until from ends, and tells to.
func pipe(to, from net.Conn) {
	_, _ = io.Copy(to, from) // an error ends the connection, as an end does
	if t, ok := to.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
}
