package testenv

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"

	"xlvs/dataplane/table"
)

// Ports of the services. NAT servers listen on ports of their own, so that the director has to
// translate ports too.
const (
	HTTPPort    = 80
	EchoPort    = 7
	NATHTTPPort = 8080
	NATEchoPort = 7007
)

// A Server is a real server: a host with an HTTP service and TCP and UDP echo services. DR and TUN servers
// offer them on the VIPs, and HTTP on their own addresses too, for health checks; NAT servers on their own
// addresses. New starts it, and Close of the lab stops it.
type Server struct {
	*Host
	Mode table.Mode

	lab    *Lab
	v4, v6 netip.Addr

	connections, requests atomic.Uint64

	mu        sync.Mutex
	listening []stopper // nil while stopped
}

// A stopper is a listening service that can be ended at once.
type stopper interface{ stop() error }

// Addr returns the server's own address.
func (s *Server) Addr(v6 bool) netip.Addr {
	if v6 {
		return s.v6
	}
	return s.v4
}

// VIP returns the virtual address that the server's mode serves; a NAT server does not hold it.
func (s *Server) VIP(v6 bool) netip.Addr { return s.lab.VIP(s.Mode, v6) }

// Connections returns how many TCP connections were accepted on service addresses so far, checks of a
// DR or TUN server's health (which come to its own address) excluded, those of a NAT server included.
func (s *Server) Connections() uint64 { return s.connections.Load() }

// Requests returns how many HTTP requests but health checks (/healthz) and how many UDP datagrams were served.
func (s *Server) Requests() uint64 { return s.requests.Load() }

// ports returns where the director reaches HTTP and echo on the server.
func (s *Server) ports() (http, echo uint16) {
	if s.Mode == table.NAT {
		return NATHTTPPort, NATEchoPort
	}
	return HTTPPort, EchoPort
}

// Start starts the services; on a running server it does nothing.
func (s *Server) Start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listening != nil {
		return nil
	}
	for _, v6 := range families {
		if err := s.listen(v6); err != nil {
			return errors.Join(fmt.Errorf("start the services of %s: %w", s.Name, err), s.stopLocked())
		}
	}
	return nil
}

func (s *Server) listen(v6 bool) error {
	service := s.Addr(v6)
	if s.Mode != table.NAT {
		service = s.VIP(v6)
		own := netip.AddrPortFrom(s.Addr(v6), HTTPPort)
		if err := s.serveHTTP(own, nil); err != nil {
			return err
		}
	}
	http, echo := s.ports()
	if err := s.serveHTTP(netip.AddrPortFrom(service, http), &s.connections); err != nil {
		return err
	}
	if err := s.echoTCP(netip.AddrPortFrom(service, echo)); err != nil {
		return err
	}
	return s.echoUDP(netip.AddrPortFrom(service, echo))
}

// Stop ends all services as if the process had been killed: connections are reset, and new ones are refused.
// On a stopped server it does nothing.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopLocked()
}

func (s *Server) stopLocked() error {
	var errs []error
	for _, l := range s.listening {
		errs = append(errs, l.stop())
	}
	s.listening = nil
	return errors.Join(errs...)
}

// Running tells whether the services are started.
func (s *Server) Running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listening != nil
}

func (l *Lab) startServices() error {
	for _, s := range l.Servers {
		l.atClose(s.Stop)
		if l.Options.NoServices {
			continue
		}
		if err := s.Start(); err != nil {
			return err
		}
	}
	return nil
}
