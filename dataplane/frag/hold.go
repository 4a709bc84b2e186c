package frag

// Hold keeps frame f until the first fragment of datagram i comes, or HoldTimeout is over. It returns false when there
// is no room: the frame stays the caller's.
func (t *Table) Hold(i uint32, f Held, now uint32) bool {
	e := &t.entries[i]
	t.reap()
	if t.n == len(t.ring) || e.held == maxHeld {
		return false
	}
	at := int32((t.first + t.n) % len(t.ring))
	t.ring[at] = node{frame: f, since: now, owner: i, next: -1, live: true}
	if e.tail >= 0 {
		t.ring[e.tail].next = at
	} else {
		e.head = at
	}
	e.tail = at
	e.held++
	t.n++
	t.live++
	return true
}

// Take returns the frame of datagram i that has been held longest, which is the caller's again.
func (t *Table) Take(i uint32) (Held, bool) {
	e := &t.entries[i]
	if !e.used || e.held == 0 {
		return Held{}, false
	}
	n := &t.ring[e.head]
	n.live = false
	t.live--
	e.held--
	e.head = n.next
	if e.held == 0 {
		e.head, e.tail = -1, -1
	}
	return n.frame, true
}

// reap gives the room of frames that are held no more back, as far as nothing older is held.
func (t *Table) reap() {
	for t.n > 0 && !t.ring[t.first].live {
		t.first = (t.first + 1) % len(t.ring)
		t.n--
	}
}

// Sweep condemns the datagrams whose first fragment has not come in time.
func (t *Table) Sweep(now uint32) {
	for t.live > 0 {
		t.reap()
		n := &t.ring[t.first]
		if now-n.since <= HoldTimeout {
			return
		}
		t.entries[n.owner].late = true
		t.Condemn(n.owner)
	}
}

// Clear drops all that is held.
func (t *Table) Clear() {
	for t.live > 0 {
		t.reap()
		t.Condemn(t.ring[t.first].owner)
	}
}
