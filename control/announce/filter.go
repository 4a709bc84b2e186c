package announce

import "golang.org/x/net/bpf"

// Values of SKF_AD_PKTTYPE (include/uapi/linux/if_packet.h).
const (
	packetOtherHost = 3
	packetOutgoing  = 4
)

// onlyOurs drops tagged frames, those to other hosts (in promiscuous mode), and our own, and runs rest on the others. rest
// drops by jumping past its own end, where a return of zero follows.
func onlyOurs(rest ...bpf.Instruction) []bpf.Instruction {
	// How many instructions are between number i and the final return.
	drop := func(i int) uint8 { return uint8(len(rest) + 4 - i) }
	p := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtVLANTagPresent},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: drop(1)},
		bpf.LoadExtension{Num: bpf.ExtType},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: packetOtherHost, SkipTrue: drop(3)},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: packetOutgoing, SkipTrue: drop(4)},
	}
	p = append(p, rest...)
	return append(p, bpf.RetConstant{Val: 0})
}

// arpFilter accepts ARP for IPv4 over Ethernet.
func arpFilter() ([]bpf.RawInstruction, error) {
	return bpf.Assemble(onlyOurs(
		bpf.LoadAbsolute{Off: ethLen, Size: 4}, // hardware type 1, protocol type 0x0800
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 1<<16 | etherIP4, SkipTrue: 3},
		bpf.LoadAbsolute{Off: ethLen + 4, Size: 2}, // lengths 6 and 4
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 6<<8 | 4, SkipTrue: 1},
		bpf.RetConstant{Val: 64},
	))
}

// ndFilter accepts neighbour solicitations and advertisements that come from this link.
func ndFilter() ([]bpf.RawInstruction, error) {
	return bpf.Assemble(onlyOurs(
		bpf.LoadAbsolute{Off: ethLen + 6, Size: 2}, // next header, hop limit
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: icmpv6<<8 | 255, SkipTrue: 4},
		bpf.LoadAbsolute{Off: ethLen + ipv6Len, Size: 2}, // type, code
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 135 << 8, SkipTrue: 1},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 136 << 8, SkipTrue: 1},
		bpf.RetConstant{Val: 2048},
	))
}
