package maglev

import "sort"

// MaxTurns returns how many turns a round the heaviest backend may have in a table of size slots: 256,
// or fewer in tables so large that building one would take more than about a second. It is
// also the precision of weights: one above 0 counts at least 1/MaxTurns of the heaviest.
func MaxTurns(size uint64) int {
	const most, work = 256, 1 << 25
	return int(min(most, max(1, work/max(1, size))))
}

// turns returns how many turns a round each member gets: the weights over their greatest
// common divisor if those fit, else scaled so that the heaviest has MaxTurns or less. All turns together
// fill at most half of the table, so that each turn comes round at least twice; MinSlotsPerMember
// sees to it that this can be met.
func turns(members []Backend, size uint64) []int {
	heaviest, divisor := 0, 0
	for _, m := range members {
		heaviest, divisor = max(heaviest, m.Weight), gcd(m.Weight, divisor)
	}
	heaviest /= divisor
	result := make([]int, len(members))
	for most := min(heaviest, MaxTurns(size)); ; most-- {
		total := 0
		for i, m := range members {
			w := m.Weight / divisor
			result[i] = max(1, (w*most+heaviest/2)/heaviest)
			total += result[i]
		}
		if uint64(total) <= size/2 || most <= 1 {
			return result
		}
	}
}

// order lists the owner of each turn of a round in the order the turns are taken. Turn k of a member with
// w turns stands at (2k+1)/2w; ties go to the lower index, which is the lower name.
func order(turns []int) []uint16 {
	type turn struct{ owner, numerator, denominator int }
	var all []turn
	for owner, w := range turns {
		for k := range w {
			all = append(all, turn{owner, 2*k + 1, 2 * w})
		}
	}
	sort.Slice(all, func(i, j int) bool {
		a, b := all[i], all[j]
		if l, r := a.numerator*b.denominator, b.numerator*a.denominator; l != r {
			return l < r
		}
		return a.owner < b.owner
	})
	owners := make([]uint16, len(all))
	for i, t := range all {
		owners[i] = uint16(t.owner)
	}
	return owners
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
