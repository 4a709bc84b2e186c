package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

const (
	minInterval = 50 * time.Millisecond
	maxInterval = time.Hour
	maxInARow   = 1000
)

func (v *validator) health(s *Service, where string) {
	h := s.Health
	if v.word(&h.Type, where, "type", h.Type, []string{"tcp", "http"}, h) {
		v.http(h, where)
		v.healthPort(s, where)
	}
	usable := v.duration(&h.Interval, where, "interval", h.Interval, minInterval, maxInterval, h) && !v.bad[&h.Interval]
	if v.duration(&h.Timeout, where, "timeout", h.Timeout, time.Millisecond, maxInterval, h) && usable && h.Timeout > h.Interval {
		v.value(&h.Timeout, where, fmt.Sprintf("timeout %v is longer than the interval of %v, so that checks would overlap", h.Timeout, h.Interval),
			"use a timeout of at most the interval", h)
	}
	v.number(&h.Rise, where, "rise", h.Rise, 1, maxInARow, h)
	v.number(&h.Fall, where, "fall", h.Fall, 1, maxInARow, h)
}

func (v *validator) http(h *Health, where string) {
	if h.Type != "http" {
		v.httpOnly(&h.Path, where, "path", h.Path != "", h)
		v.httpOnly(&h.Host, where, "host", h.Host != "", h)
		v.httpOnly(&h.Status, where, "status", len(h.Status) > 0, h)
		return
	}
	unclean := func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }
	switch {
	case !strings.HasPrefix(h.Path, "/"):
		v.value(&h.Path, where, fmt.Sprintf("path is %s, which does not begin with /", shorten(h.Path)), "write path: /"+pathOf(h.Path), h)
	case strings.ContainsFunc(h.Path, unclean):
		v.value(&h.Path, where, "path contains a space or an unprintable character", "write it percent-encoded: a space is %20", h)
	}
	if strings.ContainsFunc(h.Host, unclean) || strings.Contains(h.Host, "/") {
		v.value(&h.Host, where, fmt.Sprintf("host is %s, which is no host name", shorten(h.Host)), "write a name such as www.example.com, without http:// and path", h)
	}
	if len(h.Status) == 0 {
		v.value(&h.Status, where, "status is an empty list", "list the accepted codes, such as [200, 204], or remove the key for 200 to 299", h)
	}
	for i, code := range h.Status {
		if v.number(&h.Status[i], where, "a status code", code, 100, 599, h) && slices.Contains(h.Status[:i], code) {
			v.value(&h.Status[i], where, fmt.Sprintf("status code %d is listed twice", code), "list each code once", h)
		}
	}
}

// pathOf proposes a path for what may have been meant as one.
func pathOf(s string) string {
	if s == "" || len(s) > 40 || strings.ContainsAny(s, ": ") {
		return "healthz"
	}
	return s
}

func (v *validator) httpOnly(field any, where, key string, set bool, h *Health) {
	if set || v.given(field) {
		v.value(field, where, key+" has no meaning for a tcp check", "remove it, or use type: http", h)
	}
}

// healthPort checks that there is a port to connect to.
func (v *validator) healthPort(s *Service, where string) {
	h := s.Health
	if h.Port == 0 && v.given(&h.Port) {
		v.value(&h.Port, where, "port is 0", "write the port to check, or remove the key: then it is the backend's", h)
		return
	}
	if h.Port != 0 || v.bad[&h.Port] || v.bad[&s.Port] {
		return
	}
	switch {
	case s.Port == 0 && (len(v.at) == 0 || v.given(&s.Port)):
		v.value(&h.Port, where, "the check has no port, as the service is on every port", "write the port to check: port: 80", h)
	case s.Protocol == "udp" && h.Type == "http":
		v.value(&h.Port, where, "the check has no port, and a udp service's own is none for http", "write the port of the HTTP server: port: 80", h)
	}
}
