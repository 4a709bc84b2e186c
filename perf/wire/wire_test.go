package wire

import (
	"fmt"
	"os"
	"testing"
	"time"
)

const needs = "needs root: it makes network namespaces, veth pairs and AF_XDP sockets"

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("CI") == "true" {
		t.Fatal(needs)
	}
	t.Skip(needs)
}

func claim(t *testing.T) cores {
	t.Helper()
	needRoot(t)
	c, restore, err := claimCores()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := restore(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// TestForwarders sends a few thousand frames through each forwarder, and expects nearly all of them at the other end.
func TestForwarders(t *testing.T) {
	c := claim(t)
	cable := subject{name: "cable", make: func(polling) forwarder { return nil }, flows: 100, size: smallest}
	for _, s := range append(subjects(), cable) {
		if s.flows > fewFlows {
			continue // the same with fewer flows is among them
		}
		t.Run(fmt.Sprintf("%s/%s/%d", s.name, s.receive, s.size), func(t *testing.T) {
			b, err := newBench(t.Context(), c, s.make(polling{receive: s.receive}), load{flows: 100, size: s.size, loose: s.loose, back: s.back})
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			}()
			// On a busy machine some may be lost, but not most.
			deadline := time.Now().Add(20 * time.Second)
			for {
				o, err := b.stream(t.Context(), trial{rate: 20_000, frames: 2000})
				if err != nil {
					t.Fatal(err)
				}
				if o.sent != 2000 || o.received > o.sent {
					t.Fatalf("%d frames were sent and %d arrived, want 2000", o.sent, o.received)
				}
				if o.lost() < 0.1 {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("of %d frames %d arrived", o.sent, o.received)
				}
			}
		})
	}
}
