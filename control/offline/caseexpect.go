package offline

import (
	"fmt"
	"slices"
	"strings"

	"xlvs/control/config"
	"xlvs/dataplane"
	"xlvs/dataplane/notation"
	"xlvs/dataplane/steer"
)

// expect checks that a packet can be as expected.
func (k *checker) expect(e *Expect) {
	verdict, known := k.word(e.Verdict)
	if known {
		known = k.one(e.Verdict.place, "verdict", verdict, []string{"forward", "reply", "drop", "pass", "hold"}) >= 0
	}
	if !known {
		verdict = ""
	}
	if reason, ok := k.word(e.Reason); ok {
		of := "reason"
		if verdict != "" {
			of = "reason of " + verdict
		}
		k.one(e.Reason.place, of, reason, reasons(verdict))
	}
	if flow, ok := k.word(e.Flow); ok {
		k.one(e.Flow.place, "flow", flow, []string{"hit", "new", "none"})
	}
	service, ok := k.word(e.Service)
	if ok && service != "" {
		var names []string
		for i := range k.conf.Services {
			names = append(names, k.conf.Services[i].Name)
		}
		if k.one(e.Service.place, "service", service, names) < 0 {
			service = ""
		}
	}
	if e.Backend != nil {
		k.expectBackends(e.Backend, service)
	}
	if e.Out != nil {
		k.out(e.Out)
	}
}

func (k *checker) expectBackends(names *list, service string) {
	if len(names.words) == 0 {
		k.add(names.place, "backend is an empty list, which no backend is in", "name backends, or write \"\" for none")
	}
	what := "backend"
	if service != "" {
		what = "backend of service " + service
	}
	for _, w := range names.words {
		if name, ok := k.text(w.place, w.text); ok && name != "" {
			k.one(w.place, what, name, k.backends(service, false))
		}
	}
}

// reasons are those that a packet with the verdict can have; of any, where there is none.
func reasons(verdict string) (names []string) {
	if verdict == "" || verdict == "drop" {
		for r := range dataplane.Reason(dataplane.NumReasons) {
			names = append(names, r.String())
		}
		names = append(names, TooLarge)
	}
	for r := range steer.Shed {
		if fits := verdict != "drop" && r.Director() == (verdict != "pass"); (verdict == "" || fits) && !slices.Contains(names, r.String()) {
			names = append(names, r.String())
		}
	}
	if verdict == "" || verdict == "reply" {
		names = append(names, "echo")
	}
	return names
}

func (k *checker) out(frames *list) {
	for i, w := range frames.words {
		text, ok := k.text(w.place, w.text)
		if !ok {
			continue
		}
		name, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
		if !slices.Contains(k.ports, name) {
			k.add(w.place, fmt.Sprintf("out: frame %d begins with %q, which is no interface", i+1, name), "write INTERFACE FRAME; "+config.Suggest(name, k.ports))
		} else if !notation.HasEthernet(rest) {
			k.add(w.place, fmt.Sprintf("out: frame %d has no Ethernet header", i+1), "write INTERFACE eth SRC > DST / …: frames are compared from their first byte")
		} else if _, err := notation.Parse(anyID(rest, nil)); err != nil {
			k.add(w.place, fmt.Sprintf("out: frame %d: %v", i+1, err), remedy)
		}
	}
}
