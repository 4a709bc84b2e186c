package packet

import (
	"net/netip"
	"testing"
)

func TestMartian(t *testing.T) {
	for text, want := range map[string]bool{
		"0.0.0.0": true, "0.255.255.255": true, "1.0.0.0": false, "126.255.255.255": false, "127.0.0.1": true, "127.255.255.255": true,
		"128.0.0.0": false, "169.254.1.1": false, "10.0.0.255": false, "223.255.255.255": false, "224.0.0.1": true, "239.255.255.255": true,
		"240.0.0.1": false, "255.255.255.254": false, "255.255.255.255": true,
		"::": true, "::1": true, "::2": false, "::100": false, "1::": false, "1::1": false, "ff02::1": true, "ff0e::1": true, "feff::1": false,
		"fe80::1": false, "2001:db8::1": false, "fc00::1": false,
	} {
		if got := FromNetip(netip.MustParseAddr(text)).Martian(); got != want {
			t.Errorf("%s: martian is %v", text, got)
		}
	}
}

func TestLinkLocal6(t *testing.T) {
	for text, want := range map[string]bool{
		"fe80::1": true, "febf:ffff::1": true, "fe7f::1": false, "fec0::1": false, "2001:db8::fe80": false, "::1": false, "169.254.1.1": false, "254.128.0.1": false,
	} {
		if got := FromNetip(netip.MustParseAddr(text)).LinkLocal6(); got != want {
			t.Errorf("%s: link-local is %v", text, got)
		}
	}
}
