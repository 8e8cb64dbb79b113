package client

import "fmt"

// callbacks are the functions of the application for one kind of event.
type callbacks[T any] struct {
	list []*func(T)
}

// add adds a function, and returns the one that removes it. The caller of both holds the lock.
func (c *callbacks[T]) add(f func(T)) func() {
	added := &f
	c.list = append(c.list, added)
	return func() {
		kept := make([]*func(T), 0, len(c.list))
		for _, other := range c.list {
			if other != added {
				kept = append(kept, other)
			}
		}
		c.list = kept
	}
}

// emit calls each of the functions with event, after those of earlier events. The caller holds the lock.
func emit[T any](d *dispatcher, c *callbacks[T], event T) {
	failed, isError := any(event).(*Error)
	// If a callback for such an error fails too, a report would come back to it.
	silent := isError && failed.Code == CodeCallbackFailed
	for _, f := range c.list {
		d.waiting = append(d.waiting, delivery{func() { (*f)(event) }, silent})
	}
	d.start()
}

// delivery is an event on its way to a callback. silent: a panic is not reported.
type delivery struct {
	call   func()
	silent bool
}

// dispatcher calls the callbacks of the application in order, one at a time. It has a goroutine only while some wait.
type dispatcher struct {
	scheduler
	max     int
	failed  func(*Error)
	waiting []delivery
	running bool
	ready   chan struct{}
}

// clear forgets all events that wait. The caller holds the lock.
func (d *dispatcher) clear() {
	d.waiting = nil
	d.release()
}

// backlog returns a channel that is closed once fewer events wait; nil if few do. The caller holds the lock.
func (d *dispatcher) backlog() <-chan struct{} {
	if len(d.waiting) < d.max {
		return nil
	}
	if d.ready == nil {
		d.ready = make(chan struct{})
	}
	return d.ready
}

func (d *dispatcher) start() {
	if len(d.waiting) > 0 && !d.running {
		d.running = true
		go d.drain()
	}
}

func (d *dispatcher) drain() {
	for {
		d.mu.Lock()
		if len(d.waiting) < d.max {
			d.release()
		}
		if len(d.waiting) == 0 {
			d.waiting = nil
			d.running = false
			d.mu.Unlock()
			return
		}
		next := d.waiting[0]
		d.waiting[0] = delivery{}
		d.waiting = d.waiting[1:]
		d.mu.Unlock()
		d.call(next)
	}
}

func (d *dispatcher) call(next delivery) {
	defer func() {
		if cause := recover(); cause != nil && !next.silent {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.failed(newError(CodeCallbackFailed, "a callback panicked: %s", fmt.Sprint(cause)))
		}
	}()
	next.call()
}

func (d *dispatcher) release() {
	if d.ready != nil {
		close(d.ready)
		d.ready = nil
	}
}
