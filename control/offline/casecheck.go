package offline

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"xlvs/control"
	"xlvs/control/config"
)

// A checker looks for what cannot be meant as it is written. An expectation that nothing can meet is one: it would fail with a
// difference that puzzles whoever reads it, or pass for ever.
type checker struct {
	f      *CaseFile
	faults config.Errors
	seen   map[string]bool // a fault is told once, not once in each variant

	// The variant in hand.
	what  *control.Offline
	ports []string
	conf  *config.Config
	vars  map[string]string
	where string
	at    time.Duration
}

// check looks at every case in every variant, and keeps the variants' configurations.
func (f *CaseFile) check() config.Errors {
	k := &checker{f: f, seen: map[string]bool{}}
	if f.Config.node == nil {
		k.add(place{1, 1}, "the file names no configuration", "write `config: FILE`, or the configuration itself below `config:`")
	}
	if len(f.Cases) == 0 {
		k.add(place{1, 1}, "the file has no cases", remedy)
	}
	for i := range f.Cases {
		if !f.Cases[i].broken {
			k.shape(&f.Cases[i], i)
		}
	}
	if f.Config.node == nil {
		return k.faults
	}
	for _, outer := range variants(f.Each) {
		conf, err := f.config(outer)
		if err == nil {
			k.where = ""
			k.what, err = control.NewOffline(conf, nil)
		}
		if err != nil {
			k.keep(err)
			continue
		}
		for _, w := range k.what.Warnings {
			if !slices.Contains(f.Warnings, w) {
				f.Warnings = append(f.Warnings, w)
			}
		}
		k.conf, k.ports = conf, nil
		f.confs = append(f.confs, conf)
		for i := range conf.Interfaces {
			k.ports = append(k.ports, conf.Interfaces[i].Name)
		}
		for i := range f.Cases {
			if f.Cases[i].broken {
				continue
			}
			for _, inner := range variants(f.Cases[i].Each) {
				k.vars = merge(outer, inner)
				k.variant(&f.Cases[i], i)
			}
		}
	}
	return k.faults
}

// keep adds what is wrong with the configuration.
func (k *checker) keep(err error) {
	var faults config.Errors
	if !errors.As(err, &faults) {
		k.add(k.f.Config.place, err.Error(), "correct the configuration")
		return
	}
	for _, e := range faults {
		if !k.seen[e.Error()] {
			k.seen[e.Error()] = true
			k.faults = append(k.faults, e)
		}
	}
}

func (k *checker) add(p place, problem, remedy string) {
	if key := fmt.Sprint(p, problem); !k.seen[key] {
		k.seen[key] = true
		k.faults = append(k.faults, k.f.fault(p, k.where, problem, remedy)...)
	}
}

// shape checks what does not depend on the variant.
func (k *checker) shape(c *Case, i int) {
	if k.where = nameOf(c.Name.text, i); c.Name.text == "" {
		k.add(c.place, "it has no name", "give it one with `name`")
	}
	if c.In != nil || c.At != nil || c.Wire != nil || c.Packet != nil || c.Expect != nil {
		k.add(c.place, "it has both `steps` and a packet, or what belongs to one, of its own", "put all but name, down and each into `steps`")
	}
	expects := false
	for n := range c.Steps {
		s := &c.Steps[n]
		expects = expects || !s.Expect.nothing()
		switch {
		case s.Packet == nil:
			k.add(c.place, k.step(c, n)+"there is no packet", "give it one with `packet`")
		case s.Expect != nil && s.Expect.nothing():
			k.add(s.Packet.place, k.step(c, n)+"expect says nothing", "say what is to become of the packet, or leave `expect` out")
		}
	}
	if !expects {
		k.add(c.place, "it expects nothing, so it could not fail", "give it an `expect`")
	}
}

// nameOf is what the case with number i, from 0, is called.
func nameOf(name string, i int) string {
	if name == "" {
		return fmt.Sprintf("case number %d", i+1)
	}
	return "case " + name
}

// step names a step in a case of several.
func (k *checker) step(c *Case, n int) string {
	if len(c.Steps) < 2 {
		return ""
	}
	return fmt.Sprintf("step %d: ", n+1)
}

// variant checks a case with variables.
func (k *checker) variant(c *Case, i int) {
	k.where, k.at = nameOf(expand(c.Name.text, k.vars), i), 0
	k.text(cmp.Or(c.Name.place, c.place), c.Name.text)
	k.down(c.Down)
	for i := range c.Steps {
		s := &c.Steps[i]
		k.down(s.Down)
		port := 0
		if name, ok := k.word(s.In); ok {
			port = max(0, k.one(s.In.place, "interface", name, k.ports))
		}
		k.time(s.At)
		if s.Packet != nil {
			k.packet(s, port)
		}
		if s.Expect != nil {
			k.expect(s.Expect)
		}
	}
}

var variable = regexp.MustCompile(`\$\{[A-Za-z0-9_]*\}`)

// text replaces the variables in a text at p. It is not ok where one has no value.
func (k *checker) text(p place, s string) (text string, ok bool) {
	text = expand(s, k.vars)
	left := variable.FindString(text)
	if left == "" {
		return text, true
	}
	var keys []string
	for key := range k.vars {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	if len(keys) == 0 {
		k.add(p, left+" has no value", "give it one in a mapping of `each`")
	} else {
		k.add(p, left+" has no value", config.Suggest(left[2:len(left)-1], keys))
	}
	return text, false
}

// word is text for a word that may be missing.
func (k *checker) word(w *word) (text string, ok bool) {
	if w == nil {
		return "", false
	}
	return k.text(w.place, w.text)
}

// one wants a name that there is, and returns its number; -1 where it is none.
func (k *checker) one(p place, what, name string, choices []string) int {
	i := slices.Index(choices, name)
	if i < 0 && name == "none" {
		k.add(p, fmt.Sprintf("there is no %s %q", what, name), `write "" to say that there is none`)
	} else if i < 0 && len(choices) == 0 {
		k.add(p, fmt.Sprintf("there is no %s %q", what, name), "the configuration has none at all")
	} else if i < 0 {
		k.add(p, fmt.Sprintf("there is no %s %q", what, name), config.Suggest(name, choices))
	}
	return i
}

func (k *checker) down(names *list) {
	if names == nil {
		return
	}
	for _, w := range names.words {
		if name, ok := k.text(w.place, w.text); ok && !slices.Contains(k.backends("", true), name) {
			k.one(w.place, "backend", name, k.backends("", strings.Contains(name, "/")))
		}
	}
}

// backends lists the names of a service's backends, or of all; qualified: as SERVICE/BACKEND, too.
func (k *checker) backends(service string, qualified bool) (names []string) {
	for i := range k.conf.Services {
		s := &k.conf.Services[i]
		for j := range s.Backends {
			if service != "" && s.Name != service {
				continue
			}
			if b := s.Backends[j].Name; !slices.Contains(names, b) {
				names = append(names, b)
			}
			if qualified {
				names = append(names, s.Name+"/"+s.Backends[j].Name)
			}
		}
	}
	return names
}

func (k *checker) time(w *word) {
	s, ok := k.word(w)
	if !ok {
		return
	}
	at, err := time.ParseDuration(s)
	switch {
	case err != nil:
		k.add(w.place, fmt.Sprintf("at: %q is not a duration", s), "write 300ms or 15m")
	case at < k.at:
		k.add(w.place, fmt.Sprintf("at: %s is before the step before, at %s", s, k.at), "time counts from the beginning of the case, and does not run backwards")
	default:
		k.at = at
	}
}

func (k *checker) packet(s *Step, port int) {
	for _, t := range s.Packet.texts() {
		if _, ok := k.text(s.Packet.place, t); !ok {
			return
		}
	}
	frame, err := s.Packet.frame(k.vars, k.what.Snapshot.Ports[port].MAC)
	if err != nil {
		k.add(s.Packet.place, err.Error(), remedy)
		return
	}
	if t, ok := k.word(s.Wire); ok {
		if n, err := strconv.Atoi(t); err != nil {
			k.add(s.Wire.place, fmt.Sprintf("wire: %q is not a number of bytes", t), "write how many bytes the packet had on the wire")
		} else if n < len(frame) {
			k.add(s.Wire.place, fmt.Sprintf("wire: %d is less than the %d bytes that the packet has", n, len(frame)), "it is for packets of which a part is missing")
		}
	}
}
