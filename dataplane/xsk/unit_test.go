package xsk

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

const mapsText = `55d0c0a00000-55d0c0a21000 rw-p 00000000 00:00 0                          [heap]
7f0a2c000000-7f0a2c009000 rw-s 100000000 00:08 4242                      socket:[4242]
7f0a2c010000-7f0a2c012000 rw-s 80000000 00:08 4243                       socket:[4243]
7f0a2d000000-7f0a2d001000 r--p 00001000 fe:00 99                         /lib/socket:[7]/x
`

func TestParseMaps(t *testing.T) {
	want := []mapping{
		{0x7f0a2c000000, 0x7f0a2c009000, unix.XDP_UMEM_PGOFF_FILL_RING, 4242},
		{0x7f0a2c010000, 0x7f0a2c012000, unix.XDP_PGOFF_TX_RING, 4243},
	}
	if d := cmp.Diff(want, parseMaps([]byte(mapsText)), cmp.AllowUnexported(mapping{})); d != "" {
		t.Error(d)
	}
}

func FuzzParseMaps(f *testing.F) {
	f.Add([]byte(mapsText))
	f.Add([]byte("1-0 rw-s 0 0 1 socket:[1]"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, m := range parseMaps(text) {
			if m.end <= m.start {
				t.Errorf("mapping %x-%x would be unmapped", m.start, m.end)
			}
		}
	})
}

func TestAsavieErrorFindsTheErrno(t *testing.T) {
	for _, c := range []struct {
		text  string
		errno unix.Errno
		want  string
	}{
		{"syscall.Bind SockaddrXDP failed: device or resource busy", unix.EBUSY, "bind: device or resource busy"},
		{"syscall.Socket failed: operation not permitted", unix.EPERM, "socket: operation not permitted"},
		{"unix.SetsockoptUint64 XDP_UMEM_REG failed: no buffer space available", unix.ENOBUFS, "registering the packet memory: no buffer space available"},
		{"unix.SetsockoptUint64 XDP_UMEM_FILL_RING failed: invalid argument", unix.EINVAL, "making the rings: invalid argument"},
		{"syscall.Bind SockaddrXDP failed: errno 524", 524, "bind: errno 524"},
		{"something new", 0, "opening the first socket: something new"},
	} {
		err := asavieError(errors.New(c.text))
		if err.Error() != c.want {
			t.Errorf("%q becomes %q, want %q", c.text, err, c.want)
		}
		if c.errno != 0 && !errors.Is(err, c.errno) {
			t.Errorf("%q is not %v", c.text, c.errno)
		}
	}
}

func TestOpenErrorsSayWhatToDo(t *testing.T) {
	d := &device{name: "eth0", queue: 3, mtu: 1500}
	for errno, want := range map[unix.Errno]string{
		unix.EBUSY:        "queue 3 of eth0 is in use by another AF_XDP socket",
		unix.EPERM:        "CAP_NET_RAW",
		unix.ENODEV:       "no interface eth0",
		unix.EINVAL:       "MTU of 1500",
		unix.EOPNOTSUPP:   "`bind: copy`",
		unix.ENOBUFS:      "ulimit -l",
		unix.EAFNOSUPPORT: "CONFIG_XDP_SOCKETS",
		unix.ENOPROTOOPT:  "`busy_poll: off`",
	} {
		err := openError(d, unix.XDP_ZEROCOPY, failed("bind", errno))
		if !strings.Contains(err.Error(), want) || !errors.Is(err, errno) {
			t.Errorf("%v: %q does not say %q", errno, err, want)
		}
		if !strings.Contains(err.Error(), "queue 3 of eth0 (zero-copy mode)") {
			t.Errorf("%q does not name the port", err)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	port := []Options{{Name: "lo"}}
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"no ports":   {Config{}, "no port"},
		"odd ring":   {Config{Ports: port, Ring: 1000}, "power of two"},
		"small ring": {Config{Ports: port, Ring: 32}, "power of two"},
		"few frames": {Config{Ports: port, Ring: 1024, FramesPerPort: 1024}, "at least 1088"},
		"frame size": {Config{Ports: port, FrameSize: 8192}, "2048 or 4096"},
		"no link":    {Config{Ports: []Options{{Name: "nosuchlink"}}}, "there is no interface nosuchlink"},
		"no index":   {Config{Ports: []Options{{Ifindex: 1 << 30}}}, "there is no interface with index"},
		"other link": {Config{Ports: []Options{{Name: "lo", Ifindex: 77}}}, "has index 1, not 77"},
	} {
		s, err := Open(c.cfg)
		if err == nil {
			t.Errorf("%s: opened", name)
			_ = s.Close()
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q does not say %q", name, err, c.want)
		}
	}
	if _, err := bindMode([]Options{{Bind: BindCopy}, {}, {Bind: BindZeroCopy}}); err == nil {
		t.Error("zero-copy and copy were mixed")
	}
	if m, err := bindMode([]Options{{}, {Bind: BindCopy}, {}}); err != nil || m != BindCopy {
		t.Errorf("bindMode = %v, %v", m, err)
	}
}

func TestFrameSizeFollowsTheMTU(t *testing.T) {
	for _, c := range []struct{ want, mtu, size int }{
		{0, 1500, 2048}, {0, 1770, 2048}, {0, 1771, 4096}, {0, 3506, 4096}, {4096, 1500, 4096}, {2048, 1770, 2048},
		{0, 9000, 0}, {2048, 1771, 0}, {1024, 500, 0}, {8192, 1500, 0},
	} {
		got, err := frameSize(c.want, []*device{{name: "a", mtu: 68}, {name: "b", mtu: c.mtu}})
		if got != c.size || (err == nil) != (c.size > 0) {
			t.Errorf("frame size for MTU %d (asked: %d) = %d, %v; want %d", c.mtu, c.want, got, err, c.size)
		}
	}
}
