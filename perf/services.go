package perf

import (
	"fmt"

	"xlvs/dataplane/flow"
	"xlvs/dataplane/packet"
	"xlvs/dataplane/table"
	"xlvs/maglev"
)

// balanced says what a snapshot is to hold: services that differ in their address, each with backends of its own.
type balanced struct {
	mode     table.Mode
	v6       bool
	services int
	backends int // of each service
	slots    uint64
	idle     int  // so many of each service's backends, the last ones, have weight 0
	sloppy   bool // flows may begin with any segment

	generation uint64
}

// jumbo is the MTU of the snapshot's port: a full-sized packet in a tunnel must still fit.
const jumbo = 9000

// snapshot builds the Maglev tables and the snapshot, as control/build.go does from a configuration.
func (o balanced) snapshot() (*table.Snapshot, error) {
	s := &table.Snapshot{Generation: o.generation, Timeouts: flow.DefaultTimeouts(), Ports: []table.Port{{Name: "mem", MTU: jumbo}}}
	for i := range o.services {
		names := members(fmt.Sprintf("s%05d-", i), o.backends)
		for k := len(names) - o.idle; k < len(names); k++ {
			names[k].Weight = 0
		}
		m, err := maglev.New(names, o.slots)
		if err != nil {
			return nil, err
		}
		svc := table.Service{Live: true, Ref: table.MakeRef(i, 0), Name: fmt.Sprintf("s%05d", i), Addr: packet.FromNetip(vip(o.v6, i)),
			V6: o.v6, Port: servicePort, Proto: packet.ProtoTCP, Mode: o.mode, SloppyTCP: o.sloppy, Slots: m.Slots()}
		for k := range names {
			b := o.backend(svc.Ref, len(s.Backends), names[k].Name)
			s.Backends = append(s.Backends, b)
			if names[k].Weight > 0 {
				svc.Members = append(svc.Members, b.Ref)
			}
		}
		s.Services = append(s.Services, svc)
	}
	return table.New(s)
}

func (o balanced) backend(service table.Ref, slot int, name string) table.Backend {
	b := table.Backend{Live: true, Ref: table.MakeRef(slot, 0), Service: service, Name: name, Addr: packet.FromNetip(backendAddr(o.v6, slot)),
		V6: o.v6, Port: backendPort, Up: true, Resolved: true, MTU: jumbo}
	if o.mode == table.DR {
		b.Port = servicePort
	}
	b.Eth = table.Eth(table.MAC{2, 0, 1, byte(slot >> 16), byte(slot >> 8), byte(slot)}, table.MAC{2, 0, 0, 0, 0, 1})
	b.TunSrc = packet.FromNetip(vip(o.v6, 0))
	return b
}

// members are n backends of weight 1 in the order of their names.
func members(prefix string, n int) []maglev.Backend {
	out := make([]maglev.Backend, n)
	for i := range out {
		out[i] = maglev.Backend{Name: fmt.Sprintf("%sb%05d", prefix, i), Weight: 1}
	}
	return out
}
