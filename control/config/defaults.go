package config

import "time"

func defaultDirector() Director {
	return Director{
		Flows: 1 << 20,
		API:   "/run/xlvs.sock",
		Idle:  Idle{Mode: "adaptive", Spin: 50 * time.Microsecond}, BusyPoll: "auto", Shed: "auto",
		Log: Log{Level: "info", File: "stderr", FlowRate: 1000},
		// IPVS: tcp_timeouts and udp_timeouts in net/netfilter/ipvs.
		Timeouts: Timeouts{
			Established: 900 * time.Second,
			SynRecv:     60 * time.Second,
			FinWait:     120 * time.Second,
			TimeWait:    120 * time.Second,
			Close:       10 * time.Second,
			CloseWait:   60 * time.Second,
			LastAck:     30 * time.Second,
			UDP:         300 * time.Second,
		},
		Memory: Memory{Frames: 8192, FrameSize: 2048, Ring: 2048},
	}
}

// setDefaults fills in what does not depend on other keys, before the element of a list is decoded.
func setDefaults(element any) {
	switch e := element.(type) {
	case *Interface:
		e.Queues, e.RSS, e.Attach, e.Bind = Queues{All: true}, "auto", "auto", "auto"
	case *Service:
		e.Scheduler, e.TableSize, e.NoBackend, e.Announce, e.Hash = "maglev", 65537, "drop", "auto", "tuple"
		e.Echo, e.Fragment, e.MSSClamp = "on", "fragment", "off"
	case *Backend:
		one := 1
		e.Weight = &one
	}
}

// fill gives the remaining keys their defaults, once it is known which were given.
func (c *Config) fill(r *report) {
	for i := range c.Services {
		s := &c.Services[i]
		for j := range s.Backends {
			b := &s.Backends[j]
			if b.Port != 0 || r.bad[&b.Port] {
				continue
			}
			if b.Port = s.Port; s.Port != 0 && r.given(&b.Port) {
				r.value(&b.Port, label("service", i, s.Name)+": "+label("backend", j, b.Name), "port is 0", "remove it: a backend has its service's port")
			}
		}
		if s.Health != nil {
			s.Health.fill(r)
		}
		s.fillShape(r)
		if s.Timeouts != nil {
			s.Timeouts.fill(&c.Director.Timeouts, r)
		}
	}
}

func (t *Timeouts) fill(from *Timeouts, r *report) {
	defaults := from.fields()
	for i, f := range t.fields() {
		setDuration(r, f.value, *defaults[i].value)
	}
}

func (s *Service) fillShape(r *report) {
	if t := s.Tunnel; t != nil {
		if !r.given(&t.Type) {
			t.Type = "ipip"
		}
		if t.Type == "gue" && !r.given(&t.Port) {
			t.Port = defaultGUEPort
		}
	}
	if p := s.Persistence; p != nil {
		setDuration(r, &p.Timeout, 360*time.Second) // IP_VS_SVC_F_PERSISTENT without a number, in ipvsadm
		if !r.given(&p.Mask) && s.Address.IsValid() {
			p.Mask = s.Address.BitLen()
		}
	}
}

func (h *Health) fill(r *report) {
	setDuration(r, &h.Interval, 2*time.Second)
	// An interval shorter than the usual timeout shortens that as well.
	setDuration(r, &h.Timeout, min(time.Second, max(h.Interval, minInterval)))
	if !r.given(&h.Rise) {
		h.Rise = 2
	}
	if !r.given(&h.Fall) {
		h.Fall = 3
	}
	if h.Type != "http" {
		return
	}
	if !r.given(&h.Path) {
		h.Path = "/"
	}
	if !r.given(&h.Status) {
		for code := 200; code < 300; code++ {
			h.Status = append(h.Status, code)
		}
	}
}

func setDuration(r *report, d *time.Duration, value time.Duration) {
	if !r.given(d) {
		*d = value
	}
}
