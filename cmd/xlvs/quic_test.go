package main_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"

	"xlvs/dataplane/table"
	"xlvs/testenv"
)

const quicPort = 4433

// routable makes connection IDs of draft-ietf-quic-load-balancers, unencrypted: config rotation 2, a server ID of two
// bytes, and a nonce of six.
type routable struct{ id [2]byte }

func (r routable) ConnectionIDLen() int { return 9 }

func (r routable) GenerateConnectionID() (quic.ConnectionID, error) {
	b := make([]byte, 9)
	if _, err := rand.Read(b); err != nil {
		return quic.ConnectionID{}, err
	}
	b[0], b[1], b[2] = 2<<5|8, r.id[0], r.id[1]
	return quic.ConnectionIDFromBytes(b), nil
}

// quicServices is the configuration of a service for each mode and family on the servers of a switched lab.
func quicServices(servers int) string {
	var b strings.Builder
	for _, m := range []table.Mode{table.DR, table.TUN, table.NAT} {
		for _, v6 := range []bool{false, true} {
			vip, server := "10.0.0.%d", "10.0.%d.%d"
			if v6 {
				vip, server = "2001:db8::%d", "2001:db8::%x:%x"
			}
			fmt.Fprintf(&b, "  - name: quic-%s-v6-%v\n    address: \"%s\"\n    port: %d\n    protocol: udp\n    forward: %s\n", m, v6, fmt.Sprintf(vip, 11+int(m)), quicPort, m)
			b.WriteString("    quic: { server_id_length: 2, config_id: 2 }\n    backends:\n")
			for n := 1; n <= servers; n++ {
				fmt.Fprintf(&b, "      - { name: %s%d, address: \"%s\", server_id: \"%02x%02x\" }\n", m, n, fmt.Sprintf(server, 1+int(m), n), int(m), n)
			}
		}
	}
	return b.String()
}

// serveQUIC answers on each stream with the server's name and the client's address, as the server sees it.
func serveQUIC(t *testing.T, s *testenv.Server, addr netip.Addr, id [2]byte, cert tls.Certificate) {
	t.Helper()
	c, err := s.Host.ListenPacket("udp", netip.AddrPortFrom(addr, quicPort).String())
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: c, ConnectionIDGenerator: routable{id}}
	ln, err := tr.Listen(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"name"}}, &quic.Config{DisablePathMTUDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept(context.Background())
			if err != nil {
				return // closed
			}
			go func() {
				for {
					str, err := conn.AcceptStream(context.Background())
					if err != nil {
						return
					}
					fmt.Fprintf(str, "%s %s", s.Name, conn.RemoteAddr())
					_ = str.Close()
				}
			}()
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		_ = tr.Close()
		_ = c.Close()
		<-done
	})
}

func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "lab"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// clientTransport is a QUIC transport on a port of the client's that was not used before.
func clientTransport(t *testing.T, w *world, v6 bool) *quic.Transport {
	t.Helper()
	addr := map[bool]string{false: "0.0.0.0:0", true: "[::]:0"}[v6]
	c, err := w.Client.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	tr := &quic.Transport{Conn: c}
	t.Cleanup(func() {
		_ = tr.Close()
		_ = c.Close()
	})
	return tr
}

// askQUIC opens a stream and returns which server answers, and the address that it sees.
func askQUIC(ctx context.Context, t *testing.T, conn *quic.Conn) (server, from string) {
	t.Helper()
	str, err := conn.OpenStreamSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = str.Close()
	// A stream that nothing was sent on is unknown to the server until its end is.
	answer, err := io.ReadAll(str)
	if err != nil {
		t.Fatal(err)
	}
	server, from, _ = strings.Cut(string(answer), " ")
	return server, from
}

// A client of a real QUIC library moves its connection from port to port, and stays at its server, in every mode.
func TestQUICMigration(t *testing.T) {
	// quic-go's server follows a connection to two further paths, so it takes several to see many moves: by their hashes
	// alone they would all stay once in hundreds of runs.
	const servers, connections, moves = 3, 3, 2
	w := start(t, setup{lab: testenv.Options{Servers: servers}, edit: func(c string) string { return c + quicServices(servers) }})
	cert := selfSigned(t)
	for _, m := range []table.Mode{table.DR, table.TUN, table.NAT} {
		for n, s := range w.Group(m) {
			for _, v6 := range []bool{false, true} {
				addr := s.VIP(v6)
				if m == table.NAT {
					addr = s.Addr(v6)
				}
				serveQUIC(t, s, addr, [2]byte{byte(m), byte(n + 1)}, cert)
			}
		}
	}
	eachRow(t, w, func(t *testing.T, m table.Mode, v6 bool) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for range connections {
			if n := roam(ctx, t, w, m, v6, moves); n != moves+1 {
				t.Errorf("the server has seen the client at %d addresses; it moved %d times", n, moves)
			}
		}
	})
}

// roam opens a connection and moves it to new ports. It returns at how many addresses the server saw the client.
func roam(ctx context.Context, t *testing.T, w *world, m table.Mode, v6 bool, moves int) int {
	t.Helper()
	to := net.UDPAddrFromAddrPort(netip.AddrPortFrom(w.VIP(m, v6), quicPort))
	conn, err := clientTransport(t, w, v6).Dial(ctx, to, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"name"}},
		&quic.Config{DisablePathMTUDiscovery: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.CloseWithError(0, "") }()
	home, from := askQUIC(ctx, t, conn)
	seen := map[string]bool{from: true}
	for move := range moves {
		path, err := conn.AddPath(clientTransport(t, w, v6))
		if err != nil {
			t.Fatal(err)
		}
		if err := path.Probe(ctx); err != nil {
			t.Fatalf("move %d: the new path does not lead to the server: %v", move, err)
		}
		if err := path.Switch(); err != nil {
			t.Fatal(err)
		}
		// The server switches when it gets the first packet on the new path that is more than a probe.
		for {
			at, from := askQUIC(ctx, t, conn)
			if at != home {
				t.Fatalf("move %d: %s answers instead of %s", move, at, home)
			}
			if !seen[from] {
				seen[from] = true
				break
			}
		}
	}
	return len(seen)
}
