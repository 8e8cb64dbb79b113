package client

import (
	"context"
	"net/url"
	"strconv"
	"strings"
)

// attempt is one attempt to connect, up to `welcome`. It belongs to the goroutine that makes it.
type attempt struct {
	transport Transport
	address   string
	token     string
	// begun: the head of the answer with the events has come.
	begun bool
	// answered: a frame has come.
	answered bool
}

// open connects, and waits for `welcome`.
func (c *Client) open(ctx context.Context, token string) (*connection, *ending) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.mu.Lock()
	a := &attempt{transport: c.link.fallback.begin(), address: c.target(), token: token}
	expired := false
	limit := c.after(c.options.ConnectTimeout, func() {
		expired = true
		cancel()
	})
	c.mu.Unlock()
	opened, end := c.dial(ctx, a)
	c.mu.Lock()
	limit.stop()
	late := expired
	c.mu.Unlock()
	if late {
		if opened != nil {
			opened.wire.release()
		}
		return nil, c.tooLate(a)
	}
	if end != nil && a.answered {
		end.answered = true
	}
	return opened, end
}

// tooLate returns the end of an attempt whose time is over.
func (c *Client) tooLate(a *attempt) *ending {
	limit := c.options.ConnectTimeout.String()
	end := &ending{reason: "no connection within " + limit, answered: a.answered}
	if a.begun && !a.answered {
		end.reason = "a proxy holds back the server's events: the answer has begun, but no `welcome` came within " + limit
		c.mu.Lock()
		defer c.mu.Unlock()
		c.report(newError(CodeBuffered, "%s", end.reason))
	}
	return end
}

func (c *Client) dial(ctx context.Context, a *attempt) (*connection, *ending) {
	opened, end := c.openWire(ctx, a)
	if end != nil {
		return nil, end
	}
	stop := context.AfterFunc(ctx, opened.abort)
	welcome, end := c.welcome(a, opened)
	if end == nil && !stop() {
		end = &ending{reason: "the attempt was given up"}
	}
	if end != nil {
		opened.release()
		return nil, end
	}
	return &connection{wire: opened, welcome: welcome}, nil
}

func (c *Client) openWire(ctx context.Context, a *attempt) (wire, *ending) {
	if a.transport == SSE {
		opened, end := openStream(ctx, c.scheduler, a.address, c.options, a.token, func() { a.begun = true })
		if end != nil {
			return nil, end
		}
		return opened, nil
	}
	opened, end := openSocket(ctx, c.scheduler, a.address, c.options, a.token)
	if end != nil {
		return nil, end
	}
	return opened, nil
}

// target returns the URL of the next attempt.
func (c *Client) target() string {
	query := url.Values{}
	if c.options.UserID != "" {
		query.Set("userId", c.options.UserID)
	}
	if at := c.link.user; at != nil {
		query.Set("since", at.Epoch+":"+strconv.FormatInt(at.Offset, 10))
	}
	if len(query) == 0 {
		return c.address
	}
	separator := "?"
	if strings.Contains(c.address, "?") {
		separator = "&"
	}
	return c.address + separator + query.Encode()
}
