package testenv

import (
	"encoding/binary"

	"github.com/cilium/ebpf/asm"
)

// Offsets into struct __sk_buff (include/uapi/linux/bpf.h).
const (
	skbLen      = 0
	skbProtocol = 16

	skbVLANPresent = 20
	skbVLANTCI     = 24
	skbVLANProto   = 28

	skbGSOSegs = 164
)

// EtherTypes as a little-endian load of __sk_buff.protocol, which is in network order, gives them.
const (
	protoIPv4 = 0x0008
	protoIPv6 = 0xdd86
)

const (
	protoTCP    = 6
	protoICMPv6 = 58
)

// The stack of the tap program, below the frame pointer.
const (
	stackMAC = -8  // 6 bytes: the address to compare
	stackSrc = -24 // 16 bytes: source, IPv4 as ::ffff:a.b.c.d
	stackDst = -40 // 16 bytes: destination
	stackKey = -44 // 4 bytes: key into the counters
	stackOff = -56 // 8 bytes: where the transport header starts
	stackTCI = -64 // 2 bytes: an inner VLAN tag, in another program
	stackHdr = -64 // 1 byte at a time: what the length of the headers depends on
)

// tapProgram counts the frames whose MAC address at macOffset is mac:
//
//	to a VIP or a NAT server    a request of that VIP
//	from a VIP or a NAT server  a reply
//	from or to the host itself  nothing
//	neighbour discovery         nothing, like ARP
//
// R6 holds the skb, R7 what the destination is, R8 what the source is.
func tapProgram(mac [6]byte, macOffset int32, rolesFD, countsFD int) asm.Instructions {
	p := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	p = append(p, loadBytes(macOffset, stackMAC, 6)...)
	p = append(p,
		asm.LoadMem(asm.R1, asm.RFP, stackMAC, asm.Word),
		asm.LoadImm(asm.R2, int64(binary.LittleEndian.Uint32(mac[:4])), asm.DWord),
		asm.JNE.Reg(asm.R1, asm.R2, "out"),
		asm.LoadMem(asm.R1, asm.RFP, stackMAC+4, asm.Half),
		asm.JNE.Imm(asm.R1, int32(binary.LittleEndian.Uint16(mac[4:])), "out"),

		asm.LoadMem(asm.R1, asm.R6, skbProtocol, asm.Word),
		asm.JEq.Imm(asm.R1, protoIPv6, "ipv6"),
		asm.JNE.Imm(asm.R1, protoIPv4, "out"),
	)
	p = append(p, mapIPv4(stackSrc)...)
	p = append(p, mapIPv4(stackDst)...)
	p = append(p, loadBytes(26, stackSrc+12, 4)...)
	p = append(p, loadBytes(30, stackDst+12, 4)...)
	p = append(p, asm.Ja.Label("roles"))

	ipv6 := append(loadBytes(22, stackSrc, 16), loadBytes(38, stackDst, 16)...)
	ipv6[0] = ipv6[0].WithSymbol("ipv6")
	p = append(p, ipv6...)
	p = append(p, skipDiscovery()...)

	dst := lookupRole(rolesFD, stackDst, asm.R7, "dst_known")
	dst[0] = dst[0].WithSymbol("roles")
	src := lookupRole(rolesFD, stackSrc, asm.R8, "src_known")
	src[0] = src[0].WithSymbol("dst_known")
	p = append(p, dst...)
	p = append(p, src...)
	return append(p, tapCounting(countsFD)...)
}

// skipDiscovery ends the program on a message of neighbour discovery (RFC 4861), which may well be to or from
// one of the addresses: a server answers the director, and the director answers for a VIP.
func skipDiscovery() asm.Instructions {
	const routerSolicitation, redirect = 133, 137
	p := loadBytes(20, stackHdr, 1)
	p = append(p,
		asm.LoadMem(asm.R1, asm.RFP, stackHdr, asm.Byte),
		asm.JNE.Imm(asm.R1, protoICMPv6, "roles"),
	)
	p = append(p, loadBytes(54, stackHdr, 1)...)
	return append(p,
		asm.LoadMem(asm.R1, asm.RFP, stackHdr, asm.Byte),
		asm.JLT.Imm(asm.R1, routerSolicitation, "roles"),
		asm.JLE.Imm(asm.R1, redirect, "out"),
	)
}

// loadBytes copies n bytes at off of the frame to the stack, or ends the program when the frame is too short.
func loadBytes(off int32, stack int16, n int32) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Imm(asm.R2, off),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, int32(stack)),
		asm.Mov.Imm(asm.R4, n),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "out"),
	}
}

// mapIPv4 writes the twelve bytes ::ffff that precede an IPv4 address mapped into IPv6.
func mapIPv4(stack int16) asm.Instructions {
	return asm.Instructions{
		asm.Mov.Imm(asm.R1, 0),
		asm.StoreMem(asm.RFP, stack, asm.R1, asm.DWord),
		asm.LoadImm(asm.R1, 0xffff0000, asm.DWord),
		asm.StoreMem(asm.RFP, stack+8, asm.R1, asm.Word),
	}
}

// lookupRole sets reg to what the address on the stack is, 0 if nothing is known of it, and goes to next.
func lookupRole(fd int, stack int16, reg asm.Register, next string) asm.Instructions {
	return asm.Instructions{
		asm.LoadMapPtr(asm.R1, fd),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, int32(stack)),
		asm.FnMapLookupElem.Call(),
		asm.Mov.Imm(reg, 0),
		asm.JEq.Imm(asm.R0, 0, next),
		asm.LoadMem(reg, asm.R0, 0, asm.Word),
	}
}

// tapCounting adds the frame to the counters that R7 and R8 choose. The counters are per CPU, so plain additions do.
func tapCounting(fd int) asm.Instructions {
	p := asm.Instructions{
		asm.JGE.Imm(asm.R7, roleHost, "out").WithSymbol("src_known"),
		asm.JGE.Imm(asm.R8, roleHost, "out"),
		asm.Mov.Imm(asm.R9, 0),
		asm.JNE.Imm(asm.R7, 0, "count"),
		asm.Mov.Reg(asm.R7, asm.R8),
		asm.Mov.Imm(asm.R9, 1),
		asm.JEq.Imm(asm.R7, 0, "out"),

		asm.And.Imm(asm.R7, 0xffff).WithSymbol("count"),
		asm.LSh.Imm(asm.R7, 1),
		asm.Add.Reg(asm.R7, asm.R9),
		asm.StoreMem(asm.RFP, stackKey, asm.R7, asm.Word),
		asm.LoadMapPtr(asm.R1, fd),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, stackKey),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "out"),

		asm.Mov.Reg(asm.R7, asm.R0),
		asm.LoadMem(asm.R8, asm.R6, skbGSOSegs, asm.Word),
		asm.LoadMem(asm.R9, asm.R6, skbLen, asm.Word),
		asm.JGT.Imm(asm.R8, 1, "segments"),
		asm.Mov.Imm(asm.R8, 1), // gso_segs is 0 for an ordinary frame
		asm.Ja.Label("add"),
	}
	p = append(p, addHeaders()...)
	return append(p,
		asm.LoadMem(asm.R1, asm.R7, 0, asm.DWord).WithSymbol("add"),
		asm.Add.Reg(asm.R1, asm.R8),
		asm.StoreMem(asm.R7, 0, asm.R1, asm.DWord),
		asm.LoadMem(asm.R1, asm.R7, 8, asm.DWord),
		asm.Add.Reg(asm.R1, asm.R9),
		asm.StoreMem(asm.R7, 8, asm.R1, asm.DWord),

		// Let the frame pass to the next program, if any (TCX_NEXT).
		asm.Mov.Imm(asm.R0, -1).WithSymbol("out"),
		asm.Return(),
	)
}

// addHeaders adds to R9, the bytes of a super-packet, the headers that segmentation will put before each of its R8
// frames but the first. IPv6 extension headers do not occur in what is segmented here.
func addHeaders() asm.Instructions {
	p := asm.Instructions{
		asm.LoadMem(asm.R1, asm.R6, skbProtocol, asm.Word).WithSymbol("segments"),
		asm.JEq.Imm(asm.R1, protoIPv6, "segments6"),
	}
	p = append(p, loadBytes(14, stackHdr, 1)...)
	p = append(p,
		asm.LoadMem(asm.R1, asm.RFP, stackHdr, asm.Byte),
		asm.And.Imm(asm.R1, 0xf), // header length in words
		asm.LSh.Imm(asm.R1, 2),
		asm.Add.Imm(asm.R1, 14),
		asm.StoreMem(asm.RFP, stackOff, asm.R1, asm.DWord),
	)
	p = append(p, loadBytes(23, stackHdr, 1)...)
	p = append(p, asm.Ja.Label("transport"))

	v6 := loadBytes(20, stackHdr, 1)
	v6[0] = v6[0].WithSymbol("segments6")
	p = append(p, v6...)
	p = append(p,
		asm.Mov.Imm(asm.R1, 54),
		asm.StoreMem(asm.RFP, stackOff, asm.R1, asm.DWord),

		asm.Mov.Imm(asm.R2, 8).WithSymbol("transport"), // of a UDP header
		asm.LoadMem(asm.R1, asm.RFP, stackHdr, asm.Byte),
		asm.JNE.Imm(asm.R1, protoTCP, "headers"),

		// The TCP header's length in words is in the upper half of its byte 12.
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.LoadMem(asm.R2, asm.RFP, stackOff, asm.DWord),
		asm.Add.Imm(asm.R2, 12),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, stackHdr),
		asm.Mov.Imm(asm.R4, 1),
		asm.FnSkbLoadBytes.Call(),
		asm.JNE.Imm(asm.R0, 0, "out"),
		asm.LoadMem(asm.R2, asm.RFP, stackHdr, asm.Byte),
		asm.RSh.Imm(asm.R2, 4),
		asm.LSh.Imm(asm.R2, 2),

		asm.LoadMem(asm.R1, asm.RFP, stackOff, asm.DWord).WithSymbol("headers"),
		asm.Add.Reg(asm.R1, asm.R2),
		asm.Mov.Reg(asm.R2, asm.R8),
		asm.Sub.Imm(asm.R2, 1),
		asm.Mul.Reg(asm.R1, asm.R2),
		asm.Add.Reg(asm.R9, asm.R1),
	)
	return p
}
