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
	client  *Client
	handles map[string]*Room
	wishes  map[string]*membership
	// order has the wishes in their order.
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
	for name, wish := range r.wishes {
		if wish.joined {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// wish says that the application wants to be in the room, with these options.
func (r *rooms) wish(name string, options JoinOptions) *waiter {
	waiting := &waiter{result: make(chan error, 1)}
	wish := r.wishes[name]
	switch {
	case wish == nil:
		wish = r.add(name, options)
	case wish.options.same(options) && wish.joined && wish.call == nil:
		waiting.result <- nil
		return waiting
	case !wish.options.same(options):
		if wish.options.Token != options.Token || (wish.options.GetToken == nil) != (options.GetToken == nil) {
			wish.tokens.stop()
			wish.tokens = r.tokens(name, options)
			wish.stopFetching()
		}
		wish.options = options
		wish.rejoin = wish.call != nil
	}
	wish.waiters = append(wish.waiters, waiting)
	r.enqueue(wish)
	return waiting
}

// leave says that the application does not want to be in the room. It returns whether the server has to know.
func (r *rooms) leave(name string) bool {
	wish := r.wishes[name]
	if wish == nil {
		return false
	}
	known := wish.joined || wish.call != nil
	r.end(wish, newError(CodeClosed, "the application left the room"))
	return known && r.connected
}

// onConnected says that there is a connection: join all rooms again.
func (r *rooms) onConnected() {
	r.connected = true
	for _, wish := range r.order {
		r.unsettled[wish] = struct{}{}
	}
	if len(r.unsettled) == 0 {
		r.client.flow()
	}
	for _, wish := range slices.Clone(r.order) {
		r.enqueue(wish)
	}
}

// onLost says that the connection is gone, and with it all memberships.
func (r *rooms) onLost() {
	r.connected = false
	r.toJoin = nil
	r.unanswered = 0
	clear(r.unsettled)
	for _, wish := range r.order {
		wish.queued = false
		wish.stop()
	}
}

// failWaiting says that the client is closed: no join resolves any more. Only rooms that were joined stay wishes.
func (r *rooms) failWaiting(err *Error) {
	for _, wish := range slices.Clone(r.order) {
		wish.tokens.stop()
		if wish.confirmed {
			wish.resolve(err)
		} else {
			r.end(wish, err)
		}
	}
}

// onJoined hands over a `joined`: a member may have missed messages. Before the answer to a join it says nothing new.
func (r *rooms) onJoined(frame roomPayload) {
	wish := r.wishes[frame.Room]
	if wish == nil || !wish.joined || frame.Recovered == nil || *frame.Recovered {
		return
	}
	wish.position = frame.start()
	emit(r.client.dispatcher, &wish.room.onRecovery, Recovery{false, frame.Reason})
}

// onLeft hands over a `left`. The one after a `leave` finds no membership.
func (r *rooms) onLeft(frame roomPayload) {
	wish := r.wishes[frame.Room]
	if wish == nil || !wish.joined {
		return
	}
	wish.joined = false
	if frame.Reason == "expired" && wish.tokens.fetch != nil {
		wish.tokens.forget()
		r.enqueue(wish)
		return
	}
	code := frame.Reason
	if code == "" {
		code = "removed"
	}
	if wish.call != nil {
		// A join is on its way, and would make the client a member again.
		r.client.control(outgoing{Type: "leave", Room: frame.Room}, func(*ackPayload, *Error) {})
	}
	r.giveUp(wish, newError(code, "the server ended the membership"))
}

// onPresence hands over a `presence`.
func (r *rooms) onPresence(frame presencePayload) {
	wish := r.wishes[frame.Room]
	if wish == nil {
		return
	}
	wish.room.presence = wish.room.presence.after(frame)
	emit(r.client.dispatcher, &wish.room.onPresence, wish.room.presence)
}

// accept tells whether the application gets this message of a room now. A gap leads to another join.
func (r *rooms) accept(message Message) bool {
	wish := r.wishes[message.Room]
	if wish == nil || wish.position == nil || message.Offset == 0 {
		return true
	}
	expected := wish.position.Offset + 1
	if message.Offset == expected {
		wish.position = &position{wish.position.Epoch, expected}
		return true
	}
	if message.Offset > expected && wish.retry == nil {
		r.enqueue(wish)
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
	wish := &membership{
		room:    room,
		options: options,
		tokens:  r.tokens(name, options),
		backoff: backoff{first: joinRetryMin, longest: joinRetryMax, random: r.client.options.random},
		fresh:   true,
	}
	room.membership = wish
	r.wishes[name] = wish
	r.order = append(r.order, wish)
	return wish
}

func (r *rooms) tokens(name string, options JoinOptions) *tokens {
	source := &tokens{scheduler: r.scheduler, timeout: r.client.options.TokenTimeout, token: options.Token}
	if fetch := options.GetToken; fetch != nil {
		source.fetch = func(ctx context.Context) (string, error) { return fetch(ctx, name) }
	}
	return source
}

func (r *rooms) enqueue(wish *membership) {
	if !r.connected || wish.call != nil || wish.cancelFetch != nil {
		return
	}
	wish.retry.stop()
	wish.retry = nil
	if !wish.queued {
		wish.queued = true
		r.toJoin = append(r.toJoin, wish)
	}
	r.pump()
}

func (r *rooms) pump() {
	for len(r.toJoin) > 0 && r.unanswered < joinsMax {
		wish := r.toJoin[0]
		r.toJoin = r.toJoin[1:]
		wish.queued = false
		if wish.tokens.missing() {
			ctx, cancel := context.WithCancel(context.Background())
			wish.cancelFetch = cancel
			go r.fetch(ctx, wish, wish.tokens)
		} else {
			r.send(wish)
		}
	}
}

// fetch waits for a token. It does not hold the lock.
func (r *rooms) fetch(ctx context.Context, wish *membership, source *tokens) {
	_, failure := source.get(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	wish.stopFetching()
	switch {
	case failure == nil:
		wish.fresh = true
		r.enqueue(wish)
	case failure.final:
		r.giveUp(wish, failure.err)
	default:
		r.client.report(failure.err)
		r.tryLater(wish)
	}
}

func (r *rooms) send(wish *membership) {
	since := wish.position
	var call *pendingCall
	call, err := newCall(wish.joinFrame(), func(ack *ackPayload, refused *Error) {
		if wish.call == call {
			r.answered(wish, since, ack, refused)
		}
	})
	if err != nil {
		r.giveUp(wish, newError(CodeRefused, "%s", err))
		return
	}
	wish.call = call
	r.unanswered++
	r.client.calls.control(call)
}

func (r *rooms) answered(wish *membership, since *position, ack *ackPayload, refused *Error) {
	wish.call = nil
	r.unanswered--
	if refused != nil {
		r.refused(wish, refused)
	} else {
		r.onMember(wish, since, ack.Room)
	}
	r.settle(wish)
	r.pump()
}

func (r *rooms) onMember(wish *membership, since *position, at *place) {
	wish.joined = true
	wish.confirmed = true
	wish.fresh = false
	wish.backoff.reset()
	var recovery *Recovery
	switch {
	case at == nil:
		wish.position = nil
		if since != nil {
			recovery = &Recovery{false, "no_history"}
		}
	case since == nil:
		// Old messages that the client asked for are still to come.
		wish.position = at.start()
	default:
		recovery = &Recovery{at.Recovered != nil && *at.Recovered, at.Reason}
		if !recovery.Recovered {
			wish.position = at.start()
		}
	}
	if recovery != nil {
		emit(r.client.dispatcher, &wish.room.onRecovery, *recovery)
	}
	if wish.rejoin {
		wish.rejoin = false
		r.enqueue(wish)
		return
	}
	wish.room.recovered = nil
	if recovery != nil {
		wish.room.recovered = &recovery.Recovered
	}
	wish.resolve(nil)
}

func (r *rooms) refused(wish *membership, err *Error) {
	switch {
	case wish.rejoin:
		wish.rejoin = false
		r.enqueue(wish)
	case err.Code == "invalid_token" && wish.tokens.fetch != nil && !wish.fresh:
		// The token was good for an earlier join, and has expired since.
		wish.tokens.forget()
		r.enqueue(wish)
	case err.Retryable:
		r.tryLater(wish)
	default:
		r.giveUp(wish, err)
	}
}

func (r *rooms) tryLater(wish *membership) {
	if r.connected {
		wish.retry = r.after(wish.backoff.next(), func() {
			wish.retry = nil
			r.enqueue(wish)
		})
	}
}

func (r *rooms) giveUp(wish *membership, err *Error) {
	emit(r.client.dispatcher, &wish.room.onLeft, err)
	r.end(wish, err)
}

func (r *rooms) end(wish *membership, err *Error) {
	if wish.call != nil {
		r.unanswered--
	}
	wish.stop()
	wish.tokens.stop()
	r.toJoin = without(r.toJoin, wish)
	r.order = without(r.order, wish)
	delete(r.wishes, wish.room.name)
	wish.room.membership = nil
	wish.room.presence = Presence{}
	if !wish.room.hasCallbacks() {
		delete(r.handles, wish.room.name)
	}
	wish.resolve(err)
	r.settle(wish)
	r.pump()
}

func (r *rooms) settle(wish *membership) {
	if _, waits := r.unsettled[wish]; !waits || wish.call != nil {
		return
	}
	delete(r.unsettled, wish)
	if len(r.unsettled) == 0 {
		r.client.flow()
	}
}
