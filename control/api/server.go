package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

// A Source answers what the server is asked.
type Source interface {
	Status() Status
	Services() []Service
	Backends() []Backend
	Explain(Question) Explanation
	// ReloadFile reads the configuration file again; on an error everything goes on as before.
	ReloadFile(ctx context.Context) error
}

// Handler serves src.
func Handler(src Source) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, src.Status()) })
	mux.HandleFunc("GET /v1/services", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, src.Services()) })
	mux.HandleFunc("GET /v1/backends", func(w http.ResponseWriter, _ *http.Request) { reply(w, 200, src.Backends()) })
	mux.HandleFunc("GET /v1/explain", explain(src))
	mux.HandleFunc("POST /v1/reload", func(w http.ResponseWriter, r *http.Request) {
		if err := src.ReloadFile(r.Context()); err != nil {
			reply(w, http.StatusConflict, Error{err.Error()})
			return
		}
		reply(w, 200, struct{}{})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		reply(w, http.StatusNotFound, Error{fmt.Sprintf("there is no %s %s", r.Method, r.URL.Path)})
	})
	return mux
}

func reply(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // an error means that the client is gone
}
