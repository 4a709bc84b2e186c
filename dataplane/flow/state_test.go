package flow

import (
	"strings"
	"testing"
	"unsafe"

	"xlvs/dataplane/packet"
)

// tcp_states of Linux' ip_vs_proto_tcp.c as text.
const ipvsStates = `
            NO ES SS SR FW TW CL CW LA LI SA
IN syn      SR ES ES SR SR SR SR SR SR SR SR
IN fin      CL CW SS TW TW TW CL CW LA LI TW
IN ack      ES ES SS ES FW TW CL CW CL LI ES
IN rst      CL CL CL SR CL CL CL CL LA LI SR
OUT syn     SS ES SS SR SS SS SS SS SS LI SR
OUT fin     TW FW SS TW FW TW CL TW LA LI TW
OUT ack     ES ES SS ES FW TW CL CW LA ES ES
OUT rst     CL CL SS CL CL TW CL CL CL CL CL
INONLY syn  SR ES ES SR SR SR SR SR SR SR SR
INONLY fin  CL FW SS TW FW TW CL CW LA LI TW
INONLY ack  ES ES SS ES FW TW CL CW CL LI ES
INONLY rst  CL CL CL SR CL CL CL CL LA LI CL`

func TestTransitionsAreThoseOfIPVS(t *testing.T) {
	byName := map[string]State{"NO": StateNone, "ES": StateEstablished, "SS": StateSynSent, "SR": StateSynRecv, "FW": StateFinWait,
		"TW": StateTimeWait, "CL": StateClose, "CW": StateCloseWait, "LA": StateLastAck, "LI": StateListen, "SA": StateSynAck}
	direction := map[string]Direction{"IN": In, "OUT": Out, "INONLY": InOnly}
	lines := strings.Split(strings.TrimSpace(ipvsStates), "\n")
	head := strings.Fields(lines[0])
	checked := 0
	for _, line := range lines[1:] {
		w := strings.Fields(line)
		for col, from := range head {
			want := byName[w[2+col]]
			for flags := range 256 {
				if event(uint8(flags)) != w[1] {
					continue
				}
				checked++
				if got := Next(byName[from], direction[w[0]], uint8(flags)); got != want {
					t.Errorf("%s %s %#x: %s -> %v, want %v", w[0], w[1], flags, from, got, want)
				}
			}
		}
	}
	if checked != 3*11*(256-16) {
		t.Errorf("%d transitions were checked", checked)
	}
	for s := range numStates {
		for flags := range 256 {
			if event(uint8(flags)) == "" || s > StateSynAck {
				if got := Next(s, InOnly, uint8(flags)); got != s {
					t.Errorf("%v with flags %#x became %v", s, flags, got)
				}
			}
		}
	}
}

// event is what set_tcp_state makes of the flags: RST is tested first, then SYN, FIN, ACK.
func event(flags uint8) string {
	for _, e := range []struct {
		bit  uint8
		name string
	}{{4, "rst"}, {2, "syn"}, {1, "fin"}, {16, "ack"}} {
		if flags&e.bit != 0 {
			return e.name
		}
	}
	return ""
}

func TestStates(t *testing.T) {
	seconds := map[State]uint32{StateEstablished: 900, StateSynSent: 120, StateSynRecv: 60, StateFinWait: 120, StateTimeWait: 120,
		StateClose: 10, StateCloseWait: 60, StateLastAck: 30, StateListen: 120, StateSynAck: 120, StateUDP: 300}
	active := map[State]bool{StateEstablished: true, StateSynSent: true, StateSynRecv: true, StateSynAck: true}
	halfOpen := map[State]bool{StateSynSent: true, StateSynRecv: true, StateSynAck: true}
	d := DefaultTimeouts()
	names := map[string]bool{}
	for s := range numStates {
		if d[s] != 1000*seconds[s] {
			t.Errorf("timeout of %v is %d ms, want %d s", s, d[s], seconds[s])
		}
		if s.Active() != active[s] || s.HalfOpen() != halfOpen[s] {
			t.Errorf("%v: active %v, half-open %v", s, s.Active(), s.HalfOpen())
		}
		names[s.String()] = true
	}
	if len(names) != int(numStates) || numStates.String() != "invalid" || State(200).String() != "invalid" {
		t.Errorf("names %v", names)
	}
}

// A flow lives for exactly its timeout, also across the wrap of the clock after 49.7 days.
func TestExpired(t *testing.T) {
	tab := newTable(t, MinEntries)
	for _, seen := range []uint32{0, 1, 1<<31 - 1, 1 << 31, 0xffffffff - 5000, 0xffffffff} {
		for s, ms := range DefaultTimeouts() {
			e := Entry{LastSeen: seen, meta: uint32(s)}
			for _, c := range []struct {
				after uint32
				want  bool
			}{{0, false}, {ms, false}, {ms + 1, true}, {ms + 1_000_000, true}} {
				if got := tab.Expired(&e, seen+c.after); got != c.want {
					t.Errorf("%v seen at %d: expired after %d ms of %d: %v", State(s), seen, c.after, ms, got)
				}
			}
		}
	}
	if e := (Entry{LastSeen: 10, meta: uint32(StateUDP)}); tab.Expired(&e, 9) {
		t.Error("a flow from the future expired")
	}
}

func TestMemory(t *testing.T) {
	if n := unsafe.Sizeof(Entry{}); n != 64 {
		t.Errorf("an entry has %d bytes", n)
	}
	if n := unsafe.Sizeof(bucket{}); n != 64 {
		t.Errorf("a bucket has %d bytes", n)
	}
	for _, n := range []int{MinEntries, MinEntries + 1, 5000, 1 << 16} {
		tab := newTable(t, n)
		if tab.Cap() < n-1 {
			t.Errorf("a table for %d flows has %d entries", n, tab.Cap())
		}
		bytes := len(tab.buckets)*int(unsafe.Sizeof(bucket{})) + len(tab.entries)*int(unsafe.Sizeof(Entry{}))
		if per := bytes / len(tab.entries); per > BytesPerFlow || BytesPerFlow > 80 {
			t.Errorf("%d bytes a flow", per)
		}
		if a, b := uintptr(unsafe.Pointer(&tab.buckets[0])), uintptr(unsafe.Pointer(&tab.entries[0])); a%64 != 0 || b%64 != 0 {
			t.Errorf("buckets at %#x, entries at %#x: not aligned to cache lines", a, b)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, n := range []int{-1, 0, MinEntries - 1, MaxEntries + 1} {
		if _, err := New(n, packet.NewHasher("")); err == nil {
			t.Errorf("a table for %d flows", n)
		}
	}
}

func newTable(t testing.TB, n int) *Table {
	t.Helper()
	tab, err := New(n, packet.NewHasher("test"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tab.Close(); err != nil {
			t.Error(err)
		}
	})
	return tab
}
