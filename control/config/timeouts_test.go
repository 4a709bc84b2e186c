package config

import (
	"strings"
	"testing"
	"time"
)

// What a service does not say is the director's, said or not.
func TestServiceTimeouts(t *testing.T) {
	text := strings.Replace(base, "    backends:", "    timeouts: { established: 5s, fin_wait: 7s }\n    backends:", 1)
	c, err := Parse("x", []byte("director: { timeouts: { close: 3s, fin_wait: 4s, udp: 9s } }\n"+text))
	if err != nil {
		t.Fatal(err)
	}
	want := defaultDirector().Timeouts
	want.Close, want.UDP, want.Established, want.FinWait = 3*time.Second, 9*time.Second, 5*time.Second, 7*time.Second
	if got := *c.Services[0].Timeouts; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if c, err = Parse("x", []byte(base)); err != nil || c.Services[0].Timeouts != nil {
		t.Errorf("a service without timeouts has %+v, %v", c.Services[0].Timeouts, err)
	}
}

// A Config that was made in Go has every field filled in, whatever its protocol, and each is checked.
func TestServiceTimeoutsOfNoFile(t *testing.T) {
	c, err := Parse("x", []byte(strings.Replace(base, "    backends:", "    timeouts: { established: 5s }\n    backends:", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	c.Services[0].Timeouts.SynRecv = 0
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "service web: timeouts: syn_recv is 0s; use 1ms to 576h") {
		t.Errorf("got %v", err)
	}
}

// The data plane compares ages as signed differences of 32 bits of milliseconds: beyond that a flow would be over at once.
func TestLongestTimeoutFits(t *testing.T) {
	if ms := maxTimeout.Milliseconds(); ms >= 1<<31 {
		t.Errorf("the longest timeout is %d ms", ms)
	}
}
