package table

// Timeouts of a flow by its state (index: flow.State) in milliseconds. Ages are signed differences of 32-bit clocks: a
// timeout must be below 1<<31.
type Timeouts [16]uint32

// TemplateTimeout is the index in Timeouts of what is remembered of clients, which lives as long as its service's Persist
// says. It is flow.StateTemplate.
const TemplateTimeout = 13

// A timeoutIndex finds the timeouts of a flow by the service that it names. Most services have the same ones, so
// that a look-up reads an index that stays in cache, and not a Service.
type timeoutIndex struct {
	sets []Timeouts
	of   []uint32 // by slot: which set. The last element is the snapshot's own, for every slot beyond
}

// TimeoutsOf returns the timeouts of the flows of the service that r names. Those of a service that was removed keep what it
// had for as long as its slot is remembered. The generation is not asked for: a slot rests until no flow of its former
// tenant is left.
func (s *Snapshot) TimeoutsOf(r Ref) *Timeouts {
	x := &s.timeouts
	return &x.sets[x.of[min(r.Slot(), len(x.of)-1)]]
}

func (s *Snapshot) buildTimeouts() {
	own := s.Timeouts
	own[TemplateTimeout] = 0
	x := timeoutIndex{sets: []Timeouts{own}}
	known := map[Timeouts]uint32{own: 0}
	for i := range s.Services {
		v := &s.Services[i]
		t := own
		if v.Timeouts != nil {
			t = *v.Timeouts
		}
		t[TemplateTimeout] = v.Persist
		set, ok := known[t]
		if !ok {
			set = uint32(len(x.sets))
			known[t] = set
			x.sets = append(x.sets, t)
		}
		x.of = append(x.of, set)
	}
	x.of = append(x.of, 0)
	if len(x.sets) == 1 {
		x.of = x.of[:1]
	}
	s.timeouts = x
}
