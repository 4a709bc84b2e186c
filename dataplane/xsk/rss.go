package xsk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// An RSSTable is the table by which a network card spreads over its queues what it receives (receive side scaling): the
// packet's hash picks an entry, the entry names a queue. It holds a socket until Restore.
type RSSTable struct {
	name string
	// call has the driver execute an ethtool request. The kernel writes the answer over it.
	call  func(request []byte) error
	end   func() error
	rings int      // queues that the card spread over by default; 0: unknown
	xfrm  byte     // what becomes of a packet's fields before they are hashed, as the kernel tells it
	found []uint32 // by entry: its queue, as ReadRSS found it
	set   []uint32 // the same as Spread left it; nil: it changed nothing
}

// ErrNoRSS says that an interface's driver has no RSS table, or does not show it.
var ErrNoRSS = errors.New("its driver has no RSS table")

// maxRSS is more entries than any card has (they have at most some thousands): a driver that tells of more is not believed.
const maxRSS = 1 << 16

// ReadRSS reads the table of an interface of the calling thread's network namespace. The methods of what it
// returns may be called from any thread, one at a time.
func ReadRSS(name string) (*RSSTable, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("read the RSS table of %s: open a socket: %w", name, err)
	}
	t := &RSSTable{name: name, call: func(request []byte) error { return ethtoolRequest(fd, name, request) }, end: func() error { return unix.Close(fd) }}
	if err := t.open(); err != nil {
		return nil, errors.Join(err, t.end())
	}
	return t, nil
}

func (t *RSSTable) open() (err error) {
	t.found, err = t.read()
	if errors.Is(err, unix.EOPNOTSUPP) || err == nil && len(t.found) == 0 {
		return fmt.Errorf("%s: %w", t.name, ErrNoRSS)
	}
	if err != nil {
		return fmt.Errorf("read the RSS table of %s: %w", t.name, err)
	}
	t.rings = t.readRings()
	return nil
}

// Astray returns how many entries the table has now, and how many of them lead to other queues than these.
func (t *RSSTable) Astray(queues []int) (entries, astray int, err error) {
	now, err := t.read()
	if err != nil {
		return 0, 0, fmt.Errorf("read the RSS table of %s: %w", t.name, err)
	}
	for _, q := range now {
		if !slices.Contains(queues, int(q)) {
			astray++
		}
	}
	return len(now), astray, nil
}

// Spread has the table lead to these queues alone, to each as often as to the others. On an error it is as ReadRSS found it,
// unless the error says otherwise.
func (t *RSSTable) Spread(queues []int) error {
	failed := func(err error) error {
		return fmt.Errorf("the RSS table of %s cannot be made to lead to queues %d alone: %w; %s", t.name, queues, err, rssRemedy(err))
	}
	now, err := t.read()
	if err != nil {
		return failed(err)
	}
	want := spread(len(now), queues) // drivers may have another size for another number of queues
	if err := t.write(want); err != nil {
		return failed(err)
	}
	t.set = want
	got, err := t.read()
	if err == nil && !slices.Equal(got, want) {
		t.set, err = got, errors.New("its driver took the table, and shows another one than was set")
	}
	if err != nil {
		return errors.Join(failed(err), t.giveBack())
	}
	return nil
}

// Restore gives the card the table back that ReadRSS found, if Spread changed it and nobody has changed it since,
// and closes the socket.
func (t *RSSTable) Restore() error { return errors.Join(t.giveBack(), t.end()) }

func (t *RSSTable) giveBack() error {
	if t.set == nil {
		return nil
	}
	now, err := t.read()
	if err == nil && slices.Equal(now, t.set) {
		err = t.rewrite()
	}
	// An interface that is gone has taken its settings with it.
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("give %s its RSS table of before back: %w; `ethtool -X %s default` has it lead to all queues", t.name, err, t.name)
	}
	t.set = nil
	return nil
}

// rewrite writes the table as found. One that led to all queues in turn was most likely never set by anybody. It is asked for
// as the default: the kernel holds other tables against every change of the number of queues, and drivers keep them over it.
func (t *RSSTable) rewrite() error {
	if t.rings > 0 && slices.Equal(t.found, inTurn(len(t.found), t.rings)) && t.write(nil) == nil {
		return nil
	}
	return t.write(t.found)
}

func rssRemedy(err error) string {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return "run as root or with CAP_NET_ADMIN"
	}
	return "serve all queues, or give it fewer with `channels`"
}

// spread makes a table of n entries that lead to queues in turn.
func spread(n int, queues []int) []uint32 {
	table := make([]uint32, n)
	for i := range table {
		table[i] = uint32(queues[i%len(queues)])
	}
	return table
}

// inTurn is what drivers start with: n entries that lead to all queues in turn.
func inTurn(n, rings int) []uint32 {
	table := make([]uint32, n)
	for i := range table {
		table[i] = uint32(i % rings)
	}
	return table
}

// struct ethtool_rxfh of linux/ethtool.h: the head, and behind it the table, an uint32 an entry (and the hash key, which is
// left alone here: its size is always 0, and the hash function 0, which means no change).
const (
	rxfhIndirSize = 8  // uint32, entries; to set none means the default
	rxfhInputXfrm = 17 // uint8; before Linux 6.8 one of the reserved bytes, which must be 0
	rxfhHead      = 24

	xfrmNoChange = 0xff // RXH_XFRM_NO_CHANGE
	rxnfcData    = 8    // of struct ethtool_rxnfc: uint64
	rxnfcSize    = 192
)

// rxfh makes a request with a table, or room for one.
func rxfh(command uint32, xfrm byte, table []uint32) []byte {
	b := make([]byte, rxfhHead+4*len(table))
	binary.NativeEndian.PutUint32(b, command)
	binary.NativeEndian.PutUint32(b[rxfhIndirSize:], uint32(len(table)))
	b[rxfhInputXfrm] = xfrm
	for i, q := range table {
		binary.NativeEndian.PutUint32(b[rxfhHead+4*i:], q)
	}
	return b
}

// read asks for the number of entries, and then for them. The kernel refuses a request with another number, so it writes
// nothing behind the end of one.
func (t *RSSTable) read() ([]uint32, error) {
	b := rxfh(unix.ETHTOOL_GRSSH, 0, nil)
	if err := t.call(b); err != nil {
		return nil, err
	}
	n := binary.NativeEndian.Uint32(b[rxfhIndirSize:])
	if n > maxRSS {
		return nil, fmt.Errorf("its driver tells of %d entries", n)
	}
	if n == 0 {
		return nil, nil
	}
	table := make([]uint32, n)
	b = rxfh(unix.ETHTOOL_GRSSH, 0, table)
	if err := t.call(b); err != nil {
		return nil, err
	}
	t.xfrm = b[rxfhInputXfrm]
	for i := range table {
		table[i] = binary.NativeEndian.Uint32(b[rxfhHead+4*i:])
	}
	return table, nil
}

// write sets the table; nil: to the default. How fields are prepared for the hash stays as it is: kernels that know "no change"
// are told so. Those before Linux 6.8 refuse it, and for drivers that can only do without also some after it did; they are
// told what they told themselves.
func (t *RSSTable) write(table []uint32) error {
	err := t.call(rxfh(unix.ETHTOOL_SRSSH, xfrmNoChange, table))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		err = t.call(rxfh(unix.ETHTOOL_SRSSH, t.xfrm, table))
	}
	return err
}

// readRings returns over how many queues the card spreads by default, or 0 if the driver does not tell.
func (t *RSSTable) readRings() int {
	b := make([]byte, rxnfcSize)
	binary.NativeEndian.PutUint32(b, unix.ETHTOOL_GRXRINGS)
	if err := t.call(b); err != nil {
		return 0
	}
	return int(min(binary.NativeEndian.Uint64(b[rxnfcData:]), maxRSS))
}
