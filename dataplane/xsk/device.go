package xsk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A device is what Open must know of an interface to bind a queue of it.
type device struct {
	name    string
	ifindex int
	queue   int
	mtu     int
}

// etherOverhead is what a frame may hold besides the MTU: an Ethernet header and two VLAN tags.
const etherOverhead = 14 + 2*4

// rxHeadroom is XDP_PACKET_HEADROOM: the kernel leaves it free before each frame it receives.
const rxHeadroom = 256

// MaxMTU is the largest MTU whose frames fit into chunks of so many bytes.
func MaxMTU(frameSize int) int { return frameSize - rxHeadroom - etherOverhead }

// lookup finds the interface of o in the calling thread's network namespace and checks that it
// has the queue.
func lookup(o Options) (*device, error) {
	var link netlink.Link
	var err error
	if o.Name != "" {
		link, err = netlink.LinkByName(o.Name)
	} else {
		link, err = netlink.LinkByIndex(o.Ifindex)
	}
	if err != nil {
		who := o.Name
		if who == "" {
			who = fmt.Sprintf("with index %d", o.Ifindex)
		}
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			return nil, fmt.Errorf("there is no interface %s in this network namespace: %w", who, unix.ENODEV)
		}
		return nil, fmt.Errorf("looking up interface %s: %w", who, err)
	}
	a := link.Attrs()
	if o.Ifindex != 0 && o.Ifindex != a.Index {
		return nil, fmt.Errorf("interface %s has index %d, not %d; was it made anew in the meantime?", a.Name, a.Index, o.Ifindex)
	}
	d := &device{name: a.Name, ifindex: a.Index, queue: o.Queue, mtu: a.MTU}
	rx, tx, err := queueCounts(link)
	if err != nil {
		return nil, err
	}
	if o.Queue < 0 || o.Queue >= rx {
		return nil, fmt.Errorf("%s has %s but `queues: [%d]` was asked for; queues count from 0", a.Name, plural(rx, "queue"), o.Queue)
	}
	// The kernel would accept the socket and then never send anything (net/xdp/xsk.c, __xsk_generic_xmit).
	if o.Queue >= tx {
		return nil, fmt.Errorf("%s has %s to send by but queue %d was asked for; make as many TX as RX queues (ethtool -L %s)",
			a.Name, plural(tx, "queue"), o.Queue, a.Name)
	}
	return d, nil
}

// Queues returns how many RX queues the interface has, in the calling thread's network
// namespace: a goroutine that has switched its namespace must be locked to its thread.
func Queues(name string) (int, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("counting the queues of %s: %w", name, err)
	}
	rx, _, err := queueCounts(link)
	return rx, err
}

// queueCounts asks the driver (ETHTOOL_GCHANNELS), then sysfs, then netlink. Many virtual drivers
// have no channels; sysfs shows the namespace it was mounted in, which need not be
// the thread's; and netlink tells how many queues were allocated, which may be more
// than are in use.
func queueCounts(link netlink.Link) (rx, tx int, err error) {
	a := link.Attrs()
	if e, err := ethtool.NewEthtool(); err == nil {
		defer e.Close()
		if c, err := e.GetChannels(a.Name); err == nil && c.CombinedCount+c.RxCount > 0 {
			return int(c.CombinedCount + c.RxCount), int(c.CombinedCount + c.TxCount), nil
		}
	}
	if rx, tx, ok := sysfsQueues(a.Name, a.Index); ok {
		return rx, tx, nil
	}
	if a.NumRxQueues > 0 && a.NumTxQueues > 0 {
		return a.NumRxQueues, a.NumTxQueues, nil
	}
	return 0, 0, fmt.Errorf("the kernel does not tell how many queues %s has", a.Name)
}

func sysfsQueues(name string, ifindex int) (rx, tx int, ok bool) {
	dir := filepath.Join("/sys/class/net", name)
	text, err := os.ReadFile(filepath.Join(dir, "ifindex"))
	if err != nil {
		return 0, 0, false
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || n != ifindex {
		return 0, 0, false
	}
	entries, err := os.ReadDir(filepath.Join(dir, "queues"))
	if err != nil {
		return 0, 0, false
	}
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), "rx-"):
			rx++
		case strings.HasPrefix(e.Name(), "tx-"):
			tx++
		}
	}
	return rx, tx, rx > 0 && tx > 0
}

// frameSize returns the chunk size for these devices: want, or the smallest that holds
// a frame of each one's MTU after the kernel's headroom if want is 0.
func frameSize(want int, devices []*device) (int, error) {
	mtu, name := 0, ""
	for _, d := range devices {
		if d.mtu > mtu {
			mtu, name = d.mtu, d.name
		}
	}
	need := rxHeadroom + mtu + etherOverhead
	if want == 0 {
		want = 2048
		if need > want {
			want = 4096
		}
	}
	if want != 2048 && want != 4096 {
		return 0, fmt.Errorf("frame size %d: the kernel takes 2048 or 4096 bytes", want)
	}
	if need > want {
		return 0, fmt.Errorf("%s has an MTU of %d, but a frame of %d bytes holds at most %d; lower the MTU%s",
			name, mtu, want, MaxMTU(want), map[bool]string{true: " or use frames of 4096 bytes"}[want == 2048])
	}
	return want, nil
}

func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
