package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"xlvs/testenv"
)

// ask has all clients ask for replies of a size for a while.
func (s *service) ask(ctx context.Context, l *modesLab, size int, length time.Duration, f figures) error {
	c := l.Client.HTTPClient(testenv.HTTPOptions{KeepAlive: true})
	defer c.CloseIdleConnections()
	url := fmt.Sprintf("http://%s/bytes/%d", s.address, size)
	// The connections are opened, and windows grow, before the measurement.
	if _, err := requests(ctx, c, url, size, length/4); err != nil {
		return err
	}
	before, err := s.count(l)
	if err != nil {
		return err
	}
	n, err := requests(ctx, c, url, size, length)
	if err != nil {
		return err
	}
	after, err := s.count(l)
	if err != nil {
		return err
	}
	f["requests"] = float64(n) / after.at.Sub(before.at).Seconds()
	f["cpu_per_request"] = float64((after.cpu - before.cpu).Nanoseconds()) / 1e3 / float64(n)
	f["bytes_through"] = float64(after.bytes-before.bytes) / float64(n)
	return nil
}

// A count is what a balancer has cost until now.
type count struct {
	at    time.Time
	cpu   time.Duration
	bytes uint64 // that its interface has taken in
}

// count reads the time of the balancer's threads, and of those of the kernel that receive for it. The core's own counters
// would not do: in them is also whatever another program does while the balancer waits.
func (s *service) count(l *modesLab) (c count, err error) {
	in, err := l.Director.Counters("eth0")
	if err != nil {
		return c, err
	}
	c.at, c.bytes = time.Now(), in.RxBytes
	for _, pid := range append([]int{s.pid}, l.kernel...) {
		t, err := cpuTime(pid)
		if err != nil {
			return c, err
		}
		c.cpu += t
	}
	return c, nil
}

// requests counts those that were answered in full.
func requests(ctx context.Context, c *testenv.HTTPClient, url string, size int, length time.Duration) (int, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var done atomic.Int64
	var wg sync.WaitGroup
	end := time.Now().Add(length)
	for range clients {
		wg.Go(func() {
			for ctx.Err() == nil && time.Now().Before(end) {
				if err := request(ctx, c, url, size); err != nil {
					cancel(err)
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	if err := context.Cause(ctx); err != nil {
		return 0, err
	}
	if done.Load() == 0 {
		return 0, errors.New("no request was answered")
	}
	return int(done.Load()), nil
}

func request(ctx context.Context, c *testenv.HTTPClient, url string, size int) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || n != int64(size) {
		return fmt.Errorf("a reply of %d bytes instead of %d: %w", n, size, err)
	}
	return nil
}

// cpuTime returns what all threads of a process have run for so far (/proc/PID/task/TID/schedstat, in ns).
func cpuTime(pid int) (sum time.Duration, err error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread has just ended
		}
		if err != nil {
			return 0, err
		}
		first, _, _ := strings.Cut(string(text), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", f, err)
		}
		sum += time.Duration(ns)
	}
	if sum == 0 {
		return 0, fmt.Errorf("process %d is not there", pid)
	}
	return sum, nil
}
