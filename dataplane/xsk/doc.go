// Package xsk is dataplane.Port over AF_XDP sockets.
//
// A Set is what one worker needs: one socket a port (a queue of an interface), one
// packet memory (UMEM) that they all share, and so the freedom to send a frame out of one
// interface that came in by another without a copy.
//
// The first socket of a Set is opened by asavie/xdp (asavie.go), which registers the UMEM.
// The others share it (XDP_SHARED_UMEM) and are opened here (socket.go). From then on this
// package drives the four rings of each socket itself:
//
//	       free list of Memory
//	      Alloc |        ^ Free
//	            v        |
//	fill  ----> chunk    |                completion
//	ring        v        |                   ring
//	          kernel     +--------------------^
//	            v                             |
//	RX   ----> frame --> worker --> frame --> TX
//	ring       Recv      rewrites   Send      ring
//
// Ring layout and flags follow the kernel's include/uapi/linux/if_xdp.h, and what each
// system call does net/xdp/xsk.c. The package needs Linux 5.10 or later: shared
// memory across devices, and ring flags.
package xsk
