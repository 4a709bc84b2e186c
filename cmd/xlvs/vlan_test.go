package main_test

import (
	"strings"
	"testing"

	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
	"xlvs/testenv"
)

// TestVLAN sends everything through a director whose interface is a trunk: the kernel's TCP and UDP on interfaces of VLANs at
// both ends, in one VLAN for all and in one for each segment, with one tag and with two.
func TestVLAN(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name string
		setup
		outer6 func(inner6 bool) bool // as of everything
	}{
		{name: "one VLAN", setup: setup{lab: testenv.Options{Tags: testenv.Tagged}}},
		{name: "from VLAN to VLAN", setup: setup{lab: testenv.Options{Tags: testenv.Tagged, Layout: testenv.Routed, Queues: 2}}},
		{name: "cross-family tunnels", setup: setup{
			lab:    testenv.Options{Tags: testenv.Tagged, Layout: testenv.Routed, Modes: []table.Mode{table.TUN}},
			config: testenv.ConfigOptions{CrossTunnel: true},
		}, outer6: func(inner6 bool) bool { return !inner6 }},
		{name: "QinQ", setup: setup{lab: testenv.Options{Tags: testenv.QinQ}}},
		{name: "QinQ, from VLAN to VLAN", setup: setup{lab: testenv.Options{Tags: testenv.QinQ, Layout: testenv.Routed}}},
		{name: "generic XDP", setup: setup{
			lab:     testenv.Options{Tags: testenv.Tagged},
			edit:    replace("  - name: eth0\n", "  - name: eth0\n    attach: generic\n"),
			prepare: noSuperPackets,
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := start(t, c.setup)
			if w.SoftVLANs {
				t.Log("this kernel has no VLAN interfaces (CONFIG_VLAN_8021Q): programs of the lab's tag and untag for the hosts' stacks")
			}
			trunks := watchTrunks(t, w)
			everything(t, w, c.outer6)
			checkTrunks(t, w, trunks)
			tagsInFrames(t, w)
		})
	}
}

// Datagrams of several fragments cross from VLAN to VLAN as well, those included that the director itself cuts for a tunnel.
func TestLargeDatagramsInVLANs(t *testing.T) {
	w := start(t, setup{lab: testenv.Options{Tags: testenv.Tagged, Layout: testenv.Routed}})
	eachRow(t, w, func(t *testing.T, m table.Mode, v6 bool) {
		conn := dialUDP(t, w, w.VIP(m, v6))
		for _, n := range []int{4000, 1473, 9000} {
			until(t, "a large datagram comes back", func() bool { return echoes(conn, payload(n)) })
		}
	})
}

// watchTrunks watches the trunk of every server.
func watchTrunks(t *testing.T, w *world) map[*testenv.Server]func() map[packet.Tags]int {
	t.Helper()
	from, err := w.Director.MAC("eth0")
	fatal(t, err)
	stops := map[*testenv.Server]func() map[packet.Tags]int{}
	for _, s := range w.Servers {
		stops[s] = watchTrunk(t, s.Host, "eth0", from, w.ClientAddr)
	}
	return stops
}

// checkTrunks wants every frame of the client's that the director sent to a server to have had the tags of the server's segment.
func checkTrunks(t *testing.T, w *world, stops map[*testenv.Server]func() map[packet.Tags]int) {
	t.Helper()
	for s, stop := range stops {
		frames, want := stop(), w.ServerTags(s.Mode)
		// A router forwards to TUN servers of the routed lab.
		if far := s.Mode == table.TUN && w.Options.Layout == testenv.Routed; !far && frames[want] < 100 {
			t.Errorf("%s received %d of the client's frames with its tags, %#x", s.Name, frames[want], want)
		}
		for tags, n := range frames {
			if tags != want {
				t.Errorf("%s received %d frames with tags %#x, want %#x", s.Name, n, tags, want)
			}
		}
	}
}

// tagsInFrames looks at the offload that would hide tags from AF_XDP: off while the director runs, and on again after it.
func tagsInFrames(t *testing.T, w *world) {
	t.Helper()
	parses := func() (on []string) {
		features, err := w.Director.Features("eth0")
		fatal(t, err)
		for name, is := range features {
			if is && strings.HasPrefix(name, "rx-vlan-") && strings.HasSuffix(name, "hw-parse") {
				on = append(on, name)
			}
		}
		return on
	}
	if on := parses(); len(on) != 0 {
		t.Errorf("while the director runs, the interface takes tags out of frames: %v", on)
	}
	fatal(t, w.dir.Stop())
	if on := parses(); len(on) != 2 {
		t.Errorf("after the director's end, the interface does not take tags out of frames as before: %v", on)
	}
}
