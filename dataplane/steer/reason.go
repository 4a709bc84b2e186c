package steer

// A Reason says why a frame went to the director, to the kernel or to nobody. Every frame has exactly
// one; NoSocket is counted in addition.
type Reason uint32

// Reasons for the director.
const (
	Service        = Reason(steerReasonREASON_SERVICE)          // a service's address, port and protocol
	ServiceAnyPort = Reason(steerReasonREASON_SERVICE_ANY_PORT) // an address with a service on every port
	Fragment       = Reason(steerReasonREASON_FRAGMENT)         // a fragment, first or later, for a VIP
	ICMP           = Reason(steerReasonREASON_ICMP)             // ICMP or ICMPv6 for a VIP
	Reply          = Reason(steerReasonREASON_REPLY)            // from the address and port of a NAT backend
	ReplyFragment  = Reason(steerReasonREASON_REPLY_FRAGMENT)   // a fragment from a NAT backend
	ReplyICMP      = Reason(steerReasonREASON_REPLY_ICMP)       // an ICMP error about a packet to a NAT backend, from it or from a router
	TunnelICMP     = Reason(steerReasonREASON_TUNNEL_ICMP)      // an ICMP error for the director about a tunnel to a backend
)

// Reasons for the kernel.
const (
	PassL2        = Reason(steerReasonREASON_PASS_L2)        // to a group MAC address, or to another host's
	PassNotIP     = Reason(steerReasonREASON_PASS_NOT_IP)    // ARP, LLDP, more than two VLAN tags, too short
	PassMalformed = Reason(steerReasonREASON_PASS_MALFORMED) // IP that is truncated or contradicts itself
	PassExtension = Reason(steerReasonREASON_PASS_EXTENSION) // more IPv6 extension headers than are walked, or segments left
	PassControl   = Reason(steerReasonREASON_PASS_CONTROL)   // neighbour or multicast listener discovery for a VIP
	PassVIPOther  = Reason(steerReasonREASON_PASS_VIP_OTHER) // a VIP's other ports and protocols
	PassLocal     = Reason(steerReasonREASON_PASS_LOCAL)     // for the director itself; health-check replies among them
	PassOther     = Reason(steerReasonREASON_PASS_OTHER)     // everything else
)

// Shed is the reason of the frames that the program drops: each would open a TCP flow of a service, and the
// worker of its queue asked for that, because it cannot keep up. See Attachment.Meters.
const Shed = Reason(steerReasonREASON_SHED)

// NoSocket counts, beside their own reason, frames for the director that fell to the kernel because their
// queue has no AF_XDP socket.
const NoSocket = Reason(steerReasonREASON_NO_SOCKET)

// NumReasons is the number of reasons, NoSocket included.
const NumReasons = int(steerReasonREASON_COUNT)

var reasonNames = [NumReasons]string{
	Service: "service", ServiceAnyPort: "service_any_port", Fragment: "fragment", ICMP: "icmp",
	Reply: "reply", ReplyFragment: "reply_fragment", ReplyICMP: "reply_icmp", TunnelICMP: "tunnel_icmp",
	PassL2: "pass_l2", PassNotIP: "pass_not_ip", PassMalformed: "pass_malformed", PassExtension: "pass_extension",
	PassControl: "pass_control", PassVIPOther: "pass_vip_other", PassLocal: "pass_local", PassOther: "pass_other",
	Shed: "shed", NoSocket: "no_socket",
}

// String returns the reason's name in metrics and logs.
func (r Reason) String() string {
	if int(r) < NumReasons {
		return reasonNames[r]
	}
	return "unknown"
}

// Director reports whether frames with this reason are the director's.
func (r Reason) Director() bool { return r <= TunnelICMP }

// Counters are packets by Reason since the program was attached: `for i, n := range c` with Reason(i)
// goes through them in a fixed order. All but NoSocket add up to the frames seen.
type Counters [NumReasons]uint64
