package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A fake is a director that says what it is told to.
type fake struct {
	status   Status
	services []Service
	backends []Backend
	asked    Question
	reload   func(context.Context) error
}

func (f *fake) Status() Status      { return f.status }
func (f *fake) Services() []Service { return f.services }
func (f *fake) Backends() []Backend { return f.backends }
func (f *fake) Explain(q Question) Explanation {
	f.asked = q
	return Explanation{Service: "web", Slot: 3, Slots: 251, Backends: []Share{{Name: "a", Address: netip.MustParseAddr("10.0.0.11")}}}
}
func (f *fake) ReloadFile(ctx context.Context) error { return f.reload(ctx) }

func listenAndServe(t *testing.T, path string, src Source) *Server {
	t.Helper()
	s, err := Listen(path)
	must(t, err)
	s.Serve(src, nil)
	return s
}

func serve(t *testing.T, src Source) (path string, c *Client) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "xlvs.sock")
	s := listenAndServe(t, path, src)
	t.Cleanup(func() {
		must(t, s.Close())
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("after Close the socket is still there: %v", err)
		}
	})
	return path, NewClient(path)
}

// What the client returns is what the director said, every field of it.
func TestClientAndServer(t *testing.T) {
	since := time.Date(2026, 2, 3, 4, 5, 6, 7e6, time.UTC)
	f := &fake{
		status: Status{Version: "v1", PID: 7, File: "/etc/xlvs.yaml", Started: since, Generation: 3, Services: 1, Backends: 2, Up: 1,
			Interfaces: []Interface{{Name: "eth0", Up: true, MAC: "02:00:00:00:00:01", MTU: 1500, Queues: []int{0, 1}, Attach: "native", Bind: "copy",
				Notes: []string{"why"}, Steered: map[string]uint64{"service": 1 << 63}}},
			Workers:   []Worker{{CPU: -1, RxPackets: 1, RxBytes: 2, Flows: 3, FlowCapacity: 4, HugePages: true, Ports: []Port{{Interface: "eth0", Errors: 9}}}},
			Forwarded: map[string]uint64{"dr": 1}, Replies: 5, Drops: map[string]uint64{"ttl": 2}},
		services: []Service{{Name: "web", Address: "203.0.113.10", Port: 80, Counters: Counters{Packets: 1, Active: 2}}},
		backends: []Backend{{Service: "web", Name: "a", Address: netip.MustParseAddr("2001:db8::1"), Weight: 3, Since: &since, Counters: Counters{Bytes: 7}},
			{Name: "b", Address: netip.MustParseAddr("10.0.0.2"), Unreached: "no route"}},
	}
	_, c := serve(t, f)
	same := func(what string, got, want any, err error) {
		t.Helper()
		must(t, err)
		if d := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{})); d != "" {
			t.Errorf("%s:\n%s", what, d)
		}
	}
	st, err := c.Status(t.Context())
	same("status", st, f.status, err)
	sv, err := c.Services(t.Context())
	same("services", sv, f.services, err)
	be, err := c.Backends(t.Context())
	same("backends", be, f.backends, err)
	q := Question{Proto: "tcp", Src: netip.MustParseAddrPort("[2001:db8::7]:40000"), Dst: netip.MustParseAddrPort("[2001:db8::1]:80")}
	x, err := c.Explain(t.Context(), q)
	same("explanation", x, f.Explain(q), err)
	if f.asked != q {
		t.Errorf("asked %+v", f.asked)
	}
}

func TestReload(t *testing.T) {
	f := &fake{reload: func(context.Context) error {
		return errors.New("xlvs.yaml:3:5: unknown key \"foo\"\nxlvs.yaml:9:1: …")
	}}
	path, c := serve(t, f)
	if err := c.Reload(t.Context()); err == nil || err.Error() != f.reload(t.Context()).Error() {
		t.Errorf("refused: the client says %v", err)
	}
	if code, body := ask(t, path, "POST", "/v1/reload"); code != http.StatusConflict || !strings.Contains(body, `"error":"xlvs.yaml:3:5`) {
		t.Errorf("refused: %d, %s", code, body)
	}
	f.reload = func(context.Context) error { return nil }
	must(t, c.Reload(t.Context()))
	// Who does not wait for the answer does not hold the director up.
	entered := make(chan struct{})
	f.reload = func(ctx context.Context) error { close(entered); <-ctx.Done(); return ctx.Err() }
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-entered; cancel() }()
	if err := c.Reload(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// What cannot be had is answered in words, by a status, in JSON.
func TestRefusals(t *testing.T) {
	path, _ := serve(t, &fake{})
	for _, tc := range []struct {
		method, target string
		code           int
		want           string
	}{
		{"GET", "/v1/nothing", 404, "there is no GET /v1/nothing"},
		{"POST", "/v1/status", 404, "there is no POST /v1/status"},
		{"GET", "/v1/reload", 404, "there is no GET /v1/reload"},
		{"GET", "/v1/explain?proto=sctp", 400, `proto is \"sctp\"`},
		{"GET", "/v1/explain?proto=tcp&src=10.0.0.1", 400, `src is \"10.0.0.1\", which is no address with a port`},
		{"GET", "/v1/explain?proto=tcp&src=10.0.0.1:5&dst=[2001:db8::1]:80", 400, "different families"},
	} {
		code, body := ask(t, path, tc.method, tc.target)
		var e Error
		if err := json.Unmarshal([]byte(body), &e); code != tc.code || err != nil || !strings.Contains(body, tc.want) {
			t.Errorf("%s %s: %d, %s (%v); want %d, …%s…", tc.method, tc.target, code, body, err, tc.code, tc.want)
		}
	}
}

func ask(t *testing.T, path, method, target string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://xlvs"+target, nil)
	must(t, err)
	resp, err := NewClient(path).http.Do(req)
	must(t, err)
	defer resp.Body.Close()
	if ct := resp.Header.Get("Content-Type"); ct != "application/json" {
		t.Errorf("%s %s: content type %s", method, target, ct)
	}
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(body)
}

func TestSocketIsPrivate(t *testing.T) {
	old := syscall.Umask(0) // at worst
	defer syscall.Umask(old)
	path, _ := serve(t, &fake{})
	st, err := os.Stat(path)
	must(t, err)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("the socket has mode %v", st.Mode())
	}
}

// private restricts the file at the moment it comes to be, not afterwards.
func TestSocketIsNeverPublic(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	path := filepath.Join(t.TempDir(), "s")
	ln, err := (&net.ListenConfig{Control: private}).Listen(t.Context(), "unix", path)
	must(t, err)
	defer ln.Close()
	st, err := os.Stat(path)
	must(t, err)
	if st.Mode().Perm() != 0o600 {
		t.Errorf("bound with mode %v", st.Mode())
	}
}

// stale leaves a socket file behind, as a killed process does.
func stale(t *testing.T, path string) {
	t.Helper()
	ln, err := net.Listen("unix", path)
	must(t, err)
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	must(t, ln.Close())
}

func TestSocketInTheWay(t *testing.T) {
	dir := t.TempDir()
	for _, tc := range []struct {
		name string
		put  func(t *testing.T, path string)
		want string // empty: it is replaced
	}{
		{"left by a killed director", stale, ""},
		{"of a director that runs", func(t *testing.T, path string) {
			s, err := Listen(path) // it holds the socket before it answers
			must(t, err)
			t.Cleanup(func() { must(t, s.Close()) })
		}, "another director answers"},
		{"of one whose queue is full", func(t *testing.T, path string) {
			fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
			must(t, err)
			t.Cleanup(func() { syscall.Close(fd) })
			must(t, syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}))
			must(t, syscall.Listen(fd, 0))
			for { // until connecting would block
				c, err := net.DialTimeout("unix", path, 50*time.Millisecond)
				if err != nil {
					break
				}
				t.Cleanup(func() { c.Close() })
			}
		}, "it cannot be told whether a director uses it"},
		{"a file", func(t *testing.T, path string) { must(t, os.WriteFile(path, nil, 0o600)) }, "exists and is no socket"},
		{"a directory", func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }, "exists and is no socket"},
		{"a link to a socket", func(t *testing.T, path string) { stale(t, path+"2"); must(t, os.Symlink(path+"2", path)) }, "exists and is no socket"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(dir, strings.ReplaceAll(tc.name, " ", "-"))
			tc.put(t, path)
			before, err := os.Lstat(path)
			must(t, err)
			s, err := Listen(path)
			if tc.want == "" {
				must(t, err)
				s.Serve(&fake{}, nil)
				_, err := NewClient(path).Status(t.Context())
				must(t, err)
				must(t, s.Close())
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("error %v, want …%s…", err, tc.want)
			}
			if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
				t.Errorf("it is not what it was: %v", err)
			}
		})
	}
}

func TestListenFails(t *testing.T) {
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	for _, path := range []string{filepath.Join(dir, "file", "x"), filepath.Join(dir, strings.Repeat("long", 40))} {
		if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), path[:20]) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestNobodyAnswers(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, "left")
	stale(t, left)
	for _, path := range []string{filepath.Join(dir, "none"), left} {
		_, err := NewClient(path).Status(t.Context())
		want := "no director answers on " + path + ": start one with `xlvs run`, or name its socket with --api"
		if err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

// Another version may answer what this one does not understand.
func TestStrangeAnswers(t *testing.T) {
	for body, want := range map[string]string{
		"not JSON": "are client and director of the same version?",
		"500":      "the director answered 500 Internal Server Error",
	} {
		path := filepath.Join(t.TempDir(), "s")
		ln, err := net.Listen("unix", path)
		must(t, err)
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if body == "500" {
				w.WriteHeader(500)
			}
			_, _ = w.Write([]byte(body))
		}))
		srv.Listener = ln
		srv.Start()
		if _, err := NewClient(path).Services(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want …%s…", err, want)
		}
		srv.Close()
	}
}

// Close waits for requests under way, but not for ever.
func TestCloseWhileAsked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	entered := make(chan struct{})
	s := listenAndServe(t, path, &fake{reload: func(ctx context.Context) error { close(entered); <-ctx.Done(); return ctx.Err() }})
	var wg sync.WaitGroup
	wg.Go(func() { _ = NewClient(path).Reload(context.Background()) })
	<-entered
	begun := time.Now()
	must(t, s.Close())
	if d := time.Since(begun); d > 3*time.Second {
		t.Errorf("Close took %v", d)
	}
	wg.Wait()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
