package notation

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"xlvs/dataplane/frametest"
)

const eth = "eth 02:00:00:00:00:99 > 02:00:00:00:00:01 / "

// Every layer, written as Format writes it.
var canonical = []string{
	"ip 198.51.100.7 > 203.0.113.10 / tcp 40000 > 80 S",
	"ip 198.51.100.7 > 203.0.113.10 ttl=1 tos=184 id=7 df / tcp 40000 > 80 PA seq=5 ack=6 win=7 / \"GET / HTTP\"",
	"ip 198.51.100.7 > 203.0.113.10 / tcp 40000 > 80 S mss=1460 opts=01010402 / pay 100",
	"ip 198.51.100.7 > 203.0.113.10 / tcp 40000 > 80 - csum=partial",
	"ip 198.51.100.7 > 203.0.113.10 csum=0x0001 / udp 40000 > 53 csum=0 / hex 00ff",
	"ip 198.51.100.7 > 203.0.113.10 id=9 mf / udp 40000 > 53 len=1600 csum=0x1234 / pay 64",
	"ip 198.51.100.7 > 203.0.113.10 id=9 off=1480 proto=17 / pay 120@1472",
	"ip 198.51.100.7 > 203.0.113.10 opts=94040000 / icmp 8/0 id=1 seq=2 / \"ping\" / pad 6",
	"ip 10.0.0.1 > 198.51.100.7 / icmp 3/4 mtu=1480 / ip 198.51.100.7 > 203.0.113.10 df len=1500 / tcp 40000 > 80 A csum=0x1111 / pay 20",
	"ip 10.0.0.1 > 198.51.100.7 / icmp 12/0 rest=14000000 / ip 198.51.100.7 > 203.0.113.10 / udp 1 > 2",
	"ip 2001:db8::7 > 2001:db8:f::10 ttl=63 tos=4 label=77 / tcp 40000 > 80 S",
	"ip 2001:db8::7 > 2001:db8:f::10 / hopopt / routing data=00000000 / dstopt data=010200000000 / udp 40000 > 53 / \"?\"",
	"ip 2001:db8::7 > 2001:db8:f::10 / frag mf id=9 / udp 40000 > 53 len=1600 csum=0x1234 / pay 64",
	"ip 2001:db8::7 > 2001:db8:f::10 / frag off=1448 id=9 proto=17 / pay 64@1440",
	"ip 2001:db8::1 > 2001:db8::7 / icmp 2/0 mtu=1460 / ip 2001:db8::7 > 2001:db8:f::10 len=1460 / tcp 40000 > 80 A csum=0x2222 / pay 16",
	"ip 10.0.0.1 > 10.0.0.11 / ip 198.51.100.7 > 203.0.113.10 / tcp 40000 > 80 S",
	"ip 2001:db8::1 > 2001:db8::11 label=5 / ip 198.51.100.7 > 203.0.113.10 / udp 1 > 2",
	"ip 10.0.0.1 > 10.0.0.11 / ip 2001:db8::7 > 2001:db8:f::10 / udp 1 > 2",
	"ip 10.0.0.1 > 10.0.0.11 / gre key=3 / ip 198.51.100.7 > 203.0.113.10 / tcp 40000 > 80 S",
	"ip 10.0.0.1 > 10.0.0.11 / gre / ip 2001:db8::7 > 2001:db8:f::10 / udp 1 > 2",
	"ip 198.51.100.7 > 203.0.113.10 proto=132 / hex 0102030405060708",
}

func TestFormatIsParsesInverse(t *testing.T) {
	for _, link := range []string{eth, eth + "vlan 42 pcp=3 / ", eth + "qinq 7 / vlan 42 / "} {
		for _, s := range canonical {
			b, err := Parse(link + s)
			if err != nil {
				t.Errorf("%s: %v", s, err)
				continue
			}
			if got := Format(b); got != link+s {
				t.Errorf("\n%s came back as\n%s", link+s, got)
			}
		}
	}
	arp := eth[:len(eth)-3] + " type=0x0806 / hex 0001"
	if b, err := Parse(arp); err != nil || Format(b) != arp {
		t.Errorf("%v: %s", err, Format(b))
	}
}

// What is built agrees with frames that gopacket built, and with a checker that recomputes every sum.
func TestAgreesWithGopacket(t *testing.T) {
	spec := frametest.Spec{DstMAC: [6]byte{2, 0, 0, 0, 0, 1}, SrcMAC: [6]byte{2, 0, 0, 0, 0, 0x99}, Payload: []byte("hello")}
	for _, c := range []struct{ src, dst, ip string }{
		{"198.51.100.7:40000", "203.0.113.10:80", "ip 198.51.100.7 > 203.0.113.10"},
		{"[2001:db8::7]:40000", "[2001:db8:f::10]:80", "ip 2001:db8::7 > 2001:db8:f::10"},
	} {
		spec.Src, spec.Dst = netip.MustParseAddrPort(c.src), netip.MustParseAddrPort(c.dst)
		for _, udp := range []bool{false, true} {
			spec.UDP, spec.Flags = udp, frametest.SYN|frametest.ACK
			s := eth + c.ip + ` / tcp 40000 > 80 SA seq=0x01020304 win=502 / "hello"`
			if udp {
				s = eth + c.ip + ` / udp 40000 > 80 / "hello"`
			}
			got, err := Parse(s)
			if want := spec.Build(); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: %v\ngot  % x\nwant % x", s, err, got, want)
			}
		}
	}
	for _, s := range canonical {
		if !complete(s) {
			continue
		}
		b, err := Parse(eth + s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := frametest.Decode(b); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
}

// complete says that a text describes a whole packet of the kinds that frametest knows.
func complete(s string) bool {
	for _, not := range []string{"csum", "icmp 12", "frag", "mf", "off=", "gre"} {
		if strings.Contains(s, not) {
			return false
		}
	}
	return true
}

func TestEnds(t *testing.T) {
	whole, err := Parse(eth + "ip 198.51.100.7 > 203.0.113.10 / udp 1 > 2 / pay 9")
	if err != nil {
		t.Fatal(err)
	}
	cut, err := Parse(eth + "ip 198.51.100.7 > 203.0.113.10 / udp 1 > 2 / pay 9 / cut 30")
	if err != nil || !bytes.Equal(cut, whole[:30]) {
		t.Errorf("%v: % x", err, cut)
	}
	if b, err := Parse(Format(cut)); err != nil || !bytes.Equal(b, cut) {
		t.Errorf("%v: %s", err, Format(cut))
	}
	bad, err := Parse(eth + "ip 198.51.100.7 > 203.0.113.10 / udp 1 > 2 csum=bad / pay 9")
	if err != nil || bytes.Equal(bad, whole) || len(bad) != len(whole) {
		t.Errorf("%v: % x", err, bad)
	}
	if !HasEthernet(eth) || !HasEthernet("raw 00") || HasEthernet("ip 1.2.3.4 > 5.6.7.8") {
		t.Error("HasEthernet")
	}
}

func TestErrors(t *testing.T) {
	for s, want := range map[string]string{
		"": "empty", "tcp 1 > 2": "missing", "tcp 1 - 2 S": "must be a >", "foo": `no layer "foo"`,
		"ip 1.2.3.4 > 5.6.7.8 tll=3":                "no option",
		"ip 1.2.3 > 5.6.7.8":                        "not an IP address",
		"ip 1.2.3.4 > ::1":                          "different families",
		"ip 1.2.3.4 > 5.6.7.8 ttl=256":              "not a number",
		"ip 1.2.3.4 > 5.6.7.8 off=3":                "multiples of 8",
		"ip 1.2.3.4 > 5.6.7.8 / tcp 1 > 2 X":        "flags",
		"ip 1.2.3.4 > 5.6.7.8 / tcp 1 > 70000 S":    "not a number",
		"ip 1.2.3.4 > 5.6.7.8 / ":                   "nothing follows",
		`ip 1.2.3.4 > 5.6.7.8 / "open`:              "not closed",
		"ip 1.2.3.4 > 5.6.7.8 / hex 0":              "hexadecimal",
		"eth 1 > 2":                                 "Ethernet",
		"ip ::1 > ::2 / dstopt data=01 / udp 1 > 2": "multiple of 8",
		"pad 3 / ip 1.2.3.4 > 5.6.7.8":              "cannot stand here",
		"raw zz":                                    "invalid byte",
	} {
		if _, err := Parse(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", s, err, want)
		}
	}
}

// Whatever the bytes, Format describes them and Parse gives them back.
func FuzzFormat(f *testing.F) {
	for _, s := range canonical {
		b, err := Parse(eth + s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) == 0 {
			return
		}
		s := Format(frame)
		if b, err := Parse(s); err != nil || !bytes.Equal(b, frame) {
			t.Fatalf("%s: %v\n% x became\n% x", s, err, frame, b)
		}
	})
}

// Whatever the text, Parse gives an error or a frame, which Format describes.
func FuzzParse(f *testing.F) {
	for _, s := range canonical {
		f.Add(eth + s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		b, err := Parse(s)
		if err != nil || len(b) == 0 || len(s) > 1000 {
			return
		}
		if again, err := Parse(Format(b)); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%q is % x, which is %s, which is % x, %v", s, b, Format(b), again, err)
		}
	})
}
