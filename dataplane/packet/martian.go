package packet

// Martian reports whether a is no address that a packet on a wire may come from (RFC 1812, 5.3.7; RFC 4291, 2.5.2, 2.5.3
// and 2.7): this network (0.0.0.0/8), loopback, multicast, the limited broadcast, and in IPv6 the unspecified address. As in
// Linux, 240.0.0.0/4 is not among them, nor is 169.254.0.0/16, which is a host's on the same link.
func (a Addr) Martian() bool {
	if a.Is4() {
		v := a.V4()
		first := uint8(v)
		return first == 0 || first == 127 || first>>4 == 14 || v == 0xffffffff
	}
	return uint8(a.A) == 0xff || a.A == 0 && (a.B == 0 || a.B == 1<<56)
}

// LinkLocal6 reports whether a is in fe80::/10: what comes from there no router forwards (RFC 4291, 2.5.6).
func (a Addr) LinkLocal6() bool { return uint16(a.A)&0xc0ff == 0x80fe }
