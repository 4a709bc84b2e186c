package rewrite

import (
	"encoding/binary"

	"xlvs/dataplane/packet"
)

// TCP options (RFC 9293, 3.2).
const (
	optEnd    = 0
	optNop    = 1
	optMSS    = 2
	optMSSLen = 4
)

// ClampMSS lowers the maximum segment size that a TCP SYN announces to most bytes, and updates the checksum. It
// reports whether there was anything to lower. An option that is there twice is lowered twice: the receiver takes either. A
// SYN without the option is left alone: it stands for the least (RFC 9293, 3.7.1).
func ClampMSS(b []byte, p *packet.Packet, most uint16) (lowered bool) {
	t := b[p.L4:p.End]
	end := int(t[12]>>4) * 4
	for at := packet.TCPLen; at+1 < end; {
		switch kind, n := t[at], int(t[at+1]); {
		case kind == optEnd:
			return lowered
		case kind == optNop:
			at++
		case n < 2 || at+n > end:
			return lowered
		default:
			if kind == optMSS && n == optMSSLen && lowerMSS(t, at+2, most, p.Unfinished) {
				lowered = true
			}
			at += n
		}
	}
	return lowered
}

func lowerMSS(t []byte, at int, most uint16, unfinished bool) bool {
	mss := binary.BigEndian.Uint16(t[at:])
	if mss <= most {
		return false
	}
	// The option may begin at an odd byte: the checksum goes by the aligned words that hold it.
	from, to := at&^1, (at+3)&^1
	before := packet.Sum(t[from:to], 0)
	binary.BigEndian.PutUint16(t[at:], most)
	if !unfinished {
		packet.Update(t[16:], before, packet.Sum(t[from:to], 0))
	}
	return true
}
