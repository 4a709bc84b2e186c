package dataplane

import "xlvs/dataplane/offheap"

// Reason says why a frame was dropped.
type Reason uint8

// The reasons, in the order of their counters. Every dropped frame is counted under exactly one.
const (
	DropMalformed   Reason = iota // truncated, or a length that lies
	DropNotOurs                   // no service, and no reply of a NAT backend
	DropFragment                  // a fragment that cannot go on: tiny, oversized, of a dropped datagram, a copy, or held beyond the bounds
	DropOverlap                   // a fragment that overlaps another, or is of a datagram with such
	DropFragTimeout               // a fragment whose first one did not come in time
	DropNoFlow                    // TCP without a flow, and no SYN
	DropReplyNoFlow               // from a NAT backend, but no flow is known
	DropNoBackend                 // no backend may take the new flow
	DropBackendGone               // the flow's backend was removed
	DropNoNeighbour               // the backend's next hop is not resolved
	DropTTL                       // TTL ran out (answered with ICMP as the rate limit allows)
	DropTooBig                    // larger than the way to the backend allows (answered likewise)
	DropNoHeadroom                // no room for an outer header
	DropNoMemory                  // no chunks for the pieces of a packet that is to be fragmented
	DropICMP                      // an ICMP message that is not answered
	DropICMPLimited               // an echo request or error beyond the rate limit
	DropMartian                   // would open a flow or be answered, but comes from an address that no client has
	DropTx                        // no room in the TX ring
	NumReasons      = iota
)

var reasonNames = [NumReasons]string{"malformed", "not_ours", "fragment", "fragment_overlap", "fragment_timeout", "no_flow", "reply_no_flow", "no_backend", "backend_gone",
	"no_neighbour", "ttl", "too_big", "no_headroom", "no_memory", "icmp", "icmp_limited", "martian", "tx_full"}

func (r Reason) String() string { return reasonNames[r] }

// Counters are what one worker counts, or the sum over several. They only grow, but for Flows and FragmentsHeld.
type Counters struct {
	Polls, Idle        uint64 // polls of the loop; those that found nothing
	Sleeps             uint64 // times the worker slept
	Bursts             uint64
	RxPackets, RxBytes uint64
	Forwarded          [3]uint64 // to backends, by table.Mode
	Replies            uint64    // from NAT backends to clients
	ReplyBytes         uint64
	ICMPErrors, Echoes uint64 // sent by the director itself
	ICMPForwarded      uint64 // errors passed on: to backends, to NAT clients, and about tunnels' packets
	Fragmented         uint64 // packets that were cut into fragments
	FragmentsHeld      uint64 // fragments that wait for their first now
	FlowsNew           uint64
	FlowsEnded         uint64
	FlowsEvicted       uint64 // ended before their time, to make room
	Stateless          uint64 // forwarded without a flow entry, for want of room
	EventsLost         uint64
	PortErrors         uint64
	Flows              uint64 // in the table now
	Drops              [NumReasons]uint64
}

// Add sums o into c.
func (c *Counters) Add(o *Counters) {
	c.Polls += o.Polls
	c.Idle += o.Idle
	c.Sleeps += o.Sleeps
	c.Bursts += o.Bursts
	c.RxPackets += o.RxPackets
	c.RxBytes += o.RxBytes
	for i := range c.Forwarded {
		c.Forwarded[i] += o.Forwarded[i]
	}
	c.Replies += o.Replies
	c.ReplyBytes += o.ReplyBytes
	c.ICMPErrors += o.ICMPErrors
	c.Echoes += o.Echoes
	c.ICMPForwarded += o.ICMPForwarded
	c.Fragmented += o.Fragmented
	c.FragmentsHeld += o.FragmentsHeld
	c.FlowsNew += o.FlowsNew
	c.FlowsEnded += o.FlowsEnded
	c.FlowsEvicted += o.FlowsEvicted
	c.Stateless += o.Stateless
	c.EventsLost += o.EventsLost
	c.PortErrors += o.PortErrors
	c.Flows += o.Flows
	for i := range c.Drops {
		c.Drops[i] += o.Drops[i]
	}
}

// BackendCounters are what one worker counts for one backend slot: one cache line. Active and
// Inactive are numbers of flows now, by IPVS' definition; the rest only grows.
type BackendCounters struct {
	Packets, Bytes           uint64 // towards the backend
	ReplyPackets, ReplyBytes uint64 // from it (NAT)
	Flows                    uint64
	Active, Inactive         int64
	_                        uint64
}

// sent counts a packet of so many bytes of IP towards the backend.
func (c *BackendCounters) sent(bytes uint64) {
	offheap.Add64(&c.Packets, 1)
	offheap.Add64(&c.Bytes, bytes)
}

// answered counts one from the backend.
func (c *BackendCounters) answered(bytes uint64) {
	offheap.Add64(&c.ReplyPackets, 1)
	offheap.Add64(&c.ReplyBytes, bytes)
}

// flows changes the number of active or of inactive flows.
func (c *BackendCounters) flows(active bool, by int64) {
	if active {
		offheap.AddInt(&c.Active, by)
	} else {
		offheap.AddInt(&c.Inactive, by)
	}
}

// Add sums o into c.
func (c *BackendCounters) Add(o *BackendCounters) {
	c.Packets += o.Packets
	c.Bytes += o.Bytes
	c.ReplyPackets += o.ReplyPackets
	c.ReplyBytes += o.ReplyBytes
	c.Flows += o.Flows
	c.Active += o.Active
	c.Inactive += o.Inactive
}
