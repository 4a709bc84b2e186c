package steer

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	xdpPass     = 2
	xdpRedirect = 4
)

// newSteerer loads the rules and an instance of the program that is attached to nothing.
func newSteerer(t testing.TB, rules Rules) (*Steerer, *Attachment) {
	t.Helper()
	requireRoot(t)
	s, err := Load()
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	must(t, s.Apply(rules))
	a := &Attachment{steerer: s, name: "test"}
	must(t, s.spec.LoadAndAssign(&a.objects, &ebpf.CollectionOptions{MapReplacements: s.rules.byName()}))
	t.Cleanup(func() { must(t, a.objects.Close()) })
	return s, a
}

// runner runs frames through the program in the kernel and tells reasons by what was counted.
type runner struct {
	t    *testing.T
	a    *Attachment
	last Counters
	out  [4096]byte
}

func (r *runner) run(frame []byte) (action uint32, reason Reason, noSocket bool) {
	r.t.Helper()
	opts := ebpf.RunOptions{Data: frame, DataOut: r.out[:]}
	action, err := r.a.objects.Program.Run(&opts)
	must(r.t, err)
	if !bytes.Equal(opts.DataOut, frame) {
		r.t.Fatalf("the frame was changed\n% x\n% x", frame, opts.DataOut)
	}
	now, err := r.a.Counters()
	must(r.t, err)
	reason = undecided
	for i := range now {
		switch {
		case now[i] == r.last[i]:
		case Reason(i) == NoSocket:
			noSocket = true
		case reason != undecided || now[i] != r.last[i]+1:
			r.t.Fatalf("counted twice: %v after %v", now, r.last)
		default:
			reason = Reason(i)
		}
	}
	r.last = now
	return action, reason, noSocket
}

// mutate changes a few bytes, preferring the values that mean something, or the length.
func mutate(rng *rand.Rand, frame []byte) []byte {
	meaningful := []byte{0, 1, 4, 6, 17, 41, 43, 44, 58, 59, 60, 0x08, 0x81, 0x86, 0x88, 0xa8, 0xdd, 0x40, 0x45, 0x46, 0x60, 0xff}
	f := slices.Clone(frame)
	for range 1 + rng.IntN(4) {
		b := byte(rng.Uint32())
		if rng.IntN(2) == 0 {
			b = meaningful[rng.IntN(len(meaningful))]
		}
		f[rng.IntN(len(f))] = b
	}
	switch rng.IntN(6) {
	case 0:
		f = f[:14+rng.IntN(len(f)-13)]
	case 1:
		f = append(f, make([]byte, rng.IntN(64))...)
	}
	return f
}

func TestKernelDecidesAsDecideDoes(t *testing.T) {
	_, a := newSteerer(t, testRules())
	must(t, a.SetMAC(testMAC[:]))
	rules := testSet(t)
	r := &runner{t: t, a: a}
	check := func(name string, frame []byte) Reason {
		want := Decide(frame, rules)
		action, reason, noSocket := r.run(frame)
		if reason != want.Reason || action != xdpPass || noSocket != want.Director {
			t.Fatalf("%s: the kernel says %s (action %d, no socket %t), Decide says %+v\n% x",
				name, reason, action, noSocket, want, frame)
		}
		return reason
	}
	cases := frameCases()
	for _, c := range cases {
		if len(c.frame) > 14 {
			check(c.name, c.frame)
		}
	}
	const seed = 7
	rng := rand.New(rand.NewPCG(seed, seed))
	reached := map[Reason]int{}
	for range 40000 {
		c := cases[rng.IntN(len(cases))]
		if len(c.frame) > 14 {
			reached[check("mutated "+c.name, mutate(rng, c.frame))]++
		}
	}
	for reason := range NoSocket {
		if reason == Shed {
			continue // see TestKernelShedsAsDecideDoes
		}
		if reached[reason] < 10 {
			t.Errorf("only %d mutated frames reached %s: the test is too weak", reached[reason], reason)
		}
	}
}

func TestRedirectsToTheQueuesSocket(t *testing.T) {
	_, a := newSteerer(t, testRules())
	fd, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW, 0)
	must(t, err)
	defer unix.Close(fd)
	r := &runner{t: t, a: a}
	service, other := v4(client4, vip4, 6, tcpTo(40000, 80)), v4(client4, vip4, 6, tcpTo(40000, 22))

	must(t, a.SetSocket(0, fd))
	if action, reason, noSocket := r.run(service); action != xdpRedirect || reason != Service || noSocket {
		t.Errorf("with a socket: action %d, %s, no socket %t", action, reason, noSocket)
	}
	if action, reason, _ := r.run(other); action != xdpPass || reason != PassVIPOther {
		t.Errorf("another port: action %d, %s", action, reason)
	}
	must(t, a.ClearSocket(0))
	must(t, a.ClearSocket(0))
	if action, reason, noSocket := r.run(service); action != xdpPass || reason != Service || !noSocket {
		t.Errorf("without a socket: action %d, %s, no socket %t", action, reason, noSocket)
	}
	must(t, a.SetSocket(MaxQueues-1, fd))
	for _, queue := range []int{-1, MaxQueues} {
		if a.SetSocket(queue, fd) == nil || a.ClearSocket(queue) == nil {
			t.Errorf("queue %d was accepted", queue)
		}
	}
	if err := a.SetSocket(0, 0); err == nil {
		t.Error("a descriptor that is no AF_XDP socket was accepted")
	}
}

func BenchmarkProgram(b *testing.B) {
	_, a := newSteerer(b, testRules())
	for _, c := range []struct {
		name  string
		frame []byte
	}{
		{"service", v4(client4, vip4, 6, tcpTo(40000, 80))}, {"reply", v4(nat4, client4, 6, tcpTo(8080, 40000))},
		{"other", v4(client4, "192.0.2.1", 6, tcpTo(40000, 80))}, {"service6", v6(client6, vip6, 6, tcpTo(40000, 80))},
	} {
		b.Run(c.name, func(b *testing.B) {
			_, err := a.objects.Program.Run(&ebpf.RunOptions{Data: c.frame, Repeat: uint32(b.N)})
			must(b, err)
		})
	}
}
