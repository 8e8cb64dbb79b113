package client

import (
	"sync"
	"time"
)

// clock is the time, as far as a test replaces it.
type clock interface {
	Now() time.Time
	AfterFunc(delay time.Duration, f func()) stopper
}

// stopper is a timer that can be stopped.
type stopper interface {
	Stop() bool
}

type systemClock struct{}

func (systemClock) Now() time.Time {
	return time.Now()
}

func (systemClock) AfterFunc(delay time.Duration, f func()) stopper {
	return time.AfterFunc(delay, f)
}

// scheduler makes alarms. Its lock is that of the whole client.
type scheduler struct {
	mu    *sync.Mutex
	clock clock
}

// alarm is a function that is called later, with the lock held, unless it is stopped before.
type alarm struct {
	stopped bool
	timer   stopper
}

// after calls f later. The caller holds the lock.
func (s *scheduler) after(delay time.Duration, f func()) *alarm {
	a := &alarm{}
	a.timer = s.clock.AfterFunc(delay, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if a.stopped {
			return
		}
		a.stopped = true
		f()
	})
	return a
}

// stop forgets the function. The caller holds the lock; a may be nil.
func (a *alarm) stop() {
	if a != nil && !a.stopped {
		a.stopped = true
		a.timer.Stop()
	}
}
