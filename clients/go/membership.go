package client

import "context"

// membership is a room that the application wants to be in, and the state of its joins. All methods need the lock.
type membership struct {
	room     *Room
	options  JoinOptions
	tokens   *tokens
	backoff  backoff
	position *position
	joined   bool
	// confirmed tells that the client was a member before.
	confirmed bool
	// call is the join that waits for its answer.
	call *pendingCall
	// cancelFetch ends the wait for a token; nil if there is none.
	cancelFetch context.CancelFunc
	// fresh tells that the token was never accepted yet.
	fresh bool
	// rejoin tells to join once more after the answer.
	rejoin bool
	// queued tells that the join is in the queue.
	queued  bool
	retry   *alarm
	waiters []*waiter
}

// waiter is a join of the application; its channel has room for the one result.
type waiter struct {
	result chan error
}

// stop ends everything that would lead to another join.
func (m *membership) stop() {
	m.joined = false
	m.call = nil
	m.rejoin = false
	m.retry.stop()
	m.retry = nil
	m.stopFetching()
}

func (m *membership) stopFetching() {
	if m.cancelFetch != nil {
		m.cancelFetch()
		m.cancelFetch = nil
	}
}

// resolve ends the joins of the application that wait.
func (m *membership) resolve(err error) {
	for _, waiting := range m.waiters {
		waiting.result <- err
	}
	m.waiters = nil
}

func (m *membership) joinFrame() outgoing {
	payload := joinPayload{Since: m.position, Presence: m.options.Presence, Token: m.tokens.token}
	if m.position == nil {
		payload.Last = m.options.Last
	}
	frame := outgoing{Type: "join", Room: m.room.name}
	if payload != (joinPayload{}) {
		frame.Payload = payload
	}
	return frame
}
