package health

// A damper turns a stream of results into a state that changes only after rise successes or fall failures
// in a row. The first result it sees decides at once.
type damper struct {
	rise, fall int

	up       bool
	known    bool // a result has decided
	reported bool // observe has returned true at least once
	streak   int  // results in a row that were alike
	last     bool // what they were
	excused  bool // down by no fault of its own: one success brings it up
}

// observe takes one result and tells whether the state is news: it changed, or it is the first one.
func (d *damper) observe(ok bool) bool {
	if ok == d.last {
		d.streak++
	} else {
		d.streak, d.last = 1, ok
	}
	if !d.known {
		d.known = true
		news := !d.reported || d.up != ok
		d.up, d.reported = ok, true
		return news
	}
	need := d.fall
	if ok {
		need = d.rise
		if d.excused {
			need = 1
		}
	}
	if ok == d.up || d.streak < need {
		return false
	}
	d.up = ok
	d.excused = d.excused && !ok
	return true
}
