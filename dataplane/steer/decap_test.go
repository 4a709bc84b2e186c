package steer

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	xdpDrop          = 1
	director4        = "10.0.0.1"
	director6        = "2001:db8:1::1"
	server4, server6 = "10.0.0.11", "2001:db8:1::11"
)

func newDecap(t *testing.T) *Decap {
	t.Helper()
	requireRoot(t)
	d, err := LoadDecap(
		[]netip.Addr{netip.MustParseAddr(server4), netip.MustParseAddr(server6)},
		[]netip.Addr{netip.MustParseAddr(vip4), netip.MustParseAddr(vip6)})
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

// run returns what the program made of the frame and the one reason it counted.
func (d *Decap) run(t *testing.T, frame []byte) (action uint32, out []byte, reason DecapReason) {
	t.Helper()
	before, err := d.Counters()
	must(t, err)
	opts := ebpf.RunOptions{Data: frame, DataOut: make([]byte, 4096)}
	action, err = d.objects.Decap.Run(&opts)
	must(t, err)
	after, err := d.Counters()
	must(t, err)
	reason = DecapReason(NumDecapReasons)
	for i := range after {
		if after[i] != before[i] {
			reason = DecapReason(i)
		}
	}
	return action, opts.DataOut, reason
}

// tunnelled puts an outer header around the inner packet.
func tunnelled(outerV6, innerV6 bool, inner []byte) []byte {
	proto := uint8(4)
	if innerV6 {
		proto = 41
	}
	if outerV6 {
		return l2(etherIPv6, ip6(director6, server6, proto, inner))
	}
	return l2(etherIPv4, ip4(director4, server4, proto, inner))
}

func innerPacket(v6 bool) (etherType uint16, packet []byte) {
	if v6 {
		return etherIPv6, ip6(client6, vip6, 6, tcpTo(40000, 80))
	}
	return etherIPv4, ip4(client4, vip4, 6, tcpTo(40000, 80))
}

// setECN marks an IP packet, and gives an IPv4 header a new checksum, computed whole.
func setECN(packet []byte, ecn byte) {
	if packet[0]>>4 == 6 {
		packet[1] = packet[1]&0xcf | ecn<<4
		return
	}
	packet[1] = packet[1]&0xfc | ecn
	setIPv4Checksum(packet)
}

// tagsOfFrames are the tags that frames can have, the inner one first.
var tagsOfFrames = [][]uint16{nil, {etherVLAN}, {etherSVLAN}, {etherVLAN, etherVLAN}, {etherVLAN, etherSVLAN}}

func TestDecapAllCombinations(t *testing.T) {
	d := newDecap(t)
	// RFC 6040, figure 4; columns are the outer header's, -1 drops. 0 Not-ECT, 1 ECT(1), 2 ECT(0), 3 CE.
	table := [4][4]int{0: {0, 0, 0, -1}, 1: {1, 1, 1, 3}, 2: {2, 1, 2, 3}, 3: {3, 3, 3, 3}}
	for combination := range 4 {
		outerV6, innerV6 := combination&1 != 0, combination&2 != 0
		for ecn := range 16 {
			innerECN, outerECN := ecn>>2, ecn&3
			for _, tags := range tagsOfFrames {
				name := fmt.Sprintf("outer v6 %t, inner v6 %t, inner ECN %d, outer ECN %d, tags %#x", outerV6, innerV6, innerECN, outerECN, tags)
				etherType, inner := innerPacket(innerV6)
				setTrafficClass(inner)
				setECN(inner, byte(innerECN))
				frame := tunnelled(outerV6, innerV6, inner)
				setECN(frame[14:], byte(outerECN))
				want := l2(etherType, slices.Clone(inner))
				if result := table[innerECN][outerECN]; result >= 0 {
					setECN(want[14:], byte(result))
				} else {
					want = nil
				}
				for _, tpid := range tags {
					frame = tagged(tpid, frame)
					if want != nil {
						want = tagged(tpid, want)
					}
				}
				checkDecap(t, d, name, frame, want)
			}
		}
	}
}

// setTrafficClass sets all bits of the DSCP, so that a mark that spills over shows.
func setTrafficClass(packet []byte) {
	if packet[0]>>4 == 6 {
		packet[0], packet[1] = 0x6f, packet[1]|0xc5
		return
	}
	packet[1] = 0xb8
	setIPv4Checksum(packet)
}

// checkDecap wants the frame stripped to want; nil: dropped, and not touched.
func checkDecap(t *testing.T, d *Decap, name string, frame, want []byte) {
	t.Helper()
	wantAction, wantReason := uint32(xdpPass), DecapStripped
	if want == nil {
		wantAction, wantReason, want = xdpDrop, DecapDropECN, frame
	}
	action, out, reason := d.run(t, frame)
	if action != wantAction || reason != wantReason {
		t.Errorf("%s: action %d, %s; want %d, %s", name, action, reason, wantAction, wantReason)
	}
	if !bytes.Equal(out, want) {
		t.Errorf("%s:\n% x, want\n% x", name, out, want)
	}
}

// The incremental checksum must equal the whole one for every header, the edges of ones' complement included.
func TestDecapChecksumOfEveryHeader(t *testing.T) {
	d := newDecap(t)
	for id := range 1 << 12 {
		inner := ip4(client4, vip4, 17, udpTo(1, 2))
		// Sweep the identification so that the sum passes 0xffff.
		inner[4], inner[5] = byte(id>>4), byte(id<<4)|byte(id&0xf)
		setECN(inner, 2)
		frame := tunnelled(false, false, inner)
		setECN(frame[14:], 3)
		want := l2(etherIPv4, slices.Clone(inner))
		setECN(want[14:], 3)
		checkDecap(t, d, fmt.Sprintf("identification %#x", id), frame, want)
	}
}

func TestDecapOptionsAndPadding(t *testing.T) {
	d := newDecap(t)
	_, inner := innerPacket(false)
	_, inner6 := innerPacket(true)
	pad := make([]byte, 6)
	checkDecap(t, d, "IPv4 options", l2(etherIPv4, ip4With(director4, server4, 4, 0x4000, make([]byte, 8), inner)), l2(etherIPv4, inner))
	checkDecap(t, d, "encapsulation limit", l2(etherIPv6, ip6(director6, server6, 60, ext(41, 0, inner6))), l2(etherIPv6, inner6))
	checkDecap(t, d, "padding", append(tunnelled(false, false, inner), pad...), append(l2(etherIPv4, inner), pad...))
}

func TestDecapPassesUntouched(t *testing.T) {
	d := newDecap(t)
	_, inner := innerPacket(false)
	_, inner6 := innerPacket(true)
	other := ip4(client4, "192.0.2.1", 6, tcpTo(40000, 80))
	other6 := ip6(client6, "2001:db8::bad", 6, tcpTo(40000, 80))
	forged := ip6(client6, forgedVIP, 6, tcpTo(40000, 80))
	cases := []struct {
		name  string
		frame []byte
		want  DecapReason
	}{
		{"no tunnel", v4(client4, server4, 6, tcpTo(40000, 80)), DecapPassOther},
		{"no tunnel v6", v6(client6, server6, 6, tcpTo(40000, 80)), DecapPassOther},
		{"arp", l2(0x0806, make([]byte, 28)), DecapPassOther},
		{"three tags", tagged(etherSVLAN, tagged(etherVLAN, tagged(etherVLAN, tunnelled(false, false, inner)))), DecapPassOther},
		{"another outer address", l2(etherIPv4, ip4(director4, "10.0.0.12", 4, inner)), DecapPassOther},
		{"another outer address v6", l2(etherIPv6, ip6(director6, "2001:db8:1::12", 41, inner6)), DecapPassOther},
		{"v4 address on the wire in v6", l2(etherIPv6, ip6(director6, "::ffff:"+server4, 4, inner)), DecapPassOther},
		{"inner for no vip", tunnelled(false, false, other), DecapPassInner},
		{"inner v6 for no vip", tunnelled(true, true, other6), DecapPassInner},
		{"inner v4 address in v6", tunnelled(false, true, forged), DecapPassInner},
		{"first fragment", l2(etherIPv4, ip4With(director4, server4, 4, 0x2000, nil, inner)), DecapPassFragment},
		{"later fragment", l2(etherIPv4, ip4With(director4, server4, 4, 1, nil, inner)), DecapPassFragment},
		{"fragment v6", l2(etherIPv6, ip6(director6, server6, 44, frag6(41, 1, inner6))), DecapPassFragment},
		{"options, fragment v6", l2(etherIPv6, ip6(director6, server6, 60, ext(44, 0, frag6(41, 1, inner6)))), DecapPassFragment},
		{"options, no tunnel", l2(etherIPv6, ip6(director6, server6, 60, ext(6, 0, tcpTo(1, 2)))), DecapPassOther},
		{"options past the packet", l2(etherIPv6, ip6(director6, server6, 60, withByte(ext(41, 0, inner6), 1, 99))), DecapPassMalformed},
		{"options past the packet, into the padding", append(l2(etherIPv6, ip6(director6, server6, 60, ext(41, 1, nil)[:8])),
			append(make([]byte, 8), inner6...)...), DecapPassMalformed},
		{"protocol 4 with v6 in it", tunnelled(false, false, inner6), DecapPassMalformed},
		{"protocol 41 with v4 in it", tunnelled(true, true, inner), DecapPassMalformed},
		{"inner longer than the outer", tunnelled(false, false, withByte(inner, 3, byte(len(inner)+1))), DecapPassMalformed},
		{"inner v6 longer than the outer", tunnelled(true, true, withByte(inner6, 5, 21)), DecapPassMalformed},
		{"inner header cut", tunnelled(false, false, inner[:19]), DecapPassMalformed},
		{"outer total beyond the frame", withByte(tunnelled(false, false, inner), 17, 255), DecapPassMalformed},
	}
	for n := 15; n < 34; n++ {
		cases = append(cases, struct {
			name  string
			frame []byte
			want  DecapReason
		}{"truncated", tunnelled(false, false, inner)[:n], DecapPassMalformed})
	}
	for _, c := range cases {
		action, out, reason := d.run(t, c.frame)
		if action != xdpPass || reason != c.want || !bytes.Equal(out, c.frame) {
			t.Errorf("%s: action %d, %s, want %s; changed: %t", c.name, action, reason, c.want, !bytes.Equal(out, c.frame))
		}
	}
}

func TestLoadDecapRefuses(t *testing.T) {
	requireRoot(t)
	if d, err := LoadDecap([]netip.Addr{netip.MustParseAddr("fe80::1%eth0")}, nil); err == nil {
		d.Close()
		t.Error("an outer address with a zone was accepted")
	}
	if d, err := LoadDecap(nil, []netip.Addr{{}}); err == nil {
		d.Close()
		t.Error("the zero address was accepted as a VIP")
	}
}

// A real server's kernel hands the inner datagram to a socket on the VIP, in every combination and mode.
func TestDecapFeedsTheKernel(t *testing.T) {
	for _, mode := range []Mode{Native, Generic} {
		for combination := range 4 {
			outerV6, innerV6 := combination&1 != 0, combination&2 != 0
			t.Run(fmt.Sprintf("%s/outer v6 %t, inner v6 %t", mode, outerV6, innerV6), func(t *testing.T) {
				l := newLab(t)
				for _, cidr := range []string{server4 + "/24", server6 + "/64", vip4 + "/32", vip6 + "/128"} {
					addAddr(t, l.near, cidr)
				}
				d := newDecap(t)
				if _, err := d.Attach(l.near.Attrs().Index, "near", mode); err != nil {
					t.Fatal(err)
				}
				deliver(t, l, outerV6, innerV6)
				c, err := d.Counters()
				must(t, err)
				if c[DecapStripped] == 0 {
					t.Errorf("counted %v", c)
				}
				must(t, d.Close())
				if l.xdp(t).Attached {
					t.Error("XDP is left on the interface")
				}
			})
		}
	}
}

func deliver(t *testing.T, l *lab, outerV6, innerV6 bool) {
	t.Helper()
	src, dst := director4, vip4 // on the server's subnet, so that no reverse path filter minds
	if innerV6 {
		src, dst = director6, vip6
	}
	server, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(dst)})
	must(t, err)
	defer server.Close()
	datagram := udpTo(40000, uint16(server.LocalAddr().(*net.UDPAddr).Port), []byte("hello")...)
	inner := ip4(src, dst, 17, datagram)
	if innerV6 {
		setUDPChecksum(datagram, src, dst)
		inner = ip6(src, dst, 17, datagram)
	}
	frame := tunnelled(outerV6, innerV6, inner)
	copy(frame, l.near.Attrs().HardwareAddr)
	var fd int
	l.inFar(t, func() { fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0) })
	must(t, err)
	defer unix.Close(fd)
	buf := make([]byte, 64)
	eventually(t, "the inner datagram arrives", func() bool {
		to := &unix.SockaddrLinklayer{Ifindex: l.far.Attrs().Index}
		if err := unix.Sendto(fd, frame, 0, to); err != nil {
			return false
		}
		must(t, server.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		n, _, err := server.ReadFromUDP(buf)
		return err == nil && string(buf[:n]) == "hello"
	})
}

// setUDPChecksum is for IPv6, where it may not be 0 (RFC 8200, 8.1).
func setUDPChecksum(datagram []byte, src, dst string) {
	pseudo := append(net.ParseIP(src).To16(), net.ParseIP(dst).To16()...)
	pseudo = append(pseudo, 0, 0, 0, byte(len(datagram)), 0, 0, 0, 17)
	var sum uint32
	all := append(pseudo, datagram...)
	if len(all)%2 == 1 {
		all = append(all, 0)
	}
	for i := 0; i < len(all); i += 2 {
		sum += uint32(all[i])<<8 | uint32(all[i+1])
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	datagram[6], datagram[7] = byte(^sum>>8), byte(^sum)
}
