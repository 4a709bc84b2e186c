package main_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xlvs/dataplane/table"
	"xlvs/testenv"
)

// TestTTLRunsOut does what traceroute does: with a TTL of 1 the director answers for itself.
func TestTTLRunsOut(t *testing.T) {
	w := start(t, setup{lab: testenv.Options{Servers: 1}})
	eth0, err := w.Director.Netlink().LinkByName("eth0")
	fatal(t, err)
	addrs, err := w.Director.Netlink().AddrList(eth0, unix.AF_UNSPEC)
	fatal(t, err)
	own := map[bool]netip.Addr{}
	for _, a := range addrs {
		if ip, _ := netip.AddrFromSlice(a.IP); !ip.IsLinkLocalUnicast() {
			own[ip.Unmap().Is6()] = ip.Unmap()
		}
	}
	eachRow(t, w, func(t *testing.T, m table.Mode, v6 bool) {
		want := icmpError{unix.SO_EE_ORIGIN_ICMP, 11, own[v6]}
		if v6 {
			want = icmpError{unix.SO_EE_ORIGIN_ICMP6, 3, own[v6]}
		}
		for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
			if got := oneHop(t, w, kind, netip.AddrPortFrom(w.VIP(m, v6), testenv.EchoPort)); got != want {
				t.Errorf("socket type %d with a TTL of 1: %+v; want %+v", kind, got, want)
			}
		}
	})
	if n := w.drops(t)["ttl"]; n < 12 {
		t.Errorf("%d drops were counted for their TTL, want 12 or more", n)
	}
}

// An icmpError is what the kernel keeps of an ICMP message in a socket's error queue (ip(7), IP_RECVERR).
type icmpError struct {
	origin, icmpType uint8
	from             netip.Addr
}

// oneHop sends a datagram or a SYN with a TTL of 1 and returns the error that comes of it.
func oneHop(t *testing.T, w *world, kind int, to netip.AddrPort) icmpError {
	t.Helper()
	family, level, ttl, recvErr := unix.AF_INET, unix.IPPROTO_IP, unix.IP_TTL, unix.IP_RECVERR
	var sa unix.Sockaddr
	if to.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	} else {
		family, level, ttl, recvErr = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, unix.IPV6_RECVERR
		sa = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	fd := -1
	fatal(t, w.Client.Do(func() (err error) {
		fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	defer unix.Close(fd)
	fatal(t, unix.SetsockoptInt(fd, level, ttl, 1))
	fatal(t, unix.SetsockoptInt(fd, level, recvErr, 1))
	if err := unix.Connect(fd, sa); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		t.Fatal(err)
	}
	if kind == unix.SOCK_DGRAM {
		_, err := unix.Write(fd, []byte("one hop"))
		fatal(t, err)
	}
	var found icmpError
	until(t, "an ICMP error is in the socket's queue", func() bool {
		oob := make([]byte, 512)
		_, n, _, _, err := unix.Recvmsg(fd, make([]byte, 512), oob, unix.MSG_ERRQUEUE)
		if err != nil {
			return false
		}
		found = parseError(t, oob[:n])
		return true
	})
	return found
}

// parseError reads a struct sock_extended_err (include/uapi/linux/errqueue.h) and the sockaddr of the offender behind it.
func parseError(t *testing.T, oob []byte) icmpError {
	t.Helper()
	messages, err := unix.ParseSocketControlMessage(oob)
	fatal(t, err)
	for _, m := range messages {
		if len(m.Data) < 16+8 {
			continue
		}
		from := m.Data[16:]
		e := icmpError{origin: m.Data[4], icmpType: m.Data[5]}
		switch binary.NativeEndian.Uint16(from) {
		case unix.AF_INET:
			e.from = netip.AddrFrom4([4]byte(from[4:]))
		case unix.AF_INET6:
			e.from = netip.AddrFrom16([16]byte(from[8:]))
		}
		return e
	}
	t.Fatalf("%d control messages without an error", len(messages))
	return icmpError{}
}

// TestNoBackend asks services that have nobody to serve them: from the start, and after the last server has died.
func TestNoBackend(t *testing.T) {
	w := start(t, setup{
		lab: testenv.Options{Modes: []table.Mode{table.DR, table.NAT}, Servers: 1},
		edit: func(s string) string {
			s = strings.ReplaceAll(s, "    forward: dr\n", "    forward: dr\n    no_backend: reject\n")
			for i, ip := range []string{"10.0.0.11", "2001:db8::11"} {
				for _, protocol := range []string{"tcp", "udp"} {
					s += fmt.Sprintf("  - { name: nobody-%s-%d, address: %q, port: 99, protocol: %s, forward: dr, no_backend: reject }\n", protocol, i, ip, protocol)
				}
			}
			return s
		},
	})
	refused := func(t *testing.T, v6 bool, port uint16) {
		t.Helper()
		to := netip.AddrPortFrom(w.VIP(table.DR, v6), port).String()
		began := time.Now()
		if _, err := w.Client.Dial("tcp", to); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("tcp %s: %v, want connection refused", to, err)
		}
		c, err := w.Client.Dial("udp", to)
		fatal(t, err)
		defer c.Close()
		if err := echo(c, []byte("anybody?")); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("udp %s: %v, want connection refused", to, err)
		}
		if d := time.Since(began); d > time.Second {
			t.Errorf("%s: the refusals took %v", to, d)
		}
	}
	for _, v6 := range []bool{false, true} {
		refused(t, v6, 99)
	}
	for _, name := range []string{"dr1", "nat1"} {
		fatal(t, w.Server(name).Stop())
	}
	until(t, "no backend is up", func() bool {
		st, err := w.dir.API.Status(t.Context())
		return err == nil && st.Up == 0
	})
	for _, v6 := range []bool{false, true} {
		refused(t, v6, testenv.EchoPort)
	}
	// A service that does not reject is silent.
	dropped := w.drops(t)["no_backend"]
	d := net.Dialer{Timeout: 300 * time.Millisecond}
	err := w.Client.Do(func() error {
		_, err := d.Dial("tcp", netip.AddrPortFrom(w.VIP(table.NAT, false), testenv.EchoPort).String())
		return err
	})
	if nerr := net.Error(nil); !errors.As(err, &nerr) || !nerr.Timeout() {
		t.Errorf("a service without reject: %v, want a timeout", err)
	}
	if n := w.drops(t)["no_backend"]; n <= dropped {
		t.Errorf("no_backend drops: %d, and %d before", n, dropped)
	}
}
