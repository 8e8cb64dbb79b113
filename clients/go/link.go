package client

import (
	"context"
	"time"
)

const (
	// How long messages wait for the rooms after a reconnect.
	settleTimeout = 10 * time.Second
	// A token that the server refuses so often is wrong.
	refusalsMax = 3
	// A wait for the next attempt ends early at most this often.
	wakePause = 5 * time.Second
	// The silence after which the client asks for a sign of life if `welcome` does not say.
	standardHeartbeat = 25 * time.Second
)

// link is the part of a client that the goroutine of its connection owns. Its fields need the lock.
type link struct {
	cancel context.CancelFunc
	// done is closed when the goroutine has ended; nil before the first one.
	done chan struct{}
	// run is the number of the goroutine; an earlier one may still be closing its socket.
	run     uint64
	backoff backoff
	// refusals counts the refused attempts since the last connection.
	refusals int
	fallback fallback
	// wake ends the wait for the next attempt; nil if there is none.
	wake func()
	woke time.Time
	user *position
	// These belong to the connection.
	connection *connection
	settling   *alarm
	renewal    renewal
}

// Connect connects the client, and keeps it connected until Close. A wait for the next attempt ends, as with Wake.
func (c *Client) Connect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != Closed && (c.state != Disconnected || c.link.done != nil) {
		c.wake()
		return
	}
	c.link.backoff = backoff{first: c.options.BackoffMin, longest: c.options.BackoffMax, random: c.options.random}
	c.link.refusals = 0
	earlier := c.link.done
	c.link.done = make(chan struct{})
	c.link.run++
	ctx, cancel := context.WithCancel(context.Background())
	c.link.cancel = cancel
	c.change(StateChange{State: Connecting})
	go c.run(ctx, c.link.run, earlier, c.link.done)
}

// Wake says that the network is back: it ends the wait for the next attempt, at most once in 5 s.
func (c *Client) Wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wake()
}

// Close ends the connection, and fails all calls that wait with CodeClosed.
func (c *Client) Close() {
	c.mu.Lock()
	var open wire
	if c.state != Closed {
		if c.link.connection != nil {
			open = c.link.connection.wire
		}
		c.dispatcher.clear()
		c.shut(StateChange{State: Closed})
	}
	cancel, done := c.link.cancel, c.link.done
	c.mu.Unlock()
	if open != nil {
		open.close()
	}
	if done != nil {
		cancel()
		<-done
	}
}

func (c *Client) wake() {
	now := c.clock.Now()
	if c.link.wake != nil && (c.link.woke.IsZero() || now.Sub(c.link.woke) >= wakePause) {
		c.link.woke = now
		c.link.wake()
	}
}

// run is the goroutine that owns the connection.
func (c *Client) run(ctx context.Context, number uint64, earlier, done chan struct{}) {
	defer close(done)
	if earlier != nil {
		// The earlier goroutine ends by itself: there is never more than one socket.
		<-earlier
	}
	c.mu.Lock()
	c.link.fallback.start()
	c.mu.Unlock()
	for {
		end := c.attempt(ctx, number)
		wait := c.ended(number, end)
		if wait == nil {
			return
		}
		select {
		case <-wait:
		case <-ctx.Done():
			return
		}
		c.mu.Lock()
		if c.link.run != number {
			c.mu.Unlock()
			return
		}
		c.change(StateChange{State: Connecting})
		c.mu.Unlock()
	}
}

// ended handles the end of an attempt or a connection. It returns the wait for the next attempt; nil if there is none.
func (c *Client) ended(number uint64, end ending) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link.run != number {
		return nil
	}
	accepted := c.link.connection != nil
	c.disconnected()
	if final := c.final(end, accepted); final != nil {
		c.report(final)
		c.shut(StateChange{State: Closed, Code: end.code, Status: end.status, Reason: end.reason})
		return nil
	}
	wait := c.link.backoff.next
	if end.paired {
		wait = c.link.backoff.short
	}
	delay := max(wait(), end.retryAfter)
	over := make(chan struct{})
	var timer *alarm
	wake := func() {
		timer.stop()
		c.link.wake = nil
		close(over)
	}
	timer = c.after(delay, wake)
	c.link.wake = wake
	c.change(StateChange{State: Disconnected, Code: end.code, Status: end.status, Reason: end.reason, RetryIn: delay})
	return over
}

// final returns the error that ends the client for good; nil if there is none. accepted tells that there was a connection.
func (c *Client) final(end ending, accepted bool) *Error {
	if end.denied {
		return newError(CodeUnauthorized, "%s", end.reason)
	}
	code := CodeRefused
	switch end.next() {
	case reconnect:
		return nil
	case newToken:
		if !accepted {
			c.link.refusals++
		}
		if c.tokens.fetch != nil && c.link.refusals < refusalsMax {
			c.tokens.forget()
			return nil
		}
		code = CodeUnauthorized
	case giveUp:
		if end.unsupported {
			code = CodeUnsupportedProtocol
		}
	}
	return &Error{Code: code, Message: end.reason, Status: end.status, CloseCode: end.code}
}

// shut closes the client, except for its socket.
func (c *Client) shut(change StateChange) {
	c.link.run++
	c.rooms.onLost()
	c.rooms.failWaiting(errClosed())
	c.calls.failAll(errClosed())
	c.disconnected()
	if c.link.wake != nil {
		c.link.wake()
	}
	c.tokens.stop()
	c.tokens.forget()
	c.change(change)
}

// disconnected says that the connection is gone, if there was one.
func (c *Client) disconnected() {
	gone := c.link.connection
	if gone == nil {
		return
	}
	c.link.connection = nil
	gone.stop()
	c.link.settling.stop()
	c.link.renewal.stop()
	c.rooms.onLost()
	c.calls.lost()
}

// attempt connects, and serves the connection until it ends.
func (c *Client) attempt(ctx context.Context, number uint64) ending {
	token, failure := c.tokens.get(ctx)
	if ctx.Err() != nil {
		return ending{reason: "the client was closed"}
	}
	if failure != nil {
		if !failure.final {
			c.mu.Lock()
			c.report(failure.err)
			c.mu.Unlock()
		}
		return ending{reason: failure.err.Message, denied: failure.final}
	}
	opened, end := c.open(ctx, token)
	if end != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.link.fallback.failed(end)
		return *end
	}
	defer opened.wire.release()
	last := c.serve(opened, number)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.link.fallback.start()
	return last
}
