package wire

import (
	"errors"
	"fmt"
	"net/netip"

	"xlvs/dataplane"
	"xlvs/dataplane/datapath"
	"xlvs/dataplane/flow"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/steer"
	"xlvs/dataplane/table"
	"xlvs/dataplane/xsk"
	"xlvs/maglev"
)

// A director is the real data plane, with a snapshot that does not change.
type director struct {
	polling
	backends int
	mode     table.Mode
	path     *datapath.Datapath
}

func (f *director) start(r *rig) (stop func() error, err error) {
	f.defaults()
	var u undo
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("director: %w", err), u.all())
		}
	}()
	snap, err := snapshot(f.mode, f.backends, 0, table.MAC(r.nextHop), table.MAC(r.own))
	if err != nil {
		return nil, err
	}
	err = r.forwarder.Do(func() (err error) {
		f.path, err = datapath.Open(datapath.Options{
			Interfaces: []datapath.Interface{{Name: "eth0", Bind: xsk.BindCopy}, {Name: "eth1", Bind: xsk.BindCopy}},
			CPUs:       []int{r.cores.forwarder}, Frames: socketFrames, FrameSize: 2048, Ring: f.ring, BusyPoll: f.xsk(),
			Engine: dataplane.Options{
				Flows: flowTable, Seed: "wire", EventRing: 8192,
				Idle: f.idle(),
			},
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	var polls undo // is undone when the worker that polls has ended
	u.add(polls.all)
	u.add(f.path.Close)
	f.path.Engine.Publish(snap)
	if err := f.path.Steerer.Apply(steer.Rules{Services: []steer.Key{{Addr: vip, Port: servicePort, Proto: packet.ProtoTCP}}}); err != nil {
		return nil, err
	}
	if err := f.path.Engine.Start(); err != nil {
		return nil, err
	}
	if err := r.forwarder.Do(f.path.Attach); err != nil {
		return nil, err
	}
	return u.all, f.place(r, func(fd int) { f.path.PollThrough("eth0", 0, fd) }, &polls)
}

// flowTable is the entries of the director's flow table.
const flowTable = 1 << 18

// snapshot is one TCP service, whose last drained backends take no new flows. All backends have one next hop, as
// behind a router.
func snapshot(mode table.Mode, backends, drained int, nextHop, own table.MAC) (*table.Snapshot, error) {
	var names []maglev.Backend
	for i := range backends - drained {
		names = append(names, maglev.Backend{Name: backendName(i), Weight: 1})
	}
	m, err := maglev.New(names, 65537)
	if err != nil {
		return nil, err
	}
	s := &table.Snapshot{Generation: 1, Timeouts: flow.DefaultTimeouts(),
		Ports: []table.Port{{Name: "eth0", MTU: 1500}, {Name: "eth1", MTU: 1500, MAC: own}}}
	svc := table.Service{Live: true, Name: "web", Addr: packet.FromNetip(vip), Port: servicePort, Proto: packet.ProtoTCP,
		Mode: mode, Slots: m.Slots()}
	for i := range backends {
		s.Backends = append(s.Backends, table.Backend{Live: true, Ref: table.MakeRef(i, 0), Name: backendName(i),
			Addr: packet.FromNetip(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})), Port: servicePort,
			Up: true, Resolved: true, Out: 1, MTU: 1500, Eth: table.Eth(nextHop, own)})
		svc.Members = append(svc.Members, s.Backends[i].Ref)
	}
	s.Services = []table.Service{svc}
	return table.New(s)
}

func backendName(i int) string { return fmt.Sprintf("b%05d", i) }
