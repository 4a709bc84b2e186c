package maglev

import (
	"fmt"
	"math/big"
)

// IsPrime reports whether n is a prime, for every uint64: the Baillie-PSW test that
// ProbablyPrime(0) makes is exact below 2⁶⁴.
func IsPrime(n uint64) bool { return new(big.Int).SetUint64(n).ProbablyPrime(0) }

// NextPrime returns the least prime that is n or more. n must be at most 2⁶³.
func NextPrime(n uint64) uint64 {
	for !IsPrime(n) {
		n++
	}
	return n
}

// PrevPrime returns the greatest prime that is n or less, or 0 when there is none.
func PrevPrime(n uint64) uint64 {
	for n > 0 && !IsPrime(n) {
		n--
	}
	return n
}

// nearby names the primes on either side of n, for an error message.
func nearby(n uint64) string {
	below, above := PrevPrime(n), NextPrime(n)
	if below == 0 {
		return fmt.Sprint(above)
	}
	return fmt.Sprintf("%d or %d", below, above)
}
