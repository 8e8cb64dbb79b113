// Package client connects to Signalbox, a realtime WebSocket server. It comes back after a loss, with its rooms and its calls,
// and recovers the messages that it missed.
package client

import (
	"context"
	"sync"
	"time"
)

// State is the state of a client.
type State string

// The states of a client. It begins in Disconnected.
const (
	Disconnected State = "disconnected"
	Connecting   State = "connecting"
	Connected    State = "connected"
	Closed       State = "closed"
)

// StateChange is the new state of a client, and why.
type StateChange struct {
	State State
	// Code is the close code of the server; 0 if there was none.
	Code int
	// Status is the HTTP status of a refused upgrade; 0 if there was none.
	Status int
	Reason string
	// RetryIn is the time until the next attempt, in the state Disconnected.
	RetryIn time.Duration
	// Transport is how frames travel, in the state Connected.
	Transport Transport
}

// Client is a connection to Signalbox. Its methods can be called by any goroutine, also in callbacks. Callbacks run one after
// another, in the order in which the frames came.
type Client struct {
	scheduler
	address    string
	options    Options
	state      State
	dispatcher *dispatcher
	calls      *calls
	rooms      *rooms
	tokens     *tokens
	link       link
	byType     map[string]*callbacks[Message]
	onState    callbacks[StateChange]
	onError    callbacks[*Error]
	onRecovery callbacks[Recovery]
}

// New returns a client for a URL such as ws://127.0.0.1:8080/ws. It does not connect yet.
func New(address string, options Options) (*Client, error) {
	options, err := options.checked(address)
	if err != nil {
		return nil, err
	}
	s := scheduler{&sync.Mutex{}, options.clock}
	c := &Client{scheduler: s, address: address, options: options, state: Disconnected, byType: map[string]*callbacks[Message]{}}
	c.dispatcher = &dispatcher{scheduler: s, max: options.CallbacksMax, failed: c.report}
	c.calls = &calls{scheduler: s, options: options, pending: map[string]*pendingCall{}, resting: map[*pendingCall]struct{}{}}
	c.rooms = &rooms{
		scheduler:   s,
		client:      c,
		handles:     map[string]*Room{},
		memberships: map[string]*membership{},
		unsettled:   map[*membership]struct{}{},
	}
	c.link.fallback = fallback{off: options.NoFallback, again: options.WebSocketAgain, clock: options.clock}
	c.tokens = &tokens{scheduler: s, timeout: options.TokenTimeout, token: options.Token, fetch: options.GetToken}
	return c, nil
}

// State returns the state.
func (c *Client) State() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// On calls f with each message of this type; "*" stands for every type. It returns the function that ends it.
func (c *Client) On(eventType string, f func(Message)) (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := c.byType[eventType]
	if list == nil {
		list = &callbacks[Message]{}
		c.byType[eventType] = list
	}
	return c.locked(list.add(f))
}

// OnState calls f with each change of the state.
func (c *Client) OnState(f func(StateChange)) (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.locked(c.onState.add(f))
}

// OnError calls f with errors that no call gets.
func (c *Client) OnError(f func(*Error)) (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.locked(c.onError.add(f))
}

// OnRecovery calls f after a reconnect, with whether the user's own messages were recovered.
func (c *Client) OnRecovery(f func(Recovery)) (end func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.locked(c.onRecovery.add(f))
}

// Room returns the room with this name, to add callbacks before Join. This alone joins nothing.
func (c *Client) Room(name string) *Room {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rooms.handle(name)
}

// JoinedRooms returns the names of the rooms that the client is in now.
func (c *Client) JoinedRooms() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rooms.joined()
}

// Queued returns the number of messages that wait for the connection.
func (c *Client) Queued() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls.queued()
}

// Join joins a room now or as soon as there is a connection, and again after each reconnect, until Leave. It returns when the
// client is a member for the first time. If ctx ends before, the client goes on trying.
func (c *Client) Join(ctx context.Context, room string, options JoinOptions) (*Room, error) {
	handle := c.Room(room)
	return handle, c.join(ctx, handle, options)
}

func (c *Client) join(ctx context.Context, room *Room, options JoinOptions) error {
	c.mu.Lock()
	if c.state == Closed {
		c.mu.Unlock()
		return errClosed()
	}
	c.rooms.keep(room)
	waiting := c.rooms.request(room.name, options)
	c.mu.Unlock()
	select {
	case err := <-waiting.result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Leave leaves a room. It returns when the server has answered, or the connection is gone.
func (c *Client) Leave(ctx context.Context, room string) error {
	c.mu.Lock()
	if !c.rooms.leave(room) {
		c.mu.Unlock()
		return nil
	}
	result := make(chan *Error, 1)
	c.control(outgoing{Type: "leave", Room: room}, func(_ *ackPayload, err *Error) { result <- err })
	c.mu.Unlock()
	select {
	case err := <-result:
		if err == nil || err.Code == CodeConnectionLost || err.Code == CodeClosed {
			return nil
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Outgoing is a message to send.
type Outgoing struct {
	Type string
	// Payload is encoded as JSON.
	Payload any
	// To is the user, Room the room to which it goes; with neither, a plugin must handle its type.
	To, Room string
	// Once makes the client send it again after a lost connection, and the server does not act twice.
	Once bool
}

// Send sends a message to a user.
func (c *Client) Send(ctx context.Context, eventType string, payload any, to string) (Answer, error) {
	return c.SendMessage(ctx, Outgoing{Type: eventType, Payload: payload, To: to})
}

// Request sends a request to the plugin that handles its type, and returns the JSON data of the answer.
func (c *Client) Request(ctx context.Context, eventType string, payload any) ([]byte, error) {
	answer, err := c.SendMessage(ctx, Outgoing{Type: eventType, Payload: payload, Once: true})
	return answer.Data, err
}

// SendMessage sends a message and returns the answer. If ctx ends before, a message that still waits is not sent.
func (c *Client) SendMessage(ctx context.Context, m Outgoing) (Answer, error) {
	ack, err := c.ask(ctx, outgoing{Type: m.Type, Payload: m.Payload, Receiver: m.To, Room: m.Room, Once: m.Once})
	if err != nil {
		return Answer{}, err
	}
	return Answer{ack.Status, ack.MessageID, ack.Data, ack.Duplicate}, nil
}

// History reads messages of the history of a room that the client has joined: the newest ones, or those before an offset.
// before and limit may be 0.
func (c *Client) History(ctx context.Context, room string, before int64, limit int) (Page, error) {
	ack, err := c.ask(ctx, outgoing{Type: "history", Room: room, Payload: historyPayload{before, limit}})
	if err != nil || ack.History == nil {
		return Page{}, err
	}
	return *ack.History, nil
}

// ask sends a frame, and waits for its answer.
func (c *Client) ask(ctx context.Context, frame outgoing) (*ackPayload, error) {
	type result struct {
		ack *ackPayload
		err *Error
	}
	answer := make(chan result, 1)
	call, err := newCall(frame, func(ack *ackPayload, err *Error) { answer <- result{ack, err} })
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	if c.state == Closed {
		c.mu.Unlock()
		return nil, errClosed()
	}
	c.calls.start(call)
	c.mu.Unlock()
	select {
	case got := <-answer:
		if got.err != nil {
			return nil, got.err
		}
		return got.ack, nil
	case <-ctx.Done():
		c.mu.Lock()
		defer c.mu.Unlock()
		c.calls.forget(call)
		return nil, ctx.Err()
	}
}

// control sends a frame about the connection itself. The caller holds the lock.
func (c *Client) control(frame outgoing, answered func(*ackPayload, *Error)) {
	call, err := newCall(frame, answered)
	if err != nil {
		answered(nil, newError(CodeRefused, "%s", err))
		return
	}
	c.calls.control(call)
}

// flow lets messages out: the rooms were joined again. The caller holds the lock.
func (c *Client) flow() {
	c.link.settling.stop()
	c.calls.flow()
}

// change changes the state. The caller holds the lock.
func (c *Client) change(change StateChange) {
	c.state = change.State
	emit(c.dispatcher, &c.onState, change)
}

// report hands an error to the application that no call gets. The caller holds the lock.
func (c *Client) report(err *Error) {
	if c.state != Closed {
		emit(c.dispatcher, &c.onError, err)
	}
}

// locked returns f with the lock around it.
func (c *Client) locked(f func()) func() {
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		f()
	}
}
