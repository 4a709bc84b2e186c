package testenv

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"xlvs/dataplane/table"
)

// A Service is a virtual service that the lab's servers offer.
type Service struct {
	Name     string // web-dr-v4
	Mode     table.Mode
	Protocol string // tcp | udp
	Addr     netip.Addr
	Port     uint16
	Backends []Backend
}

// Key is the service's address and port.
func (s Service) Key() netip.AddrPort { return netip.AddrPortFrom(s.Addr, s.Port) }

// A Backend is a server as the director has to know it.
type Backend struct {
	Name   string
	Addr   netip.Addr
	Port   uint16
	Health uint16 // port of the HTTP service whose /healthz tells whether the server is well
	Server *Server
}

// Services lists the virtual services, for each mode and family: web-… (HTTP), echo-… (TCP) and dgram-… (UDP).
func (l *Lab) Services() []Service {
	var all []Service
	for _, m := range l.Options.Modes {
		for _, v6 := range families {
			all = append(all,
				l.service("web", m, v6, "tcp", HTTPPort),
				l.service("echo", m, v6, "tcp", EchoPort),
				l.service("dgram", m, v6, "udp", EchoPort))
		}
	}
	return all
}

func (l *Lab) service(kind string, m table.Mode, v6 bool, protocol string, port uint16) Service {
	s := Service{
		Name: fmt.Sprintf("%s-%s-%s", kind, m, family(v6)), Mode: m,
		Protocol: protocol, Addr: l.VIP(m, v6), Port: port,
	}
	for _, srv := range l.Group(m) {
		web, echo := srv.ports()
		b := Backend{Name: srv.Name, Addr: srv.Addr(v6), Port: web, Health: web, Server: srv}
		if port == EchoPort {
			b.Port = echo
		}
		s.Backends = append(s.Backends, b)
	}
	return s
}

func family(v6 bool) string {
	if v6 {
		return "v6"
	}
	return "v4"
}

// ConfigOptions choose what Config writes.
type ConfigOptions struct {
	API       string        // path of the API's socket; default: the director's own default
	LogFile   string        // default: the director's own default
	LogLevel  string        // default: the director's own default
	LogFlows  bool          // log every flow
	CPUs      []int         // default: the director's own choice
	Flows     int           // flow table entries per worker; default 65536, so that a lab needs little memory
	TableSize int           // Maglev slots; default: the director's own default
	Interval  time.Duration // between health checks; default 200 ms, and 2 failures in a row take a server down
	NoHealth  bool          // check nothing: every server counts as up

	// CrossTunnel makes TUN services use their servers' addresses of the other family: IPv4 through
	// IPv6 and IPv6 through IPv4.
	CrossTunnel bool

	// Only writes just the services for which it returns true; nil: all.
	Only func(Service) bool

	// Extra is YAML that is added to the director section, each line indented by two spaces.
	Extra string
}

// Config writes the director's configuration file for the lab.
func (l *Lab) Config(o ConfigOptions) string {
	var b strings.Builder
	l.writeDirector(&b, o)
	b.WriteString("interfaces:\n")
	for _, name := range l.DirectorInterfaces {
		fmt.Fprintf(&b, "  - name: %s\n", name)
	}
	l.writeVLANs(&b)
	b.WriteString("services:\n")
	for _, s := range l.Services() {
		if o.Only == nil || o.Only(s) {
			writeService(&b, s, o)
		}
	}
	return b.String()
}

func (l *Lab) writeDirector(b *strings.Builder, o ConfigOptions) {
	flows := o.Flows
	if flows == 0 {
		flows = 65536
	}
	fmt.Fprintf(b, "director:\n  flows: %d\n  seed: lab\n", flows)
	if len(o.CPUs) > 0 {
		fmt.Fprintf(b, "  cpus: [%s]\n", strings.Trim(strings.ReplaceAll(fmt.Sprint(o.CPUs), " ", ", "), "[]"))
	}
	if o.API != "" {
		fmt.Fprintf(b, "  api: %q\n", o.API)
	}
	var log []string
	if o.LogLevel != "" {
		log = append(log, "level: "+o.LogLevel)
	}
	if o.LogFile != "" {
		log = append(log, fmt.Sprintf("file: %q", o.LogFile))
	}
	if o.LogFlows {
		log = append(log, "flow_sample: 1, flow_rate: 1000000")
	}
	if len(log) > 0 {
		fmt.Fprintf(b, "  log: { %s }\n", strings.Join(log, ", "))
	}
	if o.Extra != "" {
		b.WriteString(strings.TrimRight(o.Extra, "\n") + "\n")
	}
}

func writeService(b *strings.Builder, s Service, o ConfigOptions) {
	fmt.Fprintf(b, "  - name: %s\n    address: %q\n    port: %d\n    protocol: %s\n    forward: %s\n",
		s.Name, s.Addr, s.Port, s.Protocol, s.Mode)
	if o.TableSize > 0 {
		fmt.Fprintf(b, "    table_size: %d\n", o.TableSize)
	}
	if !o.NoHealth && len(s.Backends) > 0 {
		interval := o.Interval
		if interval == 0 {
			interval = 200 * time.Millisecond
		}
		fmt.Fprintf(b, "    health: { type: http, path: /healthz, port: %d, interval: %s, timeout: %s, rise: 2, fall: 2 }\n",
			s.Backends[0].Health, interval, interval)
	}
	b.WriteString("    backends:\n")
	for _, k := range s.Backends {
		addr := k.Addr
		if o.CrossTunnel && s.Mode == table.TUN {
			addr = k.Server.Addr(!addr.Is6())
		}
		fmt.Fprintf(b, "      - { name: %s, address: %q, port: %d }\n", k.Name, addr, k.Port)
	}
}
