package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"
)

func checkOnce(t *testing.T, x Target) Result {
	t.Helper()
	x.Spec = x.Spec.withDefaults()
	c := newChecker(x, (&net.Dialer{}).DialContext)
	defer c.close()
	return runCheck(context.Background(), c, x)
}

func listen(t *testing.T) (net.Listener, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, netip.MustParseAddrPort(l.Addr().String())
}

func TestTCP(t *testing.T) {
	l, addr := listen(t)
	r := checkOnce(t, Target{Addr: addr, Spec: Spec{Type: TCP}})
	if r.Verdict != Good || r.Latency <= 0 {
		t.Errorf("with a listener: %+v", r)
	}
	// The check ends with a reset, which the server sees where a FIN would be an EOF.
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the server's read gives %v, want a reset", err)
	}
	l.Close()
	r = checkOnce(t, Target{Addr: addr, Spec: Spec{Type: TCP}})
	if want := fmt.Sprintf("connection refused by %v", addr); r.Verdict != Bad || r.Reason != want {
		t.Errorf("without a listener: %+v, want %q", r, want)
	}
}

func TestHTTP(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "fine") })
	mux.HandleFunc("/busy", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", 302) })
	mux.HandleFunc("/host", func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "www.example.org" || r.URL.Query().Get("q") != "1" {
			w.WriteHeader(400)
		}
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/header", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("x", 2*maxHeader))
	})
	mux.HandleFunc("/abort", func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) })
	srv := httptest.NewServer(mux)
	defer srv.Close()
	addr := netip.MustParseAddrPort(srv.Listener.Addr().String())

	for _, tt := range []struct {
		spec    Spec
		verdict Verdict
		reason  string
	}{
		{Spec{Path: "/ok"}, Good, "status 200"},
		{Spec{Path: "ok"}, Good, "status 200"},
		{Spec{Path: "/busy"}, Bad, "status 503, wanted 200–299"},
		{Spec{Path: "/busy", Status: []int{503}}, Good, "status 503"},
		{Spec{Path: "/ok", Status: []int{201, 204}}, Bad, "status 200, wanted 201, 204"},
		{Spec{Path: "/moved"}, Bad, "status 302, wanted 200–299"},
		{Spec{Path: "/moved", Status: []int{302}}, Good, "status 302"},
		{Spec{Path: "/host?q=1", Host: "www.example.org"}, Good, "status 200"},
		{Spec{Path: "/host?q=1"}, Bad, "status 400, wanted 200–299"},
		{Spec{Path: "/slow", Timeout: 50 * time.Millisecond}, Bad, "no answer in 50ms"},
		{Spec{Path: "/endless"}, Good, "status 200"},
		{Spec{Path: "/header"}, Bad, "exceeded"},
		{Spec{Path: "/abort"}, Bad, "closed the connection without a whole answer"},
		{Spec{Path: "/%zz"}, Bad, "health check path"},
	} {
		t.Run(tt.spec.Path, func(t *testing.T) {
			tt.spec.Type = HTTP
			r := checkOnce(t, Target{Addr: addr, Spec: tt.spec})
			if r.Verdict != tt.verdict || !strings.Contains(r.Reason, tt.reason) {
				t.Errorf("%v %q, want %v %q", r.Verdict, r.Reason, tt.verdict, tt.reason)
			}
		})
	}
}

func TestUnknownType(t *testing.T) {
	if r := checkOnce(t, Target{Spec: Spec{Type: "icmp"}}); r.Verdict != Bad || !strings.Contains(r.Reason, `"icmp"`) {
		t.Errorf("%+v", r)
	}
}

func TestHostHeader(t *testing.T) {
	for in, want := range map[string]string{
		"10.0.0.1:80": "10.0.0.1", "10.0.0.1:8080": "10.0.0.1:8080", "[2001:db8::1]:80": "[2001:db8::1]",
	} {
		if got := hostHeader(netip.MustParseAddrPort(in)); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// A process that dies is seen within the time that issue and documentation promise, over the real loopback.
func TestDeadListenerIsReported(t *testing.T) {
	l, addr := listen(t)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	updates := make(chan Update, 8)
	m := New(Options{Notify: func(u Update) { updates <- u }})
	defer m.Close()
	m.Set([]Target{{ID: "web1", Addr: addr, Spec: Spec{Type: TCP, Interval: 200 * time.Millisecond, Fall: 2}}})
	next := func() Update {
		select {
		case u := <-updates:
			return u
		case <-time.After(5 * time.Second):
			t.Fatal("no update in 5 s")
			return Update{}
		}
	}
	if u := next(); !u.Up || u.ID != "web1" {
		t.Fatalf("first update %+v", u)
	}
	died := time.Now()
	l.Close()
	if u := next(); u.Up || u.At.Sub(died) > 600*time.Millisecond {
		t.Errorf("%+v, %v after the listener closed", u, u.At.Sub(died))
	}
}
