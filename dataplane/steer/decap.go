package steer

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/cilium/ebpf"
)

// A DecapReason says what the decapsulator did with a frame.
type DecapReason uint32

const (
	DecapStripped      = DecapReason(decapDecapReasonDECAP_STRIPPED)       // the inner packet went to the kernel
	DecapDropECN       = DecapReason(decapDecapReasonDECAP_DROP_ECN)       // outer CE on an inner Not-ECT packet (RFC 6040, 4.2)
	DecapDropError     = DecapReason(decapDecapReasonDECAP_DROP_ERROR)     // the kernel refused to move the frame's start
	DecapPassOther     = DecapReason(decapDecapReasonDECAP_PASS_OTHER)     // no tunnel packet, or not to an outer address
	DecapPassFragment  = DecapReason(decapDecapReasonDECAP_PASS_FRAGMENT)  // a fragment of a tunnel packet
	DecapPassMalformed = DecapReason(decapDecapReasonDECAP_PASS_MALFORMED) // truncated, or contradicts itself
	DecapPassInner     = DecapReason(decapDecapReasonDECAP_PASS_INNER)     // the inner packet is for none of the VIPs
)

// NumDecapReasons is the number of reasons.
const NumDecapReasons = int(decapDecapReasonDECAP_COUNT)

var decapReasonNames = [NumDecapReasons]string{
	DecapStripped: "stripped", DecapDropECN: "drop_ecn", DecapDropError: "drop_error", DecapPassOther: "pass_other",
	DecapPassFragment: "pass_fragment", DecapPassMalformed: "pass_malformed", DecapPassInner: "pass_inner",
}

// String returns the reason's name in metrics and logs.
func (r DecapReason) String() string {
	if int(r) < NumDecapReasons {
		return decapReasonNames[r]
	}
	return "unknown"
}

// DecapCounters are packets by DecapReason, all interfaces and CPUs together.
type DecapCounters [NumDecapReasons]uint64

// Decap is an XDP program for real servers whose kernel has no tunnels. From packets for one of its
// outer addresses it strips an outer IPv4 header (RFC 2003, RFC 4213) or IPv6 header (RFC 2473; with or
// without the destination options that Linux puts behind it), and with it a GRE header (RFC 2784), or a UDP and a GUE
// header of variant 0 (draft-ietf-intarea-gue) once AcceptGUE has named the port. Neither's checksum is verified, as the
// inner packet has its own. It takes the outer ECN mark over as RFC 6040 says, and gives the inner packet to the kernel with its VLAN tag, provided that it is for a permitted VIP. All
// else it passes on as it is. Its methods may be called from any goroutine.
type Decap struct {
	mu      sync.Mutex
	objects decapObjects
	hooks   []*hook
	closed  bool
}

// LoadDecap loads the program for these outer addresses, the real server's own, and VIPs.
func LoadDecap(outer []netip.Addr, vips []netip.Addr) (*Decap, error) {
	if err := unlimitMemory(); err != nil {
		return nil, fmt.Errorf("decapsulator: %w", err)
	}
	d := &Decap{}
	if err := loadDecapObjects(&d.objects, nil); err != nil {
		return nil, explain("decapsulator: load the program", err)
	}
	if err := errors.Join(fill(d.objects.DecapOuters, "outer address", outer), fill(d.objects.DecapVips, "VIP", vips)); err != nil {
		return nil, errors.Join(err, d.objects.Close())
	}
	return d, nil
}

// AcceptGUE makes the program strip GUE that comes to a UDP port; 0: no longer.
func (d *Decap) AcceptGUE(port uint16) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return errors.New("decapsulator: already closed")
	}
	if err := d.objects.GuePort.Set([2]byte{byte(port >> 8), byte(port)}); err != nil {
		return fmt.Errorf("decapsulator: set the port of GUE: %w", err)
	}
	return nil
}

func fill(m *ebpf.Map, what string, addrs []netip.Addr) error {
	for _, a := range addrs {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Zone() != "" {
			return fmt.Errorf("decapsulator: %s %q is not a unicast address without a zone", what, a)
		}
		if err := m.Update(address(a.As16()), uint32(1), ebpf.UpdateAny); err != nil {
			return fmt.Errorf("decapsulator: add %s %s (at most %d): %w", what, a, m.MaxEntries(), err)
		}
	}
	return nil
}

// Attach runs the program on an interface of the network namespace of the calling thread, under
// the rules of Steerer.Attach, and returns what the mode became.
func (d *Decap) Attach(ifindex int, name string, mode Mode) (Mode, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return mode, errors.New("decapsulator: already closed")
	}
	h, err := attachXDP(d.objects.Decap, ifindex, name, mode)
	if err != nil {
		return mode, err
	}
	d.hooks = append(d.hooks, h)
	return h.mode, nil
}

// Counters returns what the program has counted.
func (d *Decap) Counters() (DecapCounters, error) {
	var c DecapCounters
	if err := readCounters(d.objects.DecapCounters, c[:]); err != nil {
		return c, fmt.Errorf("decapsulator: read the counters: %w", err)
	}
	return c, nil
}

// Close detaches the program from all interfaces and unloads it. Closing twice is harmless.
func (d *Decap) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	d.closed = true
	var errs []error
	for _, h := range d.hooks {
		errs = append(errs, h.close())
	}
	return errors.Join(append(errs, d.objects.Close())...)
}
