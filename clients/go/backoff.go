package client

import (
	"math"
	"time"
)

// backoff makes random waits: before attempt n a time between 0 and min(longest, first * 2^n), full jitter.
type backoff struct {
	first, longest time.Duration
	random         func() float64
	attempts       int
}

// next returns the wait before the next attempt.
func (b *backoff) next() time.Duration {
	return b.wait(b.attempts)
}

// short returns a wait as before the first attempt, although it is before the next one.
func (b *backoff) short() time.Duration {
	return b.wait(0)
}

func (b *backoff) wait(attempts int) time.Duration {
	// The exponent is bounded: a client may try for years.
	bound := math.Min(float64(b.longest), float64(b.first)*math.Exp2(float64(min(attempts, 40))))
	b.attempts++
	return time.Duration(b.random() * bound)
}

// reset makes the next attempt the first one again.
func (b *backoff) reset() {
	b.attempts = 0
}
