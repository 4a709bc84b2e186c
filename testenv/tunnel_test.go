package testenv

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"xlvs/dataplane/table"
)

// The client wraps a datagram as a director would, in all four combinations of families; the answer comes
// from the VIP, unwrapped, and not by way of the director.
func TestTunnelServersUnwrap(t *testing.T) {
	for name, decap := range map[string]Decapper{"own": DefaultDecap, "kernel": KernelDecap} {
		for _, layout := range []Layout{Switched, Routed} {
			t.Run(fmt.Sprintf("%s/%s", name, layout), func(t *testing.T) {
				needRoot(t)
				o := Options{Layout: layout, Servers: 1, Modes: []table.Mode{table.TUN}, Decap: decap}
				l, err := New(t.Context(), o)
				if errors.Is(err, ErrNoTunnel) {
					t.Skip(err)
				}
				if err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := l.Close(); err != nil {
						t.Error(err)
					}
				}()
				for _, outer := range families {
					for _, inner := range families {
						echoThroughTunnel(t, l, outer, inner)
					}
				}
			})
		}
	}
}

func echoThroughTunnel(t *testing.T, l *Lab, outer, inner bool) {
	t.Helper()
	vip := netip.AddrPortFrom(l.VIP(table.TUN, inner), EchoPort)
	c, err := l.Client.ListenPacket("udp", netip.AddrPortFrom(l.plan.client(inner), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	from := c.LocalAddr().(*net.UDPAddr).AddrPort()
	network := map[bool]string{false: "ip4", true: "ip6"}[outer] + map[bool]string{false: ":4", true: ":41"}[inner]
	if err := l.Client.Do(func() error {
		tunnel, err := net.Dial(network, l.Server("tun1").Addr(outer).String())
		if err != nil {
			return err
		}
		defer tunnel.Close()
		_, err = tunnel.Write(datagram(t, from, vip, "hello"))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(3 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	n, who, err := c.ReadFrom(buf)
	if err != nil || string(buf[:n]) != "hello" || who.(*net.UDPAddr).AddrPort() != vip {
		t.Errorf("%s in %s: %q from %v, %v", family(inner), family(outer), buf[:n], who, err)
	}
	if x, err := l.Crossed(vip.Addr()); err != nil || x != (Crossed{}) {
		t.Errorf("%s in %s: %+v, %v crossed the director", family(inner), family(outer), x, err)
	}
}

// datagram returns an IP packet with a UDP datagram.
func datagram(t *testing.T, from, to netip.AddrPort, payload string) []byte {
	t.Helper()
	udp := &layers.UDP{SrcPort: layers.UDPPort(from.Port()), DstPort: layers.UDPPort(to.Port())}
	var ip interface {
		gopacket.SerializableLayer
		gopacket.NetworkLayer
	}
	src, dst := net.IP(from.Addr().Unmap().AsSlice()), net.IP(to.Addr().AsSlice())
	if to.Addr().Is6() {
		ip = &layers.IPv6{Version: 6, NextHeader: layers.IPProtocolUDP, HopLimit: 64, SrcIP: src, DstIP: dst}
	} else {
		ip = &layers.IPv4{Version: 4, Protocol: layers.IPProtocolUDP, TTL: 64, SrcIP: src, DstIP: dst}
	}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	buf := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, options, ip, udp, gopacket.Payload(payload)); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
