package main_test

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"xlvs/dataplane/packet"
	"xlvs/testenv"
)

// A trunkWatch counts the frames that a host receives from another at a trunk, by their tags. It asks the kernel's packet
// sockets, which hand the tag that the kernel takes out of a frame over beside it (PACKET_AUXDATA, packet(7)).
type trunkWatch struct {
	fd      int
	stopped atomic.Bool
	done    sync.WaitGroup
	frames  map[packet.Tags]int // IP packets of the client's; read's until it is done
}

// watchTrunk watches until stop, which returns the counts. from is the MAC address that frames come from, client the source of the
// packets that count: health checks are the director's own.
func watchTrunk(t *testing.T, h *testenv.Host, ifname string, from net.HardwareAddr, client func(v6 bool) netip.Addr) (stop func() map[packet.Tags]int) {
	t.Helper()
	w := &trunkWatch{frames: map[packet.Tags]int{}}
	fatal(t, h.Do(func() (err error) {
		w.fd, err = openTrunk(ifname)
		return err
	}))
	w.done.Go(func() { w.read(from, client(false), client(true)) })
	once := sync.OnceFunc(func() {
		w.stopped.Store(true)
		w.done.Wait()
		unix.Close(w.fd)
	})
	t.Cleanup(once)
	return func() map[packet.Tags]int { once(); return w.frames }
}

func openTrunk(ifname string) (fd int, err error) {
	ifc, err := net.InterfaceByName(ifname)
	if err != nil {
		return -1, err
	}
	all := int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)))
	if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all); err != nil {
		return -1, err
	}
	err = errors.Join(
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: ifc.Index}),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 20_000}),
	)
	return fd, err
}

// read reads what there is; once it is to stop, until there is nothing more.
func (w *trunkWatch) read(from net.HardwareAddr, clients ...netip.Addr) {
	frame, beside := make([]byte, 1<<16), make([]byte, 256)
	for {
		n, control, _, sender, err := unix.Recvmsg(w.fd, frame, beside, 0)
		if err != nil {
			if w.stopped.Load() || !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
				return
			}
			continue
		}
		if ll, ok := sender.(*unix.SockaddrLinklayer); !ok || ll.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		b := withTag(frame[:n], beside[:control])
		var p packet.Packet
		packet.Parse(b, &p)
		if p.Kind >= packet.KindMalformed || [6]byte(b[6:12]) != [6]byte(from) {
			continue
		}
		if src := p.Src.Netip(); src != clients[0] && src != clients[1] {
			continue
		}
		w.frames[packet.TagsOf(b)]++
	}
}

const sizeofAuxdata = 20 // of struct tpacket_auxdata, include/uapi/linux/if_packet.h

// withTag puts the tag that came beside a frame back into it.
func withTag(frame, control []byte) []byte {
	msgs, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return frame
	}
	for _, m := range msgs {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < sizeofAuxdata {
			continue
		}
		status := binary.NativeEndian.Uint32(m.Data)
		if status&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		tci, kind := binary.NativeEndian.Uint16(m.Data[16:]), binary.NativeEndian.Uint16(m.Data[18:])
		tag := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, kind), tci)
		return append(append(append([]byte(nil), frame[:12]...), tag...), frame[12:]...)
	}
	return frame
}
