package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

// An Event is a line of the director's structured log (docs/logs.md), as far as the demo and the tests need it.
type Event struct {
	Time       time.Time `json:"time"`
	Level      string    `json:"level"`
	Event      string    `json:"event"`
	Service    string    `json:"service"`
	Backend    string    `json:"backend"`
	Reason     string    `json:"reason"`
	Error      string    `json:"error"`
	MAC        string    `json:"mac"`
	Worker     int       `json:"worker"`
	ClientPort uint16    `json:"client_port"`
	Slots      int       `json:"slots"`
	SlotsMoved int       `json:"slots_moved"`
}

// Events reads the log. A last line that is being written is left out.
func (d *Director) Events() ([]Event, error) {
	text, err := os.ReadFile(d.Log)
	if err != nil {
		return nil, err
	}
	var events []Event
	for len(text) > 0 {
		line, rest, whole := bytes.Cut(text, []byte("\n"))
		if !whole {
			break
		}
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("%s: line %d: %w", d.Log, len(events)+1, err)
		}
		events, text = append(events, e), rest
	}
	return events, nil
}

// AwaitEvent waits for the first event that match accepts.
func (d *Director) AwaitEvent(ctx context.Context, what string, match func(Event) bool) (found Event, err error) {
	err = d.await(ctx, "the log to say that "+what, func(context.Context) (bool, error) {
		events, err := d.Events()
		for _, e := range events {
			if match(e) {
				found = e
				return true, nil
			}
		}
		return false, err
	})
	return found, err
}

// flows returns which backend the director gave the flows of a service to that began since a moment, by the
// client's port, once it has logged all of those wanted.
func (d *Director) flows(ctx context.Context, service string, since time.Time, wanted []request) (map[uint16]Event, error) {
	flows := map[uint16]Event{}
	err := d.await(ctx, "the log to name every flow", func(context.Context) (bool, error) {
		events, err := d.Events()
		if err != nil {
			return false, err
		}
		for _, e := range events {
			if e.Event == "flow.new" && e.Service == service && !e.Time.Before(since) {
				flows[e.ClientPort] = e
			}
		}
		for _, r := range wanted {
			if _, ok := flows[r.Port]; !ok {
				return false, nil
			}
		}
		return true, nil
	})
	return flows, err
}
