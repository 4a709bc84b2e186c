package demo

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"sync"
	"time"

	"xlvs/dataplane/table"
	"xlvs/testenv"
)

// A Row is what one mode and family did in steady state.
type Row struct {
	Mode     string         `json:"mode"`
	Family   string         `json:"family"`
	Service  netip.AddrPort `json:"service"`
	Requests int            `json:"requests"`
	Failures int            `json:"failures"`
	Error    string         `json:"error,omitempty"` // of one of the failures
	Backends map[string]int `json:"backends"`        // answers by backend

	// Frames on the wire, with their Ethernet headers.
	ToDirector Traffic `json:"client_to_director"`
	ToClient   Traffic `json:"backend_to_client"`
	Crossed    Traffic `json:"replies_through_director"`
	TookMS     int64   `json:"took_ms"`
}

// Traffic is an amount of frames.
type Traffic struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

const (
	requestsARow = 2000
	concurrency  = 8
	bodyBytes    = 10_000
)

// steady sends requests to one service, each on a connection of its own.
func steady(ctx context.Context, lab *testenv.Lab, m table.Mode, v6 bool) (Row, error) {
	vip := lab.VIP(m, v6)
	row := Row{Mode: m.String(), Family: familyName(v6), Service: netip.AddrPortFrom(vip, testenv.HTTPPort), Backends: map[string]int{}}
	for _, s := range lab.Group(m) {
		row.Backends[s.Name] = 0
	}
	began := time.Now()
	row.fetchAll(ctx, lab.Client)
	row.TookMS = time.Since(began).Milliseconds()
	if err := ctx.Err(); err != nil {
		return row, err
	}
	return row, row.count(ctx, lab)
}

func familyName(v6 bool) string {
	if v6 {
		return "IPv6"
	}
	return "IPv4"
}

func (r *Row) fetchAll(ctx context.Context, from *testenv.Host) {
	c := from.HTTPClient(testenv.HTTPOptions{Timeout: answerLimit})
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range concurrency {
		wg.Go(func() {
			for {
				mu.Lock()
				if r.Requests == requestsARow || ctx.Err() != nil {
					mu.Unlock()
					return
				}
				r.Requests++
				mu.Unlock()
				backend, err := fetch(c, r.Service)
				mu.Lock()
				if err != nil {
					r.Failures++
					r.Error = err.Error()
				} else {
					r.Backends[backend]++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func fetch(c *testenv.HTTPClient, service netip.AddrPort) (backend string, err error) {
	resp, err := c.Get(fmt.Sprintf("http://%s/bytes/%d", service, bodyBytes))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != 200 || n != bodyBytes {
		return "", fmt.Errorf("%s with %d bytes instead of %d", resp.Status, n, bodyBytes)
	}
	return resp.Header.Get(testenv.BackendHeader), nil
}

// count reads the taps once nothing moves any more: connections end a moment after their last answer.
func (r *Row) count(ctx context.Context, lab *testenv.Lab) error {
	const quiet = 50 * time.Millisecond
	for deadline := time.Now().Add(2 * time.Second); ; {
		director, err := lab.DirectorTap.Entered(r.Service.Addr())
		if err != nil {
			return err
		}
		client, err := lab.ClientTap.Entered(r.Service.Addr())
		if err != nil {
			return err
		}
		in, out := Traffic{director.RequestPackets, director.RequestBytes}, Traffic{client.ReplyPackets, client.ReplyBytes}
		if in == r.ToDirector && out == r.ToClient || time.Now().After(deadline) {
			return nil
		}
		r.ToDirector, r.ToClient, r.Crossed = in, out, Traffic{director.ReplyPackets, director.ReplyBytes}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(quiet):
		}
	}
}
