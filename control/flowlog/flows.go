package flowlog

import (
	"net/netip"
	"slices"
	"time"

	"go.uber.org/zap/zapcore"
)

// FlowRecord is one flow, as the worker that owns it saw it begin.
type FlowRecord struct {
	Time     time.Time // when the worker saw it; zero: now
	Worker   int
	Service  string
	Backend  string
	Mode     string // dr | tun | nat
	Protocol string // tcp | udp
	Client   netip.AddrPort
	VIP      netip.AddrPort
	Server   netip.AddrPort // the backend's address and port
}

// FlowEndRecord is one flow that has left the flow table.
type FlowEndRecord struct {
	FlowRecord
	Packets  uint64 // that the owning worker saw: one direction in DR and TUN, both in NAT
	Bytes    uint64 // of those packets, IP headers included
	Duration time.Duration
	State    string // of the flow when it ended, as IPVS names it, in lower case
}

func (f *FlowRecord) addTo(e zapcore.ObjectEncoder) {
	e.AddInt("worker", f.Worker)
	e.AddString("service", f.Service)
	e.AddString("backend", f.Backend)
	e.AddString("mode", f.Mode)
	e.AddString("protocol", f.Protocol)
	addEndpoint(e, "client", "client_port", f.Client)
	addEndpoint(e, "vip", "vip_port", f.VIP)
	addEndpoint(e, "server", "server_port", f.Server)
}

// Address and port are keys of their own: analysts group by address.
func addEndpoint(e zapcore.ObjectEncoder, addr, port string, ap netip.AddrPort) {
	e.AddString(addr, addrText(ap.Addr()))
	e.AddUint16(port, ap.Port())
}

type flowNew struct{ FlowRecord }

func (flowNew) kind() kind { return flowStarted }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r flowNew) MarshalLogObject(e zapcore.ObjectEncoder) error {
	r.addTo(e)
	return nil
}

type flowEnd struct{ FlowEndRecord }

func (flowEnd) kind() kind { return flowEnded }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r flowEnd) MarshalLogObject(e zapcore.ObjectEncoder) error {
	r.addTo(e)
	e.AddUint64("packets", r.Packets)
	e.AddUint64("bytes", r.Bytes)
	e.AddInt64("duration_ms", r.Duration.Milliseconds())
	e.AddString("state", r.State)
	return nil
}

// DropSummary is drop.summary: what the workers dropped in an interval, by reason.
type DropSummary struct {
	Interval time.Duration
	Reasons  map[string]uint64 // packets by reason, as `xlvs status` names them
}

func (DropSummary) kind() kind { return dropSummary }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r DropSummary) MarshalLogObject(e zapcore.ObjectEncoder) error {
	var total uint64
	for _, n := range r.Reasons {
		total += n
	}
	e.AddInt64("interval_ms", r.Interval.Milliseconds())
	e.AddUint64("packets", total)
	return e.AddObject("reasons", counts(r.Reasons))
}

// counts writes a map in the order of its keys, so that equal summaries are equal lines.
type counts map[string]uint64

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (c counts) MarshalLogObject(e zapcore.ObjectEncoder) error {
	keys := make([]string, 0, len(c))
	for k := range c {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		e.AddUint64(k, c[k])
	}
	return nil
}

// EventsLost is events.lost: a worker's event ring was full, and so many flow events never reached the log.
type EventsLost struct {
	Worker int
	Count  uint64 // since the last such event of this worker
}

func (EventsLost) kind() kind { return eventsLost }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r EventsLost) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddInt("worker", r.Worker)
	e.AddUint64("count", r.Count)
	return nil
}

// logSuppressed is written by ReportSuppressed.
type logSuppressed struct {
	interval    time.Duration
	sample      uint64
	rateLimited uint64
	writeErrors uint64
}

func (logSuppressed) kind() kind { return suppressed }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r logSuppressed) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddInt64("interval_ms", r.interval.Milliseconds())
	e.AddUint64("flow_sample", r.sample)
	e.AddUint64("rate_limited", r.rateLimited)
	e.AddUint64("write_errors", r.writeErrors)
	return nil
}
