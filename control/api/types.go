// Package api is the director's HTTP interface on a unix socket: its types, the server in the director, and the
// client that the command line uses.
//
//	GET  /v1/status     Status
//	GET  /v1/services   []Service
//	GET  /v1/backends   []Backend
//	GET  /v1/explain    Explanation; the query has proto, src and dst
//	POST /v1/reload     reads the configuration file again; 409 and an Error if it is refused
package api

import (
	"net/netip"
	"time"
)

// Status is the director as a whole.
type Status struct {
	Version    string            `json:"version"`
	PID        int               `json:"pid"`
	File       string            `json:"file"`
	Started    time.Time         `json:"started"`
	Generation uint64            `json:"generation"` // of the snapshot that workers read
	Services   int               `json:"services"`
	Backends   int               `json:"backends"`
	Up         int               `json:"backends_up"` // healthy, or not checked, and with a next hop
	Interfaces []Interface       `json:"interfaces"`
	Workers    []Worker          `json:"workers"`
	Forwarded  map[string]uint64 `json:"forwarded"`           // packets to backends by mode
	Replies    uint64            `json:"replies"`             // packets from NAT backends
	Drops      map[string]uint64 `json:"drops"`               // packets by reason
	LogLost    uint64            `json:"log_lost"`            // lines of the structured log that could not be written
	LogError   string            `json:"log_error,omitempty"` // why, while that lasts
}

// An Interface is one that the director works on.
type Interface struct {
	Name    string            `json:"name"`
	VLANs   []string          `json:"vlans,omitempty"` // interfaces that are VLANs of this one
	Up      bool              `json:"up"`
	MAC     string            `json:"mac"`
	MTU     int               `json:"mtu"`
	Queues  []int             `json:"queues"`
	Attach  string            `json:"attach"` // native | generic
	Bind    string            `json:"bind"`   // zerocopy | copy
	Notes   []string          `json:"notes,omitempty"`
	Steered map[string]uint64 `json:"steered"` // frames by the steering program's reason
}

// A Worker is one of the polling goroutines.
type Worker struct {
	CPU          int    `json:"cpu"` // -1: not pinned
	RxPackets    uint64 `json:"rx_packets"`
	RxBytes      uint64 `json:"rx_bytes"`
	Flows        uint64 `json:"flows"`
	FlowCapacity int    `json:"flow_capacity"` // entries of its table; one stays empty
	FlowsNew     uint64 `json:"flows_new"`
	FlowsEvicted uint64 `json:"flows_evicted"`
	HugePages    bool   `json:"huge_pages"`
	Polls        uint64 `json:"polls"`
	Sleeps       uint64 `json:"sleeps"`
	Outstanding  uint64 `json:"outstanding"` // chunks of packet memory that the ports hold
	Ports        []Port `json:"ports"`
}

// A Port is one queue of one interface.
type Port struct {
	Interface string `json:"interface"`
	RxPackets uint64 `json:"rx_packets"`
	TxPackets uint64 `json:"tx_packets"`
	RxDropped uint64 `json:"rx_dropped"`
	TxDropped uint64 `json:"tx_dropped"`
	Wakeups   uint64 `json:"wakeups"`
	Errors    uint64 `json:"errors"`
}

// A Service is one virtual service.
type Service struct {
	Name     string `json:"name"`
	Address  string `json:"address"` // or a prefix
	Port     uint16 `json:"port"`
	Protocol string `json:"protocol"`
	Forward  string `json:"forward"`
	Slots    int    `json:"slots"` // of its Maglev table; 0: no backend takes new flows
	Backends int    `json:"backends"`
	Up       int    `json:"backends_up"` // healthy, or not checked, and with a next hop
	Counters
}

// A Backend is one real server of one service.
type Backend struct {
	Service   string     `json:"service"`
	Name      string     `json:"name"`
	Address   netip.Addr `json:"address"`
	Port      uint16     `json:"port"`
	Forward   string     `json:"forward"`
	Weight    int        `json:"weight"`
	Up        bool       `json:"up"`
	Reason    string     `json:"reason"` // why it is up or down
	Since     *time.Time `json:"since,omitempty"`
	Slots     int        `json:"slots"`    // of the service's table that are its own
	NextHop   string     `json:"next_hop"` // MAC address; empty while it is not resolved
	Interface string     `json:"interface"`
	Unreached string     `json:"unreached,omitempty"` // why there is no next hop
	Counters
}

// Counters of a service or backend. Active and Inactive are flows now, as IPVS counts them.
type Counters struct {
	Packets      uint64 `json:"packets"` // towards the backend
	Bytes        uint64 `json:"bytes"`
	ReplyPackets uint64 `json:"reply_packets"` // NAT only
	ReplyBytes   uint64 `json:"reply_bytes"`
	Flows        uint64 `json:"flows"` // since the start
	Active       int64  `json:"active"`
	Inactive     int64  `json:"inactive"`
}

// Error is the body of every answer that is not 200.
type Error struct {
	Error string `json:"error"`
}
