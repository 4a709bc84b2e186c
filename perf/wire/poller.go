package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"xlvs/dataplane/datapath"
	"xlvs/dataplane/packet"
	"xlvs/testenv"
)

// A poller drives an interface's NAPI by busy polling: a datagram socket that has received something through it knows
// its NAPI, and a receive call that finds nothing then polls the device itself. AF_XDP sockets can do the same only on drivers
// that tell the queue's NAPI (netif_queue_set_napi), which veth does not.
type poller struct{ fd int }

const (
	pollBudget   = datapath.PollBudget
	pollerPort   = 9 // discard
	pollerPrefix = 30
)

var pollerAddr, pollerPeer = netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.1")

// newPoller makes one for an interface of h that has NAPI (an XDP program that passes what is not the lab's). One datagram is sent
// from the far end, which is an interface of peer.
func newPoller(h *testenv.Host, ifname string, peer *testenv.Host, peerIf string, budget int) (p *poller, err error) {
	p = &poller{fd: -1}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("busy polling %s: %w", ifname, err), p.Close())
		}
	}()
	if err := h.AddAddr(ifname, netip.PrefixFrom(pollerAddr, pollerPrefix)); err != nil {
		return p, err
	}
	err = h.Do(func() (err error) {
		if p.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
			return err
		}
		return unix.Bind(p.fd, &unix.SockaddrInet4{Port: pollerPort, Addr: pollerAddr.As4()})
	})
	if err != nil {
		return p, err
	}
	mac, err := h.MAC(ifname)
	if err != nil {
		return p, err
	}
	if err := p.learn(peer, peerIf, mac); err != nil {
		return p, err
	}
	for _, o := range [][2]int{{unix.SO_PREFER_BUSY_POLL, 1}, {unix.SO_BUSY_POLL, 20}, {unix.SO_BUSY_POLL_BUDGET, budget}} {
		if err := unix.SetsockoptInt(p.fd, unix.SOL_SOCKET, o[0], o[1]); err != nil {
			return p, err
		}
	}
	return p, nil
}

// learn sends datagrams to the socket until it knows its NAPI.
func (p *poller) learn(peer *testenv.Host, peerIf string, mac net.HardwareAddr) error {
	frame := make([]byte, minFrame)
	copy(frame, mac)
	frame[6] = 2
	binary.BigEndian.PutUint16(frame[12:], packet.EtherIPv4)
	frame[14] = 0x45
	binary.BigEndian.PutUint16(frame[16:], 28)
	frame[22], frame[23] = 64, packet.ProtoUDP
	src, dst := pollerPeer.As4(), pollerAddr.As4()
	copy(frame[26:], src[:])
	copy(frame[30:], dst[:])
	packet.SetIPv4Sum(frame[14:34])
	binary.BigEndian.PutUint16(frame[34:], pollerPort)
	binary.BigEndian.PutUint16(frame[36:], pollerPort)
	binary.BigEndian.PutUint16(frame[38:], 8)
	return peer.Do(func() error {
		link, err := netlink.LinkByName(peerIf)
		if err != nil {
			return err
		}
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		to := &unix.SockaddrLinklayer{Ifindex: link.Attrs().Index, Halen: 6}
		for deadline := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
			if err := unix.Sendto(fd, frame, 0, to); err != nil {
				return err
			}
			id, err := unix.GetsockoptInt(p.fd, unix.SOL_SOCKET, unix.SO_INCOMING_NAPI_ID)
			if err != nil || id != 0 {
				return err
			}
			if time.Now().After(deadline) {
				return errors.New("no datagram came through the interface's NAPI")
			}
		}
	})
}

// poll runs the device's NAPI once: up to two budgets of frames.
func (p *poller) poll() {
	_, _, _ = unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(p.fd), 0, 0, unix.MSG_DONTWAIT, 0, 0)
}

// Close gives the socket back.
func (p *poller) Close() error {
	if p.fd < 0 {
		return nil
	}
	return unix.Close(p.fd)
}
