package client

import (
	"sync"
	"time"
)

// fakeClock has timers that fire when a test moves the time.
type fakeClock struct {
	mu     sync.Mutex
	now    time.Time
	timers map[*fakeTimer]struct{}
	number int
}

type fakeTimer struct {
	clock  *fakeClock
	due    time.Time
	number int
	f      func()
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) AfterFunc(delay time.Duration, f func()) stopper {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.number++
	timer := &fakeTimer{c, c.now.Add(delay), c.number, f}
	c.timers[timer] = struct{}{}
	return timer
}

func (t *fakeTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	delete(t.clock.timers, t)
	return true
}

// advance fires all timers of the next time.
func (c *fakeClock) advance(by time.Duration) {
	c.mu.Lock()
	end := c.now.Add(by)
	for {
		var next *fakeTimer
		for timer := range c.timers {
			if !timer.due.After(end) && (next == nil || timer.due.Before(next.due) || timer.due.Equal(next.due) && timer.number < next.number) {
				next = timer
			}
		}
		if next == nil {
			break
		}
		delete(c.timers, next)
		if next.due.After(c.now) {
			c.now = next.due
		}
		c.mu.Unlock()
		next.f()
		c.mu.Lock()
	}
	c.now = end
	c.mu.Unlock()
}

// pending returns the times until all timers that wait.
func (c *fakeClock) pending() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	var left []time.Duration
	for timer := range c.timers {
		left = append(left, timer.due.Sub(c.now))
	}
	return left
}
