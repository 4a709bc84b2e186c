// Package steer decides, in the kernel and frame by frame, what is the director's and what is the kernel's.
//
// One XDP program an interface sends the director's frames to the AF_XDP socket of the queue they
// came in on, and passes everything else to the kernel; it changes no frame. Which frames are the director's
// is written in bpf/steer.c and, the same in Go for use offline, in Decide. The rules are in six maps that all
// interfaces share; sockets, counters and what was asked of the rules lately are each interface's own.
//
// The package also has the decapsulator for real servers without ipip and ip6tnl (Decap).
package steer

import (
	"errors"
	"fmt"
	"sync"
	"syscall"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

// A Steerer holds the rules in the kernel, and the programs attached to interfaces. Its methods may be called
// from any goroutine. Nothing is pinned: when the process ends, however it ends, the kernel takes
// programs and maps away.
type Steerer struct {
	mu       sync.Mutex
	spec     *ebpf.CollectionSpec
	rules    ruleMaps
	changes  uint32 // what is in the map generation
	attached map[*Attachment]struct{}
	closed   bool
}

// ruleMaps are the maps that the programs of all interfaces share.
type ruleMaps struct {
	Dests    *ebpf.Map `ebpf:"dests"`
	Services *ebpf.Map `ebpf:"services"`
	Sources  *ebpf.Map `ebpf:"sources"`
	Replies  *ebpf.Map `ebpf:"replies"`

	Prefixes       *ebpf.Map `ebpf:"prefixes"`
	PrefixServices *ebpf.Map `ebpf:"prefix_services"`

	Generation *ebpf.Map `ebpf:"generation"`
}

func (m *ruleMaps) byName() map[string]*ebpf.Map {
	return map[string]*ebpf.Map{
		steerMapDests: m.Dests, steerMapServices: m.Services,
		steerMapSources: m.Sources, steerMapReplies: m.Replies,
		steerMapPrefixes: m.Prefixes, steerMapPrefixServices: m.PrefixServices,
		steerMapGeneration: m.Generation,
	}
}

var errClosed = errors.New("steering: already closed")

// Load makes the rule maps, empty. It raises RLIMIT_MEMLOCK on kernels that charge BPF memory to it (before 5.11).
func Load() (*Steerer, error) {
	if err := unlimitMemory(); err != nil {
		return nil, fmt.Errorf("steering: %w", err)
	}
	spec, err := loadSteer()
	if err != nil {
		return nil, fmt.Errorf("steering: read the embedded program: %w", err)
	}
	s := &Steerer{spec: spec, attached: make(map[*Attachment]struct{})}
	if err := spec.LoadAndAssign(&s.rules, nil); err != nil {
		return nil, explain("steering: create the rule maps", err)
	}
	return s, nil
}

// Apply makes the kernel's rules those given, whatever they were: it compares with what is in the maps, adds and
// changes first and removes last, so that frames that both old and new rules give to the director go there
// throughout. On an error the maps are somewhere between old and new, and calling it again is right.
func (s *Steerer) Apply(rules Rules) error {
	set, err := NewRuleSet(rules)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	// Ports before the addresses whose roles say to look ports up.
	services := plan("services", s.rules.Services, set.services)
	replies := plan("NAT backends", s.rules.Replies, set.replies)
	dests := plan("VIPs and own addresses", s.rules.Dests, set.dests)
	sources := plan("NAT backend addresses", s.rules.Sources, set.sources)
	prefixes := plan("VIP prefixes", s.rules.Prefixes, set.prefixes)
	prefixServices := plan("services on prefixes", s.rules.PrefixServices, set.prefixServices)
	if services.nothing() && replies.nothing() && dests.nothing() && sources.nothing() && prefixes.nothing() && prefixServices.nothing() {
		return nil
	}
	for _, step := range []func() error{
		services.add, prefixServices.add, replies.add, prefixes.add, dests.add, sources.add,
		dests.remove, prefixes.remove, sources.remove, services.remove, prefixServices.remove, replies.remove,
	} {
		if err := step(); err != nil {
			return errors.Join(err, s.forget())
		}
	}
	return s.forget()
}

// forget has the programs ask the rules anew. It does so twice: what a program that was under way the first time remembers, on
// a processor that reads out of order, may be the old rules' answer under the new number. Between the two, all such have ended
// (membarrier(2): MEMBARRIER_CMD_GLOBAL waits for a grace period of RCU).
func (s *Steerer) forget() error {
	err := s.advance()
	_, _, _ = unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0) // where it is not allowed, the next change of rules makes up for it
	return errors.Join(err, s.advance())
}

const membarrierGlobal = 1 // include/uapi/linux/membarrier.h

func (s *Steerer) advance() error {
	s.changes++
	if err := s.rules.Generation.Put(uint32(0), s.changes); err != nil {
		return fmt.Errorf("steering: tell the programs that rules have changed: %w", err)
	}
	return nil
}

// Close detaches the program from all interfaces and frees the maps. Closing twice is harmless.
func (s *Steerer) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	var errs []error
	for a := range s.attached {
		errs = append(errs, a.release())
	}
	clear(s.attached)
	for _, m := range s.rules.byName() {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}

// unlimitMemory raises RLIMIT_MEMLOCK where the kernel charges BPF memory to it.
func unlimitMemory() error {
	if err := rlimit.RemoveMemlock(); err != nil {
		// The library finds out by making a map whether it must, so who may make none gets here too.
		return fmt.Errorf("raise the limit of locked memory: either maps may not be made (needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, before Linux 5.8 CAP_SYS_ADMIN: run as root),"+
			" or the kernel, before 5.11, counts them against that limit (start with `ulimit -l unlimited`, LimitMEMLOCK=infinity, or CAP_SYS_RESOURCE): %w", err)
	}
	return nil
}

// explain says what a person can do about the one error that everybody meets. Offsets that depend on
// the packet are what CAP_PERFMON is for: without it the verifier refuses them, with EACCES.
func explain(doing string, err error) error {
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		return fmt.Errorf("%s: needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (before Linux 5.8: CAP_SYS_ADMIN): run as root: %w", doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
