package client

import (
	"encoding/json"
	"time"
)

// connection is a wire that is welcome.
type connection struct {
	wire    wire
	welcome welcomePayload
	// end is why the client itself ended the connection; nil if it did not.
	end       *ending
	heartbeat *heartbeat
	stable    *alarm
	// paused tells that the client does not read, so that silence means nothing.
	paused bool
}

// drop ends the connection. The caller holds the lock.
func (o *connection) drop(end ending) {
	if o.end == nil {
		o.end = &end
	}
	o.wire.abort()
}

// stop cancels all timers. The caller holds the lock.
func (o *connection) stop() {
	o.heartbeat.stop()
	o.stable.stop()
}

// welcome reads frames until `welcome`.
func (c *Client) welcome(a *attempt, w wire) (welcomePayload, *ending) {
	var payload welcomePayload
	for {
		text, end := w.receive()
		if end != nil {
			return payload, end
		}
		a.answered = true
		frame, err := decode(text)
		if err == nil && frame.Type == "welcome" {
			err = json.Unmarshal(frame.Payload, &payload)
			if err == nil {
				return payload, w.welcomed(payload)
			}
		}
		if err != nil {
			c.mu.Lock()
			c.report(newError(CodeInvalidFrame, "%s", err))
			c.mu.Unlock()
		}
	}
}

// serve handles the frames of a connection until it ends.
func (c *Client) serve(o *connection, number uint64) ending {
	c.mu.Lock()
	if c.link.run != number {
		c.mu.Unlock()
		o.wire.close()
		return ending{}
	}
	c.connected(o)
	c.mu.Unlock()
	for {
		text, end := o.wire.receive()
		if end != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			if o.end != nil {
				return *o.end
			}
			return *end
		}
		c.mu.Lock()
		o.heartbeat.heard()
		if c.link.connection == o {
			c.received(text)
		}
		backlog := c.dispatcher.backlog()
		o.paused = backlog != nil
		c.mu.Unlock()
		if backlog != nil {
			c.await(o, backlog)
		}
	}
}

// await reads nothing until fewer events wait for callbacks.
func (c *Client) await(o *connection, backlog <-chan struct{}) {
	select {
	case <-backlog:
	case <-o.wire.done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	o.paused = false
	o.heartbeat.heard()
}

// connected begins the life of a connection. The caller holds the lock.
func (c *Client) connected(o *connection) {
	interval := c.options.HeartbeatInterval
	if interval == 0 {
		interval = time.Duration(o.welcome.HeartbeatIntervalMs) * time.Millisecond
	}
	if interval <= 0 {
		interval = standardHeartbeat
	}
	o.heartbeat = &heartbeat{
		scheduler: c.scheduler,
		interval:  interval,
		timeout:   c.options.HeartbeatTimeout,
		ask:       func() { c.control(outgoing{Type: "heartbeat"}, func(*ackPayload, *Error) {}) },
		lost:      func() { c.dead(o) },
	}
	o.heartbeat.begin()
	o.wire.listen(o.heartbeat.heard, c.calls)
	o.stable = c.after(c.options.StableAfter, c.link.backoff.reset)
	c.link.connection = o
	c.link.refusals = 0
	c.link.fallback.connected()
	c.change(StateChange{State: Connected, Transport: o.wire.transport()})
	c.takeUserPlace(o.welcome.User)
	c.calls.connected(o.wire, o.welcome.Limits.FrameBytesMax)
	c.link.settling = c.after(settleTimeout, c.flow)
	c.rooms.onConnected()
}

func (c *Client) dead(o *connection) {
	if o.paused {
		o.heartbeat.begin()
		return
	}
	o.drop(ending{reason: "nothing arrived for too long"})
}

func (c *Client) takeUserPlace(at *place) {
	if at == nil {
		c.link.user = nil
		return
	}
	if c.link.user == nil || at.Recovered == nil || !*at.Recovered {
		c.link.user = at.start()
	}
	if at.Recovered != nil {
		emit(c.dispatcher, &c.onRecovery, Recovery{*at.Recovered, at.Reason})
	}
}

// received handles a frame. The caller holds the lock.
func (c *Client) received(text []byte) {
	frame, err := decode(text)
	if err == nil {
		err = c.handle(frame)
	}
	if err != nil {
		c.report(newError(CodeInvalidFrame, "%s", err))
	}
}

func (c *Client) handle(frame Message) error {
	switch frame.Type {
	case "ack":
		return with(frame, func(ack *ackPayload) { c.calls.answer(ack) })
	case "error":
		return with(frame, c.refused)
	case "joined":
		return with(frame, c.joined)
	case "left":
		return with(frame, func(room *roomPayload) { c.rooms.onLeft(*room) })
	case "presence":
		return with(frame, func(users *presencePayload) { c.rooms.onPresence(*users) })
	case "token_expiring":
		return with(frame, c.renew)
	case "welcome":
		// A second one says nothing.
	default:
		c.message(frame)
	}
	return nil
}

// with decodes the payload of a built-in frame.
func with[T any](frame Message, f func(*T)) error {
	payload := new(T)
	if err := json.Unmarshal(frame.Payload, payload); err != nil {
		return err
	}
	f(payload)
	return nil
}

func (c *Client) joined(payload *roomPayload) {
	at := payload.User
	switch {
	case at == nil:
		c.rooms.onJoined(*payload)
	case c.link.user != nil && at.Recovered != nil && !*at.Recovered:
		// Messages to the user were missed, and the server cannot deliver them any more.
		c.link.user = at.start()
		emit(c.dispatcher, &c.onRecovery, Recovery{false, at.Reason})
	}
}

func (c *Client) refused(payload *errorPayload) {
	err := &Error{Code: payload.Code, Message: payload.Message, Plugin: payload.Plugin, Retryable: payload.Retryable}
	if payload.ID == "" {
		c.report(err)
	} else {
		c.calls.refuse(payload.ID, err)
	}
}

func (c *Client) message(message Message) {
	if message.Room != "" && !c.rooms.accept(message) || message.Room == "" && !c.accept(message) {
		return
	}
	for _, key := range []string{message.Type, "*"} {
		if list := c.byType[key]; list != nil {
			emit(c.dispatcher, list, message)
		}
	}
	if message.Room != "" {
		c.rooms.deliver(message)
	}
}

// accept tells whether the application gets this message of the user. A gap leads to a reconnect.
func (c *Client) accept(message Message) bool {
	if c.link.user == nil || message.Offset == 0 {
		return true
	}
	expected := c.link.user.Offset + 1
	if message.Offset == expected {
		c.link.user = &position{c.link.user.Epoch, expected}
		return true
	}
	if message.Offset > expected {
		c.link.connection.drop(ending{reason: "messages to the user are missing"})
	}
	return false
}
