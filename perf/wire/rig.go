package wire

import (
	"context"
	"errors"
	"net"

	"xlvs/testenv"
)

// A rig is one forwarder's surroundings, made anew for each so that nothing of another is left in them.
//
//	station                                     forwarder
//	  generator, XDP      eth0 ============== eth0   receives
//	  sink, XDP           eth1 ============== eth1   sends
//
// Where frames go back the way they came, the sink is at the station's eth0 too.
type rig struct {
	lab       *testenv.Lab
	station   *station
	forwarder *testenv.Host // nil: a cable from eth0 to eth1 of the station
	cores     cores
	kernel    []int            // threads of the kernel that work for the forwarder
	nextHop   net.HardwareAddr // of all backends: the sink's interface
	first     net.HardwareAddr // what the generator sends to
	own       net.HardwareAddr // the forwarder's interface towards the sink
}

// A way is how frames go from generator to sink.
type way int

const (
	through way = iota // in by one interface of the forwarder, out by the other
	back               // in and out by the same
	cable              // there is no forwarder
)

// newRig builds the namespaces, cables and the sink.
func newRig(ctx context.Context, c cores, w way) (r *rig, err error) {
	r = &rig{cores: c}
	if r.lab, err = testenv.NewEmpty(ctx, testenv.Options{}); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	host, err := r.lab.AddHost("station")
	if err != nil {
		return r, err
	}
	if err := quiet(host); err != nil {
		return r, err
	}
	if w == cable {
		err = r.lab.Connect(host, "eth0", host, "eth1", testenv.LinkOptions{})
	} else {
		err = r.connect(host)
	}
	if err != nil {
		return r, err
	}
	sinkIf := "eth1"
	if w == back {
		sinkIf = "eth0"
	}
	if r.nextHop, err = host.MAC(sinkIf); err != nil {
		return r, err
	}
	r.first, r.own = r.nextHop, r.nextHop
	if w != cable {
		if r.first, err = r.forwarder.MAC("eth0"); err != nil {
			return r, err
		}
		if r.own, err = r.forwarder.MAC(sinkIf); err != nil {
			return r, err
		}
	}
	peer, peerIf := r.forwarder, sinkIf
	if w == cable {
		peer, peerIf = host, "eth0"
	}
	r.station, err = newStation(host, c.station, sinkIf, peer, peerIf)
	return r, err
}

func (r *rig) connect(station *testenv.Host) (err error) {
	if r.forwarder, err = r.lab.AddHost("forwarder"); err != nil {
		return err
	}
	if err := quiet(r.forwarder); err != nil {
		return err
	}
	for _, eth := range []string{"eth0", "eth1"} {
		if err := r.lab.Connect(station, eth, r.forwarder, eth, testenv.LinkOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// quiet keeps a host's kernel from sending anything on its own.
func quiet(h *testenv.Host) error {
	return h.Sysctl(map[string]string{
		"net.ipv6.conf.all.disable_ipv6":     "1",
		"net.ipv6.conf.default.disable_ipv6": "1",
	})
}

// ifindex returns the index of an interface of a host.
func ifindex(h *testenv.Host, name string) (int, error) {
	l, err := h.Netlink().LinkByName(name)
	if err != nil {
		return 0, err
	}
	return l.Attrs().Index, nil
}

// Close takes everything down.
func (r *rig) Close() error {
	var errs []error
	if r.station != nil {
		errs = append(errs, r.station.Close())
	}
	if r.lab != nil {
		errs = append(errs, r.lab.Close())
	}
	return errors.Join(errs...)
}
