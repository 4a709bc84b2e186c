package flowlog

import (
	"bufio"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var epoch = time.Date(2026, 2, 3, 4, 5, 6, 789012345, time.UTC)

// clock is a time that only the test moves.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func testFlow() FlowRecord {
	return FlowRecord{
		Worker: 1, Service: "web", Backend: "web1", Mode: "dr", Protocol: "tcp",
		Client: netip.MustParseAddrPort("198.51.100.7:40000"),
		VIP:    netip.MustParseAddrPort("203.0.113.10:80"),
		Server: netip.MustParseAddrPort("10.0.0.11:80"),
	}
}

// samples has one record of every kind; a new kind without one fails TestEverySample.
func samples() [numKinds]Record {
	mac, other := [6]byte{2, 0, 0, 0, 0, 1}, [6]byte{2, 0, 0, 0, 0, 0xb}
	vip, backend := netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("10.0.0.11")
	v6 := netip.MustParseAddr("2001:db8::11")
	return [numKinds]Record{
		directorStart:     DirectorStart{Version: "v1.0.0", PID: 4242, Workers: 2, Interfaces: []string{"eth0", "eth1"}, File: "/etc/xlvs/xlvs.yaml"},
		directorReady:     DirectorReady{Took: 84 * time.Millisecond},
		directorStop:      DirectorStop{Reason: "SIGTERM", Uptime: time.Hour},
		configApplied:     ConfigApplied{Generation: 7, Services: 3, Backends: 12, File: "/etc/xlvs/xlvs.yaml"},
		controlWarning:    Warning{Part: "announce", Err: errors.New("join ff02::1:ff00:1 on eth0: no such device")},
		configRejected:    ConfigRejected{File: "/etc/xlvs/xlvs.yaml", Err: errors.New("line 1\nline \"2\"")},
		settingChanged:    SettingChanged{Setting: "net/ipv6/conf/eth0/keep_addr_on_down", Was: 0, Value: 1, Reason: "eth0 is to keep its IPv6 addresses when it is set down"},
		interfaceAttached: InterfaceAttached{Interface: "eth0", Queues: 2, Attach: "native", Bind: "copy"},
		interfaceRSS:      InterfaceRSS{Interface: "eth0", Entries: 128, Moved: 64},
		linkUp:            LinkUp{Interface: "eth0"},
		linkDown:          LinkDown{Interface: "eth0", Reason: "it is set down or has no carrier"},
		tablePublished:    TablePublished{Service: "web", Generation: 8, Backends: 2, Slots: 65537, SlotsMoved: 21846, Build: 2900 * time.Microsecond},
		backendUp:         BackendUp{Service: "web", Backend: "web1", Address: v6, Reason: "http status 200"},
		backendDown:       BackendDown{Service: "web", Backend: "web1", Address: netip.AddrFrom16(backend.As16()), Reason: "connection refused"},
		neighbourResolved: NeighbourResolved{Address: backend, MAC: mac, Interface: "eth1"},
		neighbourLost:     NeighbourLost{Address: backend, Interface: "eth1", Reason: "no answer"},
		vipAnnounced:      VIPAnnounced{Address: vip, MAC: mac, Interface: "eth0"},
		vipConflict:       VIPConflict{Address: vip, MAC: other, Interface: "eth0"},
		flowStarted:       flowNew{testFlow()},
		flowEnded:         flowEnd{FlowEndRecord{FlowRecord: testFlow(), Packets: 9, Bytes: 812, Duration: 500 * time.Millisecond, State: "time_wait"}},
		dropSummary:       DropSummary{Interval: 10 * time.Second, Reasons: map[string]uint64{"no_backend": 12, "malformed": 3}},
		eventsLost:        EventsLost{Worker: 0, Count: 4096},
		suppressed:        logSuppressed{interval: 10 * time.Second, sample: 1000, rateLimited: 5, writeErrors: 1},
	}
}

// openTest opens a log in a file of the test's own directory.
func openTest(t *testing.T, o Options, c *clock) (*Log, string) {
	t.Helper()
	o.Output = filepath.Join(t.TempDir(), "xlvs.log")
	l, err := newLog(o, c.now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, o.Output
}

// lines reads a log; every line must be one JSON object.
func lines(t *testing.T, path string) []map[string]any {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []map[string]any
	for s := bufio.NewScanner(f); s.Scan(); {
		var m map[string]any
		if err := json.Unmarshal(s.Bytes(), &m); err != nil {
			t.Fatalf("%q is not JSON: %v", s.Text(), err)
		}
		all = append(all, m)
	}
	return all
}
