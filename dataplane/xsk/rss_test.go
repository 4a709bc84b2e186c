package xsk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// A card is a network card with its driver and the kernel in front of it, which answers requests as net/ethtool/ioctl.c does.
type card struct {
	table      []uint32
	rings      int
	configured bool // the kernel's IFF_RXFH_CONFIGURED: somebody has set the table
	xfrm       byte
	sets       int

	before68 bool       // input_xfrm is a reserved byte
	noSymXor bool       // as before Linux 6.11 (and its stable updates): "no change" is taken for what the driver cannot do
	noRings  bool       // the driver does not tell of its rings
	refuse   unix.Errno // to each setting
	odd      bool       // shows another table than was set
	gone     bool
	t        *testing.T
}

func (c *card) call(b []byte) error {
	if c.gone {
		return unix.ENODEV
	}
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	command := u32(0)
	if command == unix.ETHTOOL_GRXRINGS {
		if c.noRings {
			return unix.EOPNOTSUPP
		}
		if len(b) < 192 {
			c.t.Fatalf("a struct ethtool_rxnfc has 192 bytes, not %d", len(b))
		}
		binary.NativeEndian.PutUint64(b[8:], uint64(c.rings))
		return nil
	}
	if c.table == nil {
		return unix.EOPNOTSUPP
	}
	asked, key := int(u32(8)), u32(12)
	if len(b) < 24+4*asked+int(key) {
		c.t.Fatalf("%d bytes for %d entries and a key of %d: the kernel would go beyond the end", len(b), asked, key)
	}
	if u32(4) != 0 || b[18]|b[19] != 0 || u32(20) != 0 || c.before68 && b[17] != 0 {
		return unix.EINVAL
	}
	switch command {
	case unix.ETHTOOL_GRSSH:
		binary.NativeEndian.PutUint32(b[8:], uint32(len(c.table)))
		binary.NativeEndian.PutUint32(b[12:], 40)
		if asked != 0 && asked != len(c.table) || key != 0 && key != 40 {
			return unix.EINVAL
		}
		b[16] = 1 // Toeplitz
		if !c.before68 {
			b[17] = c.xfrm
		}
		for i := range asked {
			q := c.table[i]
			if c.odd && c.configured && i == 0 {
				q++
			}
			binary.NativeEndian.PutUint32(b[24+4*i:], q)
		}
		return nil
	case unix.ETHTOOL_SRSSH:
		if key != 0 || b[16] != 0 {
			c.t.Error("hash key or function would change")
		}
		if asked != 0 && asked != len(c.table) {
			return unix.EINVAL
		}
		if c.refuse != 0 {
			return c.refuse
		}
		if c.noSymXor && b[17] == 0xff {
			return unix.EOPNOTSUPP
		}
		if !c.before68 && b[17] != 0xff {
			c.xfrm = b[17]
		}
		set := make([]uint32, len(c.table))
		for i := range set {
			set[i] = uint32(i % c.rings)
			if asked != 0 {
				set[i] = u32(24 + 4*i)
			}
			if int(set[i]) >= c.rings {
				return unix.EINVAL
			}
		}
		c.table, c.configured = set, asked != 0
		c.sets++
		return nil
	}
	c.t.Fatalf("command %#x", command)
	return nil
}

// newCard has a table of n entries, in turn.
func newCard(t *testing.T, n, rings int) *card {
	c := &card{t: t, rings: rings, table: make([]uint32, n)}
	for i := range c.table {
		c.table[i] = uint32(i % rings)
	}
	return c
}

func (c *card) read() (*RSSTable, error) {
	r := &RSSTable{name: "eth0", call: c.call, end: func() error { return nil }}
	return r, r.open()
}

func TestRSS(t *testing.T) {
	for _, c := range []struct {
		name       string
		n, rings   int
		edit       func(*card)
		queues     []int
		astray     int
		configured bool // at the end
	}{
		{"default", 128, 4, func(*card) {}, []int{0, 1}, 64, false},
		{"more entries than ethtool's old commands have room for", 4096, 64, func(*card) {}, []int{3, 1, 2}, 3904, false},
		{"not a multiple", 10, 4, func(*card) {}, []int{0, 1, 2}, 2, false},
		{"one entry", 1, 4, func(*card) {}, []int{3}, 1, false},
		{"somebody's table", 8, 4, func(c *card) { c.table, c.configured = []uint32{3, 3, 3, 0, 1, 2, 3, 3}, true }, []int{1}, 7, true},
		{"somebody's table, which leads to some queues in turn", 8, 4, func(c *card) { c.table, c.configured = []uint32{0, 1, 0, 1, 0, 1, 0, 1}, true }, []int{1}, 4, true},
		{"kernel before 6.8", 128, 4, func(c *card) { c.before68 = true }, []int{0, 1}, 64, false},
		{"symmetric hash", 128, 4, func(c *card) { c.xfrm = 1 }, []int{0, 1}, 64, false},
		{"kernel that takes no change for a change", 128, 4, func(c *card) { c.noSymXor, c.xfrm = true, 1 }, []int{0, 1}, 64, false},
		{"driver that does not tell of its rings", 128, 4, func(c *card) { c.noRings = true }, []int{0, 1}, 64, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := newCard(t, c.n, c.rings)
			c.edit(k)
			before, xfrm := slices.Clone(k.table), k.xfrm
			r, err := k.read()
			must(t, err)
			if n, astray, err := r.Astray(c.queues); n != c.n || astray != c.astray || err != nil {
				t.Errorf("%d entries, %d astray, %v; want %d, %d", n, astray, err, c.n, c.astray)
			}
			must(t, r.Spread(c.queues))
			times := map[uint32]int{}
			for _, q := range k.table {
				times[q]++
			}
			for _, q := range c.queues {
				if n := times[uint32(q)]; n < c.n/len(c.queues) || n > c.n/len(c.queues)+1 {
					t.Errorf("%d entries of %d lead to queue %d", n, c.n, q)
				}
				delete(times, uint32(q))
			}
			if len(times) > 0 || k.sets != 1 {
				t.Errorf("set %d times; %d lead elsewhere", k.sets, times)
			}
			must(t, r.Restore())
			if !slices.Equal(k.table, before) || k.configured != c.configured || k.xfrm != xfrm {
				t.Errorf("afterwards %v, configured %t, transformed %d; before %v, %d", k.table, k.configured, k.xfrm, before, xfrm)
			}
		})
	}
}

// TestRSSOfAnother leaves a table alone that somebody else has set in the meantime, and one that was never set.
func TestRSSOfAnother(t *testing.T) {
	k := newCard(t, 8, 4)
	r, err := k.read()
	must(t, err)
	if err := r.Restore(); err != nil || k.sets != 0 {
		t.Errorf("%v, set %d times", err, k.sets)
	}
	for name, other := range map[string][]uint32{"same size": {2, 2, 2, 2, 2, 2, 2, 2}, "another size": {1, 1, 1, 1}} {
		k := newCard(t, 8, 4)
		r, err := k.read()
		must(t, err)
		must(t, r.Spread([]int{1}))
		k.table = other
		if err := r.Restore(); err != nil || !slices.Equal(k.table, other) {
			t.Errorf("%s: %v, %v", name, k.table, err)
		}
	}
}

// TestRSSOfMoreQueues has a driver make more queues in between, as virtio_net does for an XDP program, and another table.
func TestRSSOfMoreQueues(t *testing.T) {
	for _, keeps := range []bool{true, false} { // … the table when they are fewer again
		k := newCard(t, 8, 4)
		r, err := k.read()
		must(t, err)
		k.rings, k.table = 6, inTurn(16, 6)
		if n, astray, err := r.Astray([]int{0, 1, 2, 3}); n != 16 || astray != 4 || err != nil {
			t.Errorf("%d entries, %d astray, %v", n, astray, err)
		}
		must(t, r.Spread([]int{0, 1, 2, 3}))
		if want := inTurn(16, 4); !slices.Equal(k.table, want) {
			t.Errorf("set to %v", k.table)
		}
		k.rings = 4
		if !keeps {
			k.table, k.configured = inTurn(8, 4), false
		}
		must(t, r.Restore())
		if keeps { // of 16 entries, as the card has them now
			if want := inTurn(16, 4); !slices.Equal(k.table, want) || k.configured {
				t.Errorf("afterwards %v, configured %t", k.table, k.configured)
			}
		} else if !slices.Equal(k.table, inTurn(8, 4)) || k.configured {
			t.Errorf("afterwards %v, configured %t", k.table, k.configured)
		}
	}
}

func TestRSSErrors(t *testing.T) {
	const cannot = "the RSS table of eth0 cannot be made to lead to queues [1] alone: "
	for _, c := range []struct {
		name string
		edit func(*card)
		want string
		left []uint32 // the table afterwards
	}{
		{"not allowed", func(c *card) { c.refuse = unix.EPERM }, cannot + "operation not permitted; run as root or with CAP_NET_ADMIN", []uint32{0, 1, 0, 1}},
		{"not possible", func(c *card) { c.refuse = unix.EOPNOTSUPP },
			cannot + "operation not supported; serve all queues, or give it fewer with `channels`", []uint32{0, 1, 0, 1}},
		{"a driver with a mind of its own", func(c *card) { c.odd = true },
			cannot + "its driver took the table, and shows another one than was set; serve all queues, or give it fewer with `channels`", []uint32{0, 1, 0, 1}},
	} {
		k := newCard(t, 4, 2)
		c.edit(k)
		r, err := k.read()
		must(t, err)
		if err := r.Spread([]int{1}); err == nil || err.Error() != c.want {
			t.Errorf("%s:\n%v, want\n%s", c.name, err, c.want)
		}
		// Nothing is left to be undone, also where it could be by now.
		k.refuse = 0
		sets := k.sets
		if err := r.Restore(); err != nil || k.sets != sets || !slices.Equal(k.table, c.left) {
			t.Errorf("%s: afterwards %v, set %d times more, %v", c.name, k.table, k.sets-sets, err)
		}
	}

	k := newCard(t, 4, 2)
	r, err := k.read()
	must(t, err)
	must(t, r.Spread([]int{1}))
	k.refuse = unix.EBUSY
	want := "give eth0 its RSS table of before back: device or resource busy; `ethtool -X eth0 default` has it lead to all queues"
	if err := r.Restore(); err == nil || err.Error() != want || !errors.Is(err, unix.EBUSY) {
		t.Errorf("%v, want\n%s", err, want)
	}
	k.gone = true
	if _, _, err := r.Astray([]int{1}); err == nil || err.Error() != "read the RSS table of eth0: no such device" {
		t.Errorf("%v", err)
	}
	if err := r.Restore(); err != nil {
		t.Errorf("an interface that is gone: %v", err)
	}
}

func TestReadRSSRefuses(t *testing.T) {
	if _, err := (&card{t: t}).read(); !errors.Is(err, ErrNoRSS) || err.Error() != "eth0: its driver has no RSS table" {
		t.Errorf("a driver without: %v", err)
	}
	if _, err := (&card{t: t, table: []uint32{}}).read(); !errors.Is(err, ErrNoRSS) {
		t.Errorf("a table without entries: %v", err)
	}
	if _, err := newCard(t, maxRSS+1, 2).read(); err == nil || err.Error() != "read the RSS table of eth0: its driver tells of 65537 entries" {
		t.Errorf("too many entries: %v", err)
	}
	if _, err := (&card{t: t, gone: true}).read(); !errors.Is(err, unix.ENODEV) || errors.Is(err, ErrNoRSS) {
		t.Errorf("an interface that is gone: %v", err)
	}
}

// TestRequest compares a request byte by byte with struct ethtool_rxfh.
func TestRequest(t *testing.T) {
	n := binary.NativeEndian
	want := n.AppendUint32(nil, 0x47)                 // cmd
	want = n.AppendUint32(want, 0)                    // rss_context
	want = n.AppendUint32(want, 3)                    // indir_size
	want = n.AppendUint32(want, 0)                    // key_size
	want = append(want, 0, 0xff, 0, 0)                // hfunc, input_xfrm, rsvd8
	want = n.AppendUint32(want, 0)                    // rsvd32
	for _, q := range []uint32{7, 0x01020304, 4095} { // rss_config
		want = n.AppendUint32(want, q)
	}
	if got := rxfh(unix.ETHTOOL_SRSSH, xfrmNoChange, []uint32{7, 0x01020304, 4095}); !bytes.Equal(got, want) {
		t.Errorf("%v, want\n%v", got, want)
	}
}

// TestRSSOfVeth asks the kernel: veth has no table.
func TestRSSOfVeth(t *testing.T) {
	l := newLab(t, 1, 2)
	name := l.links[0].Attrs().Name
	files := openFiles(t)
	if _, err := ReadRSS(name); !errors.Is(err, ErrNoRSS) || err.Error() != name+": its driver has no RSS table" {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"nosuch0", name + "-and-more-than-fits"} {
		if _, err := ReadRSS(name); !errors.Is(err, unix.ENODEV) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if now := openFiles(t); now != files {
		t.Errorf("%d open files, before %d", now, files)
	}
}
