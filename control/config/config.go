// Package config is xlvs' configuration file: its types, its strict loading and its validation.
package config

import (
	"net/netip"
	"time"
)

// Config is one whole configuration, validated and with every default filled in.
type Config struct {
	Director   Director    `yaml:"director"`
	Interfaces []Interface `yaml:"interfaces"`
	Services   []Service   `yaml:"services"`
}

// Director holds what concerns the process as a whole.
type Director struct {
	CPUs     []int    `yaml:"cpus"`      // one worker a core; empty: one worker per queue, on the allowed cores from the last one down
	Flows    int      `yaml:"flows"`     // entries of each worker's flow table (default 1048576)
	Seed     string   `yaml:"seed"`      // hash seed, the same on every director of a fleet
	API      string   `yaml:"api"`       // unix socket of the API (default /run/xlvs.sock)
	Realtime int      `yaml:"realtime"`  // SCHED_FIFO priority of the workers, 1 to 99; 0 (default): ordinary threads
	Idle     Idle     `yaml:"idle"`      // what a worker does when there is nothing to do
	BusyPoll string   `yaml:"busy_poll"` // auto (default) | on | off: workers poll their interfaces themselves
	Shed     string   `yaml:"shed"`      // auto (default) | off: drop what would open flows while a worker cannot keep up
	Log      Log      `yaml:"log"`       // the structured log
	Timeouts Timeouts `yaml:"timeouts"`  // flow timeouts; defaults follow IPVS
	Memory   Memory   `yaml:"memory"`    // packet memory

	MemoryLimit int `yaml:"memory_limit"` // MiB that the Go runtime is to keep within; 0 (default): none
}

// Idle: a worker polls Spin times without finding a frame before it sleeps in poll(2) until one comes.
type Idle struct {
	Mode string        `yaml:"mode"` // adaptive (default) | busy (never sleep)
	Spin time.Duration `yaml:"spin"` // how long to poll in vain before sleeping (default 50us)
}

// Log configures the structured log.
type Log struct {
	Level      string `yaml:"level"`       // debug | info (default) | warn | error
	File       string `yaml:"file"`        // path, "stderr" (default) or "stdout"
	FlowSample int    `yaml:"flow_sample"` // log one flow in so many (default 0: none; 1: every flow)
	FlowRate   int    `yaml:"flow_rate"`   // at most so many flow events a second (default 1000)
}

// Timeouts of flows by state: the director's, and a service's own, where what is not given is the director's.
type Timeouts struct {
	Established time.Duration `yaml:"established"` // 900s
	SynRecv     time.Duration `yaml:"syn_recv"`    // 60s
	FinWait     time.Duration `yaml:"fin_wait"`    // 120s
	TimeWait    time.Duration `yaml:"time_wait"`   // 120s
	Close       time.Duration `yaml:"close"`       // 10s
	CloseWait   time.Duration `yaml:"close_wait"`  // 60s
	LastAck     time.Duration `yaml:"last_ack"`    // 30s
	UDP         time.Duration `yaml:"udp"`         // 300s
}

// Memory sizes the packet memory and rings of each worker.
type Memory struct {
	Frames    int `yaml:"frames"`     // chunks per interface and queue (default 8192), a power of two
	FrameSize int `yaml:"frame_size"` // bytes of a chunk: 2048 (default) or 4096
	Ring      int `yaml:"ring"`       // descriptors of each ring (default 2048), a power of two
}

// Interface is one interface that the director works on.
type Interface struct {
	Name      string         `yaml:"name"`
	Channels  int            `yaml:"channels"` // queues that it is to have (default: as many as it has)
	Queues    Queues         `yaml:"queues"`   // all (default) or a list
	RSS       string         `yaml:"rss"`      // auto (default): its RSS table leads to the queues served alone | keep
	Attach    string         `yaml:"attach"`   // auto (default) | native | generic
	Bind      string         `yaml:"bind"`     // auto (default) | zerocopy | copy
	MAC       MAC            `yaml:"mac"`      // offline use only; when running it is read from the kernel
	Addresses []netip.Prefix `yaml:"addresses"`
	MTU       int            `yaml:"mtu"`

	VLANs []VLAN `yaml:"vlans"` // those that the kernel knows of need not be listed
}

// VLAN is one of an interface's.
type VLAN struct {
	Name      string         `yaml:"name"` // the kernel's interface that has the VLAN's addresses
	ID        int            `yaml:"id"`
	Outer     int            `yaml:"outer"`     // the 802.1ad VLAN that it is in; 0: none
	Addresses []netip.Prefix `yaml:"addresses"` // offline use only
	MTU       int            `yaml:"mtu"`
}

// Service is one virtual service.
type Service struct {
	Name      string    `yaml:"name"`
	Address   VIP       `yaml:"address"`    // an address or a prefix
	Port      uint16    `yaml:"port"`       // 0: every port
	Protocol  string    `yaml:"protocol"`   // tcp | udp
	Forward   string    `yaml:"forward"`    // dr | tun | nat
	Scheduler string    `yaml:"scheduler"`  // maglev (default)
	TableSize uint64    `yaml:"table_size"` // a prime (default 65537)
	SloppyTCP bool      `yaml:"sloppy_tcp"`
	NoBackend string    `yaml:"no_backend"` // drop (default) | reject
	Announce  string    `yaml:"announce"`   // auto (default): answer ARP and neighbour solicitations for the address | off
	Health    *Health   `yaml:"health"`     // nil: every backend counts as up
	Backends  []Backend `yaml:"backends"`

	Hash        string       `yaml:"hash"`        // tuple (default) | source: what a new flow's backend depends on
	Tunnel      *Tunnel      `yaml:"tunnel"`      // nil: ipip
	Persistence *Persistence `yaml:"persistence"` // nil: none
	OnePacket   bool         `yaml:"one_packet"`  // udp: no flows
	QUIC        *QUIC        `yaml:"quic"`        // nil: connection IDs are not looked at
	Timeouts    *Timeouts    `yaml:"timeouts"`    // of its flows; nil: the director's

	Echo     string `yaml:"echo"`      // on (default): answer echo requests to the address | off
	Fragment string `yaml:"fragment"`  // fragment (default) | drop: IPv4 packets that are too big and may be fragmented
	MSSClamp string `yaml:"mss_clamp"` // off (default) | auto | a number of bytes: see MSS
}

// Health is how the backends of a service are checked.
type Health struct {
	Type     string        `yaml:"type"`     // tcp | http
	Path     string        `yaml:"path"`     // http: default /
	Host     string        `yaml:"host"`     // http: Host header; default the backend's address
	Status   []int         `yaml:"status"`   // http: accepted codes; default 200–299
	Port     uint16        `yaml:"port"`     // default: the backend's port
	Interval time.Duration `yaml:"interval"` // default 2s
	Timeout  time.Duration `yaml:"timeout"`  // default 1s
	Rise     int           `yaml:"rise"`     // successes in a row that bring a backend up (default 2)
	Fall     int           `yaml:"fall"`     // failures in a row that take it down (default 3)
}

// Backend is one real server of a service.
type Backend struct {
	Name    string     `yaml:"name"`
	Address netip.Addr `yaml:"address"`
	Port    uint16     `yaml:"port"`   // default: the service's; DR and TUN cannot change it
	Weight  *int       `yaml:"weight"` // default 1; 0: no new flows
	MAC     MAC        `yaml:"mac"`    // static next hop; default: resolved

	ServerID ServerID `yaml:"server_id"` // with the service's quic
}
