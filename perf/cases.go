package perf

import (
	"fmt"

	"xlvs/dataplane/flow"
	"xlvs/dataplane/packet"
)

// establish opens all flows, one after the other: SYN, then ACK.
func (b *bench) establish() error {
	b.src.random, b.src.backend = false, nil
	for _, flags := range []byte{packet.FlagSYN, packet.FlagACK} {
		b.src.next, b.src.template = 0, tcpFrame(b.v6, false, flags, 64)
		b.drive(b.flows)
	}
	b.refreshed = b.now
	if got := b.engine.FlowTable(0).Used; got != b.flows {
		return fmt.Errorf("%d of %d flows are in the table after each was opened", got, b.flows)
	}
	return nil
}

// hit measures packets of established flows at random. A few are sent before: the case before left its own data in
// the caches.
func (b *bench) hit(template, replies []byte, n int, cold bool) ([]Figure, error) {
	b.src.template, b.src.backend, b.src.random = template, replies, true
	if cold {
		b.src.cool()
	}
	b.drive(min(2*b.flows, n/4))
	return b.timing(n)
}

// open measures n new flows that are opened beside the established ones, and ends those again.
func (b *bench) open(size, n int) ([]Figure, error) {
	b.strangers(size)
	figures, err := b.timing(n)
	if err != nil {
		return nil, err
	}
	return figures, b.forget()
}

// flood measures SYNs of flows that the table does not know, in a table that is full of such flows.
func (b *bench) flood(size, n int) ([]Figure, error) {
	b.src.template, b.src.backend, b.src.random = tcpFrame(b.v6, false, packet.FlagSYN, size), nil, false
	return b.timing(n)
}

// floodOver measures the same beside flows that are established, and how many of those are there afterwards: if it
// must, all.
func (b *bench) floodOver(size, n int, must bool) ([]Figure, error) {
	b.strangers(size)
	figures, err := b.timing(n)
	if err != nil {
		return nil, err
	}
	kept := b.alive()
	if kept < b.flows && must {
		return nil, fmt.Errorf("a SYN flood ended %d of %d established flows, though half of the table was free for it", b.flows-kept, b.flows)
	}
	figures = append(figures, Figure{Metric: "established_kept", Unit: "%", Value: 100 * float64(kept) / float64(b.flows)})
	if err := b.expire(kept); err != nil {
		return nil, err
	}
	return figures, b.establish()
}

// strangers has the source make SYNs of flows that are not among the established.
func (b *bench) strangers(size int) {
	b.src.template, b.src.backend, b.src.random = tcpFrame(b.v6, false, packet.FlagSYN, size), nil, false
	b.src.next = uint32(b.flows)
}

// alive sends a packet of each established flow, and returns how many were forwarded: without its flow, none is.
func (b *bench) alive() int {
	before := b.engine.Counters()
	b.src.random, b.src.next, b.src.template = false, 0, tcpFrame(b.v6, false, packet.FlagACK, 64)
	b.drive(b.flows)
	b.refreshed = b.now
	after := b.engine.Counters()
	return int(after.Forwarded[b.mode] - before.Forwarded[b.mode])
}

// forget ends the half-open flows, and sees that the established ones all remain, whose time it keeps from running out.
func (b *bench) forget() error {
	if err := b.expire(b.flows); err != nil {
		return err
	}
	if b.now-b.refreshed < b.engine.Snapshot().Timeouts[flow.StateEstablished]/2 {
		return nil
	}
	if kept := b.alive(); kept != b.flows {
		return fmt.Errorf("%d of %d established flows were there after new ones had been", kept, b.flows)
	}
	return nil
}

// expire lets the time of half-open flows pass. It expects that keep flows remain.
func (b *bench) expire(keep int) error {
	b.now += b.engine.Snapshot().Timeouts[flow.StateSynRecv] + 1000
	// The worker looks through its table in pieces: more steps than this must not be needed for a whole one.
	for step := 0; b.engine.FlowTable(0).Used > keep && step < 20_000; step++ {
		b.now += 100
		b.engine.Step(0, b.now)
	}
	if got := b.engine.FlowTable(0).Used; got != keep {
		return fmt.Errorf("%d flows are in the table after all half-open ones should have gone; %d were established", got, keep)
	}
	return nil
}
