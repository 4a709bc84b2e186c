package flowlog

import (
	"net"
	"net/netip"
	"time"

	"go.uber.org/zap/zapcore"
)

// TablePublished is table.published: workers have a service's new Maglev table.
type TablePublished struct {
	Service    string
	Generation uint64 // of the snapshot that carries the table
	Backends   int    // that take new flows
	Slots      int    // size of the table; 0 when no backend is left
	SlotsMoved int    // slots that name another backend than before
	Build      time.Duration
}

func (TablePublished) kind() kind { return tablePublished }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r TablePublished) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("service", r.Service)
	e.AddUint64("generation", r.Generation)
	e.AddInt("backends", r.Backends)
	e.AddInt("slots", r.Slots)
	e.AddInt("slots_moved", r.SlotsMoved)
	e.AddInt64("build_us", r.Build.Microseconds())
	return nil
}

// BackendUp is backend.up: a backend of a service takes new flows from now on.
type BackendUp struct {
	Service string
	Backend string
	Address netip.Addr
	Reason  string // what the checker saw
}

func (BackendUp) kind() kind { return backendUp }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r BackendUp) MarshalLogObject(e zapcore.ObjectEncoder) error {
	addBackend(e, r.Service, r.Backend, r.Address, r.Reason)
	return nil
}

// BackendDown is backend.down: a backend of a service takes no new flows from now on.
type BackendDown struct {
	Service string
	Backend string
	Address netip.Addr
	Reason  string // what the checker saw
}

func (BackendDown) kind() kind { return backendDown }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r BackendDown) MarshalLogObject(e zapcore.ObjectEncoder) error {
	addBackend(e, r.Service, r.Backend, r.Address, r.Reason)
	return nil
}

// NeighbourResolved is neighbour.resolved: the next hop towards a backend is known.
type NeighbourResolved struct {
	Address   netip.Addr // of the next hop: the backend, or the gateway before it
	MAC       [6]byte
	Interface string
}

func (NeighbourResolved) kind() kind { return neighbourResolved }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r NeighbourResolved) MarshalLogObject(e zapcore.ObjectEncoder) error {
	addNeighbour(e, r.Address, r.MAC, r.Interface)
	return nil
}

// NeighbourLost is neighbour.lost: the next hop no longer answers or has no route. Frames for the backends behind
// it are dropped, and counted.
type NeighbourLost struct {
	Address   netip.Addr
	MAC       [6]byte // the one known before; zero if none was
	Interface string
	Reason    string
}

func (NeighbourLost) kind() kind { return neighbourLost }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r NeighbourLost) MarshalLogObject(e zapcore.ObjectEncoder) error {
	addNeighbour(e, r.Address, r.MAC, r.Interface)
	e.AddString("reason", r.Reason)
	return nil
}

func addBackend(e zapcore.ObjectEncoder, service, backend string, a netip.Addr, reason string) {
	e.AddString("service", service)
	e.AddString("backend", backend)
	e.AddString("address", addrText(a))
	e.AddString("reason", reason)
}

func addNeighbour(e zapcore.ObjectEncoder, a netip.Addr, mac [6]byte, iface string) {
	e.AddString("address", addrText(a))
	e.AddString("mac", macText(mac))
	e.AddString("interface", iface)
}

// addrText is empty for no address, where netip says "invalid IP"; a key is never left out, so that
// readers need not tell absent from empty.
func addrText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.Unmap().String()
}

func macText(m [6]byte) string {
	if m == [6]byte{} {
		return ""
	}
	return net.HardwareAddr(m[:]).String()
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

type stringList []string

// MarshalLogArray implements zapcore.ArrayMarshaler.
func (l stringList) MarshalLogArray(e zapcore.ArrayEncoder) error {
	for _, s := range l {
		e.AppendString(s)
	}
	return nil
}
