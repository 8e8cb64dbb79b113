package client

import (
	"context"
	"time"
)

// A token that expires so soon after another was replaced lives no longer than that.
const shortLife = 30 * time.Second

type expiringPayload struct {
	ExpiresInMs int64 `json:"expiresInMs"`
}

// renewal replaces the token of a connection before it expires. Its fields need the lock.
type renewal struct {
	// cancel ends the goroutine; nil if there is none.
	cancel   context.CancelFunc
	replaced time.Time
	// next is the time that is left to the token; nil if the server has not announced its end.
	next *time.Duration
}

// stop says that the connection is gone.
func (r *renewal) stop() {
	r.next = nil
	if r.cancel != nil {
		r.cancel()
		r.cancel = nil
	}
}

// renew says that the token of the connection expires soon. The caller holds the lock.
func (c *Client) renew(payload *expiringPayload) {
	if c.tokens.fetch == nil {
		return
	}
	left := time.Duration(payload.ExpiresInMs) * time.Millisecond
	c.link.renewal.next = &left
	if c.link.renewal.cancel == nil {
		ctx, cancel := context.WithCancel(context.Background())
		c.link.renewal.cancel = cancel
		go c.keepRenewing(ctx, c.link.connection)
	}
}

// keepRenewing replaces tokens until the server announces no end, one cannot be replaced, or the connection is gone.
func (c *Client) keepRenewing(ctx context.Context, o *connection) {
	for {
		c.mu.Lock()
		if ctx.Err() != nil {
			c.mu.Unlock()
			return
		}
		left := c.link.renewal.next
		if left == nil {
			c.link.renewal.stop()
			c.mu.Unlock()
			return
		}
		c.link.renewal.next = nil
		var wait time.Duration
		if c.clock.Now().Sub(c.link.renewal.replaced) < shortLife {
			// The server announces the end of a short-lived token at once.
			wait = max(time.Second, *left/2)
		}
		c.mu.Unlock()
		if !c.sleep(ctx, wait) {
			return
		}
		c.mu.Lock()
		c.tokens.forget()
		c.mu.Unlock()
		err := c.replaceToken(ctx, o)
		c.mu.Lock()
		switch {
		case ctx.Err() != nil:
		case err == nil:
			c.link.renewal.replaced = c.clock.Now()
		default:
			c.report(err)
			c.link.renewal.next = nil
		}
		c.mu.Unlock()
	}
}

// replaceToken tries until it succeeds, fails for good, or the connection is gone.
func (c *Client) replaceToken(ctx context.Context, o *connection) *Error {
	waits := backoff{first: c.options.BackoffMin, longest: c.options.BackoffMax, random: c.options.random}
	for {
		err := c.replaceTokenOnce(ctx, o)
		if err == nil || !err.Retryable {
			return err
		}
		if !c.sleep(ctx, waits.next()) {
			return nil
		}
	}
}

func (c *Client) replaceTokenOnce(ctx context.Context, o *connection) *Error {
	token, failure := c.tokens.get(ctx)
	c.mu.Lock()
	if ctx.Err() != nil {
		c.mu.Unlock()
		return nil
	}
	if failure != nil {
		defer c.mu.Unlock()
		if failure.final {
			o.drop(ending{reason: failure.err.Message, denied: true})
			return nil
		}
		c.report(failure.err)
		return failure.err
	}
	result := make(chan *Error, 1)
	c.control(outgoing{Type: "token", Payload: token}, func(_ *ackPayload, err *Error) { result <- err })
	c.mu.Unlock()
	err := <-result
	if err != nil && err.Code == "invalid_token" {
		c.mu.Lock()
		c.tokens.forget()
		c.mu.Unlock()
	}
	return err
}

// sleep waits, and returns whether ctx still lives. The caller does not hold the lock.
func (c *Client) sleep(ctx context.Context, wait time.Duration) bool {
	if wait > 0 {
		over := make(chan struct{})
		c.mu.Lock()
		timer := c.after(wait, func() { close(over) })
		c.mu.Unlock()
		select {
		case <-over:
		case <-ctx.Done():
		}
		c.mu.Lock()
		timer.stop()
		c.mu.Unlock()
	}
	return ctx.Err() == nil
}
