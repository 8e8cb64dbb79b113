package client

import (
	"context"
	"slices"
	"time"
)

const (
	// The most joins without an answer.
	joinsMax = 50
	// Joins are retried after random times up to these.
	joinRetryMin, joinRetryMax = time.Second, 20 * time.Second
)

// rooms are all rooms of a client. All methods need the lock.
type rooms struct {
	scheduler
	client      *Client
	handles     map[string]*Room
	memberships map[string]*membership
	// order has the memberships in their order.
	order      []*membership
	connected  bool
	toJoin     []*membership
	unanswered int
	// unsettled are the rooms that messages wait for after a reconnect.
	unsettled map[*membership]struct{}
}

// handle returns the room with this name.
func (r *rooms) handle(name string) *Room {
	room := r.handles[name]
	if room == nil {
		room = &Room{name: name, client: r.client, byType: map[string]*callbacks[Message]{}}
		r.handles[name] = room
	}
	return room
}

// keep remembers a room that the application uses.
func (r *rooms) keep(room *Room) {
	if r.handles[room.name] == nil {
		r.handles[room.name] = room
	}
}

// joined returns the names of the rooms that the client is in.
func (r *rooms) joined() []string {
	names := []string{}
	for name, m := range r.memberships {
		if m.joined {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// request says that the application wants to be in the room, with these options.
func (r *rooms) request(name string, options JoinOptions) *waiter {
	waiting := &waiter{result: make(chan error, 1)}
	m := r.memberships[name]
	switch {
	case m == nil:
		m = r.add(name, options)
	case m.options.same(options) && m.joined && m.call == nil:
		waiting.result <- nil
		return waiting
	case !m.options.same(options):
		if m.options.Token != options.Token || (m.options.GetToken == nil) != (options.GetToken == nil) {
			m.tokens.stop()
			m.tokens = r.tokens(name, options)
			m.stopFetching()
		}
		m.options = options
		m.rejoin = m.call != nil
	}
	m.waiters = append(m.waiters, waiting)
	r.enqueue(m)
	return waiting
}

// leave says that the application does not want to be in the room. It returns whether the server has to know.
func (r *rooms) leave(name string) bool {
	m := r.memberships[name]
	if m == nil {
		return false
	}
	known := m.joined || m.call != nil
	r.end(m, newError(CodeClosed, "the application left the room"))
	return known && r.connected
}

// onConnected says that there is a connection: join all rooms again.
func (r *rooms) onConnected() {
	r.connected = true
	for _, m := range r.order {
		r.unsettled[m] = struct{}{}
	}
	if len(r.unsettled) == 0 {
		r.client.flow()
	}
	for _, m := range slices.Clone(r.order) {
		r.enqueue(m)
	}
}

// onLost says that the connection is gone, and with it all memberships.
func (r *rooms) onLost() {
	r.connected = false
	r.toJoin = nil
	r.unanswered = 0
	clear(r.unsettled)
	for _, m := range r.order {
		m.queued = false
		m.stop()
	}
}

// failWaiting says that the client is closed: no join resolves any more. Only the memberships of joined rooms stay.
func (r *rooms) failWaiting(err *Error) {
	for _, m := range slices.Clone(r.order) {
		m.tokens.stop()
		if m.confirmed {
			m.resolve(err)
		} else {
			r.end(m, err)
		}
	}
}

// onJoined hands over a `joined`: a member may have missed messages. Before the answer to a join it says nothing new.
func (r *rooms) onJoined(frame roomPayload) {
	m := r.memberships[frame.Room]
	if m == nil || !m.joined || frame.Recovered == nil || *frame.Recovered {
		return
	}
	m.position = frame.start()
	emit(r.client.dispatcher, &m.room.onRecovery, Recovery{false, frame.Reason})
}

// onLeft hands over a `left`. The one after a `leave` finds no membership.
func (r *rooms) onLeft(frame roomPayload) {
	m := r.memberships[frame.Room]
	if m == nil || !m.joined {
		return
	}
	m.joined = false
	if frame.Reason == "expired" && m.tokens.fetch != nil {
		m.tokens.forget()
		r.enqueue(m)
		return
	}
	code := frame.Reason
	if code == "" {
		code = "removed"
	}
	if m.call != nil {
		// A join is on its way, and would make the client a member again.
		r.client.control(outgoing{Type: "leave", Room: frame.Room}, func(*ackPayload, *Error) {})
	}
	r.giveUp(m, newError(code, "the server ended the membership"))
}

// onPresence hands over a `presence`.
func (r *rooms) onPresence(frame presencePayload) {
	m := r.memberships[frame.Room]
	if m == nil {
		return
	}
	m.room.presence = m.room.presence.after(frame)
	emit(r.client.dispatcher, &m.room.onPresence, m.room.presence)
}

// accept tells whether the application gets this message of a room now. A gap leads to another join.
func (r *rooms) accept(message Message) bool {
	m := r.memberships[message.Room]
	if m == nil || m.position == nil || message.Offset == 0 {
		return true
	}
	expected := m.position.Offset + 1
	if message.Offset == expected {
		m.position = &position{m.position.Epoch, expected}
		return true
	}
	if message.Offset > expected && m.retry == nil {
		r.enqueue(m)
	}
	return false
}

// deliver calls the room's own callbacks.
func (r *rooms) deliver(message Message) {
	room := r.handles[message.Room]
	if room == nil {
		return
	}
	for _, key := range []string{message.Type, "*"} {
		if list := room.byType[key]; list != nil {
			emit(r.client.dispatcher, list, message)
		}
	}
}

func (r *rooms) add(name string, options JoinOptions) *membership {
	room := r.handle(name)
	room.recovered = nil
	m := &membership{
		room:    room,
		options: options,
		tokens:  r.tokens(name, options),
		backoff: backoff{first: joinRetryMin, longest: joinRetryMax, random: r.client.options.random},
		fresh:   true,
	}
	room.membership = m
	r.memberships[name] = m
	r.order = append(r.order, m)
	return m
}

func (r *rooms) tokens(name string, options JoinOptions) *tokens {
	source := &tokens{scheduler: r.scheduler, timeout: r.client.options.TokenTimeout, token: options.Token}
	if fetch := options.GetToken; fetch != nil {
		source.fetch = func(ctx context.Context) (string, error) { return fetch(ctx, name) }
	}
	return source
}

func (r *rooms) enqueue(m *membership) {
	if !r.connected || m.call != nil || m.cancelFetch != nil {
		return
	}
	m.retry.stop()
	m.retry = nil
	if !m.queued {
		m.queued = true
		r.toJoin = append(r.toJoin, m)
	}
	r.pump()
}

func (r *rooms) pump() {
	for len(r.toJoin) > 0 && r.unanswered < joinsMax {
		m := r.toJoin[0]
		r.toJoin = r.toJoin[1:]
		m.queued = false
		if m.tokens.missing() {
			ctx, cancel := context.WithCancel(context.Background())
			m.cancelFetch = cancel
			go r.fetch(ctx, m, m.tokens)
		} else {
			r.send(m)
		}
	}
}

// fetch waits for a token. It does not hold the lock.
func (r *rooms) fetch(ctx context.Context, m *membership, source *tokens) {
	_, failure := source.get(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	m.stopFetching()
	switch {
	case failure == nil:
		m.fresh = true
		r.enqueue(m)
	case failure.final:
		r.giveUp(m, failure.err)
	default:
		r.client.report(failure.err)
		r.tryLater(m)
	}
}

func (r *rooms) send(m *membership) {
	since := m.position
	var call *pendingCall
	call, err := newCall(m.joinFrame(), func(ack *ackPayload, refused *Error) {
		if m.call == call {
			r.answered(m, since, ack, refused)
		}
	})
	if err != nil {
		r.giveUp(m, newError(CodeRefused, "%s", err))
		return
	}
	m.call = call
	r.unanswered++
	r.client.calls.control(call)
}

func (r *rooms) answered(m *membership, since *position, ack *ackPayload, refused *Error) {
	m.call = nil
	r.unanswered--
	if refused != nil {
		r.refused(m, refused)
	} else {
		r.onMember(m, since, ack.Room)
	}
	r.settle(m)
	r.pump()
}

func (r *rooms) onMember(m *membership, since *position, at *place) {
	m.joined = true
	m.confirmed = true
	m.fresh = false
	m.backoff.reset()
	var recovery *Recovery
	switch {
	case at == nil:
		m.position = nil
		if since != nil {
			recovery = &Recovery{false, "no_history"}
		}
	case since == nil:
		// Old messages that the client asked for are still to come.
		m.position = at.start()
	default:
		recovery = &Recovery{at.Recovered != nil && *at.Recovered, at.Reason}
		if !recovery.Recovered {
			m.position = at.start()
		}
	}
	if recovery != nil {
		emit(r.client.dispatcher, &m.room.onRecovery, *recovery)
	}
	if m.rejoin {
		m.rejoin = false
		r.enqueue(m)
		return
	}
	m.room.recovered = nil
	if recovery != nil {
		m.room.recovered = &recovery.Recovered
	}
	m.resolve(nil)
}

func (r *rooms) refused(m *membership, err *Error) {
	switch {
	case m.rejoin:
		m.rejoin = false
		r.enqueue(m)
	case err.Code == "invalid_token" && m.tokens.fetch != nil && !m.fresh:
		// The token was good for an earlier join, and has expired since.
		m.tokens.forget()
		r.enqueue(m)
	case err.Retryable:
		r.tryLater(m)
	default:
		r.giveUp(m, err)
	}
}

func (r *rooms) tryLater(m *membership) {
	if r.connected {
		m.retry = r.after(m.backoff.next(), func() {
			m.retry = nil
			r.enqueue(m)
		})
	}
}

func (r *rooms) giveUp(m *membership, err *Error) {
	emit(r.client.dispatcher, &m.room.onLeft, err)
	r.end(m, err)
}

func (r *rooms) end(m *membership, err *Error) {
	if m.call != nil {
		r.unanswered--
	}
	m.stop()
	m.tokens.stop()
	r.toJoin = without(r.toJoin, m)
	r.order = without(r.order, m)
	delete(r.memberships, m.room.name)
	m.room.membership = nil
	m.room.presence = Presence{}
	if !m.room.hasCallbacks() {
		delete(r.handles, m.room.name)
	}
	m.resolve(err)
	r.settle(m)
	r.pump()
}

func (r *rooms) settle(m *membership) {
	if _, waits := r.unsettled[m]; !waits || m.call != nil {
		return
	}
	delete(r.unsettled, m)
	if len(r.unsettled) == 0 {
		r.client.flow()
	}
}
