package flowlog

import (
	"net/netip"
	"time"

	"go.uber.org/zap/zapcore"
)

// A Record is one event with its keys. Only this package can make new kinds.
type Record interface {
	zapcore.ObjectMarshaler
	kind() kind
}

// leveled is a Record whose level is not always that of its kind.
type leveled interface{ level() zapcore.Level }

// kind indexes kinds, the closed list of events.
type kind uint8

const (
	directorStart kind = iota
	directorReady
	directorStop
	configApplied
	configRejected
	controlWarning
	settingChanged
	interfaceAttached
	interfaceRSS
	linkUp
	linkDown
	tablePublished
	backendUp
	backendDown
	neighbourResolved
	neighbourLost
	vipAnnounced
	vipConflict
	flowStarted
	flowEnded
	dropSummary
	eventsLost
	suppressed
	numKinds
)

var kinds = [numKinds]struct {
	name  string
	level zapcore.Level
}{
	directorStart:     {"director.start", zapcore.InfoLevel},
	directorReady:     {"director.ready", zapcore.InfoLevel},
	directorStop:      {"director.stop", zapcore.InfoLevel},
	configApplied:     {"config.applied", zapcore.InfoLevel},
	configRejected:    {"config.rejected", zapcore.ErrorLevel},
	controlWarning:    {"control.warning", zapcore.WarnLevel},
	settingChanged:    {"setting.changed", zapcore.InfoLevel},
	interfaceAttached: {"interface.attached", zapcore.InfoLevel},
	interfaceRSS:      {"interface.rss", zapcore.InfoLevel},
	linkUp:            {"link.up", zapcore.InfoLevel},
	linkDown:          {"link.down", zapcore.WarnLevel},
	tablePublished:    {"table.published", zapcore.InfoLevel},
	backendUp:         {"backend.up", zapcore.InfoLevel},
	backendDown:       {"backend.down", zapcore.WarnLevel},
	neighbourResolved: {"neighbour.resolved", zapcore.InfoLevel},
	neighbourLost:     {"neighbour.lost", zapcore.WarnLevel},
	vipAnnounced:      {"vip.announced", zapcore.InfoLevel},
	vipConflict:       {"vip.conflict", zapcore.ErrorLevel},
	flowStarted:       {"flow.new", zapcore.InfoLevel},
	flowEnded:         {"flow.end", zapcore.InfoLevel},
	dropSummary:       {"drop.summary", zapcore.InfoLevel},
	eventsLost:        {"events.lost", zapcore.WarnLevel},
	suppressed:        {"log.suppressed", zapcore.InfoLevel},
}

// Events returns the names of all events that can be written.
func Events() []string {
	names := make([]string, numKinds)
	for i, k := range kinds {
		names[i] = k.name
	}
	return names
}

// DirectorStart is director.start: the process has read its configuration and begins.
type DirectorStart struct {
	Version    string
	PID        int
	Workers    int
	Interfaces []string
	File       string // configuration file
}

func (DirectorStart) kind() kind { return directorStart }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r DirectorStart) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("version", r.Version)
	e.AddInt("pid", r.PID)
	e.AddInt("workers", r.Workers)
	e.AddString("file", r.File)
	return e.AddArray("interfaces", stringList(r.Interfaces))
}

// DirectorReady is director.ready: all interfaces are attached and workers forward.
type DirectorReady struct {
	Took time.Duration // since the start of the process
}

func (DirectorReady) kind() kind { return directorReady }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r DirectorReady) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddInt64("took_ms", r.Took.Milliseconds())
	return nil
}

// DirectorStop is director.stop, the last event of an orderly end.
type DirectorStop struct {
	Reason string // the signal, or the error that ended it
	Failed bool   // it was an error
	Uptime time.Duration
}

// level implements leveled.
func (r DirectorStop) level() zapcore.Level {
	if r.Failed {
		return zapcore.ErrorLevel
	}
	return zapcore.InfoLevel
}

func (DirectorStop) kind() kind { return directorStop }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r DirectorStop) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("reason", r.Reason)
	e.AddInt64("uptime_ms", r.Uptime.Milliseconds())
	return nil
}

// ConfigApplied is config.applied: a configuration is in force.
type ConfigApplied struct {
	Generation uint64
	Services   int
	Backends   int
	File       string
}

func (ConfigApplied) kind() kind { return configApplied }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r ConfigApplied) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddUint64("generation", r.Generation)
	e.AddInt("services", r.Services)
	e.AddInt("backends", r.Backends)
	e.AddString("file", r.File)
	return nil
}

// ConfigRejected is config.rejected: a reload failed, and the old configuration stays in force.
type ConfigRejected struct {
	File string
	Err  error // all of the loader's message; it may have several lines
}

func (ConfigRejected) kind() kind { return configRejected }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r ConfigRejected) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("file", r.File)
	e.AddString("error", errorText(r.Err))
	return nil
}

// Warning is control.warning: a part of the control loop failed at something and tries again.
type Warning struct {
	Part string // neigh | announce | steer | reconcile | log | api
	Err  error
}

func (Warning) kind() kind { return controlWarning }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r Warning) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("part", r.Part)
	e.AddString("error", errorText(r.Err))
	return nil
}

// SettingChanged is setting.changed: the director has changed a setting of the kernel's, until it ends.
type SettingChanged struct {
	Setting string // as sysctl(8) takes it
	Was     int
	Value   int // that it has now
	Reason  string
}

func (SettingChanged) kind() kind { return settingChanged }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r SettingChanged) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("setting", r.Setting)
	e.AddInt("was", r.Was)
	e.AddInt("value", r.Value)
	e.AddString("reason", r.Reason)
	return nil
}

// InterfaceAttached is interface.attached: the steering program and the sockets of an interface are in place.
type InterfaceAttached struct {
	Interface string
	Queues    int
	Attach    string // native | generic
	Bind      string // zerocopy | copy
}

func (InterfaceAttached) kind() kind { return interfaceAttached }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r InterfaceAttached) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("interface", r.Interface)
	e.AddInt("queues", r.Queues)
	e.AddString("attach", r.Attach)
	e.AddString("bind", r.Bind)
	return nil
}

// InterfaceRSS is interface.rss: an interface's RSS table leads to the queues that are served, and to no others.
type InterfaceRSS struct {
	Interface string
	Entries   int // of the table
	Moved     int // how many led to other queues before
}

func (InterfaceRSS) kind() kind { return interfaceRSS }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r InterfaceRSS) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("interface", r.Interface)
	e.AddInt("entries", r.Entries)
	e.AddInt("moved", r.Moved)
	return nil
}

// LinkUp is link.up: an interface that was down forwards again.
type LinkUp struct{ Interface string }

func (LinkUp) kind() kind { return linkUp }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r LinkUp) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("interface", r.Interface)
	return nil
}

// LinkDown is link.down: an interface neither receives nor sends for now, or for good.
type LinkDown struct{ Interface, Reason string }

func (LinkDown) kind() kind { return linkDown }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r LinkDown) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("interface", r.Interface)
	e.AddString("reason", r.Reason)
	return nil
}

// VIPAnnounced is vip.announced: the director has told the segment that a virtual address is at its MAC.
type VIPAnnounced struct {
	Address   netip.Addr
	MAC       [6]byte
	Interface string
}

func (VIPAnnounced) kind() kind { return vipAnnounced }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r VIPAnnounced) MarshalLogObject(e zapcore.ObjectEncoder) error {
	addNeighbour(e, r.Address, r.MAC, r.Interface)
	return nil
}

// VIPConflict is vip.conflict: another station answers for a virtual address.
type VIPConflict struct {
	Address   netip.Addr
	MAC       [6]byte // the other's
	Interface string
}

func (VIPConflict) kind() kind { return vipConflict }

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (r VIPConflict) MarshalLogObject(e zapcore.ObjectEncoder) error {
	addNeighbour(e, r.Address, r.MAC, r.Interface)
	return nil
}
