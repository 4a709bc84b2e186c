package flow

// On amd64 stores become visible in program order, and the compiler does not move them across
// the atomic store of seq: a plain store is enough, where an atomic one would cost a locked exchange.

func put64(p *uint64, v uint64) { *p = v }
func put32(p *uint32, v uint32) { *p = v }
