package client

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"maps"
	"slices"
	"time"
)

const (
	// How often a call with Once is repeated after a retryable error of the server.
	retriesMax = 3
	// The error for a repetition of a call that is being handled, or was until its node died.
	codeInProgress = "in_progress"
	// How long a call is repeated after its first in_progress, and the longest wait in between.
	inProgressTime    = 15 * time.Second
	inProgressWaitMax = 2 * time.Second
	// The bytes that may wait for a socket that is slow, as a multiple of the queue.
	outboxFactor = 16
)

// pendingCall is a frame with an ID, and the function that gets its answer, once, with the lock held.
type pendingCall struct {
	id       string
	text     []byte
	once     bool
	answered func(*ackPayload, *Error)
	retries  int
	// polls counts the repetitions after in_progress, which are no retries. They end at pollsEnd.
	polls    int
	pollsEnd time.Time
	// number is its place among the frames that were written.
	number uint64
	// alarm waits for the answer, or for the next try.
	alarm *alarm
	done  bool
}

// newCall gives the frame a new ID.
func newCall(frame outgoing, answered func(*ackPayload, *Error)) (*pendingCall, error) {
	var id [12]byte
	if _, err := rand.Read(id[:]); err != nil {
		return nil, err
	}
	frame.ID = base64.RawURLEncoding.EncodeToString(id[:])
	text, err := encode(frame)
	if err != nil {
		return nil, err
	}
	return &pendingCall{id: frame.ID, text: text, once: frame.Once, answered: answered}, nil
}

// calls are all calls of a client. All methods need the lock.
type calls struct {
	scheduler
	options Options
	wire    wire
	// flowing tells that messages may go out: the rooms were joined again.
	flowing       bool
	frameBytesMax int
	pending       map[string]*pendingCall
	queue         []*pendingCall
	queueBytes    int
	// written counts the frames, to keep their order.
	written uint64
	// again has calls with Once that a connection took with it. They come before the queue.
	again []*pendingCall
	// resting has calls with Once that wait for their next try.
	resting map[*pendingCall]struct{}
}

// queued returns the number of messages that wait for the connection.
func (c *calls) queued() int {
	return len(c.queue) + len(c.again)
}

// start sends a message now, or after the connection and the rooms are there.
func (c *calls) start(call *pendingCall) {
	switch {
	case c.tooLarge(call):
		c.failTooLarge(call)
	case c.flowing && c.wire.waitingBytes()+len(call.text) > outboxFactor*c.options.QueueBytesMax:
		c.finish(call, nil, newError(CodeQueueFull, "the connection is too slow for so many messages"))
	case c.flowing:
		c.write(call)
	case c.wire == nil && c.options.FailOffline:
		c.finish(call, nil, newError(CodeOffline, "there is no connection"))
	case len(c.queue) >= c.options.QueueMax || c.queueBytes+len(call.text) > c.options.QueueBytesMax:
		c.finish(call, nil, newError(CodeQueueFull, "too many messages wait for the connection"))
	default:
		c.queue = append(c.queue, call)
		c.queueBytes += len(call.text)
	}
}

// control sends a frame about the connection itself, which must be there: it waits for no other.
func (c *calls) control(call *pendingCall) {
	switch {
	case c.wire == nil:
		c.finish(call, nil, newError(CodeConnectionLost, "there is no connection"))
	case c.tooLarge(call):
		c.failTooLarge(call)
	default:
		c.write(call)
	}
}

// forget says that nobody waits for the answer any more. A message that was not sent yet is not sent.
func (c *calls) forget(call *pendingCall) {
	if !call.done {
		call.done = true
		c.remove(call)
	}
}

// answer hands over an `ack`.
func (c *calls) answer(ack *ackPayload) {
	if call := c.pending[ack.ID]; call != nil {
		c.finish(call, ack, nil)
	}
}

// refuse hands over an `error` with an ID.
func (c *calls) refuse(id string, err *Error) {
	call := c.pending[id]
	if call == nil {
		return
	}
	wait, again := time.Duration(0), false
	if call.once && err.Retryable {
		wait, again = c.waitAfter(call, err.Code)
	}
	if again {
		c.rest(call, wait)
	} else {
		c.finish(call, nil, err)
	}
}

// waitAfter returns the wait before the next try of a call that was refused for now, and whether there is one.
func (c *calls) waitAfter(call *pendingCall, code string) (time.Duration, bool) {
	if code != codeInProgress {
		call.retries++
		wait := backoff{c.options.BackoffMin, c.options.BackoffMax, c.options.random, call.retries - 1}
		return wait.next(), call.retries <= retriesMax
	}
	now := c.clock.Now()
	if call.pollsEnd.IsZero() {
		call.pollsEnd = now.Add(inProgressTime)
	}
	left := call.pollsEnd.Sub(now)
	wait := backoff{c.options.BackoffMin, min(c.options.BackoffMax, inProgressWaitMax), c.options.random, call.polls}
	call.polls++
	return min(wait.next(), left), left > 0
}

// connected says that there is a connection. Messages still wait.
func (c *calls) connected(w wire, frameBytesMax int) {
	c.wire = w
	c.frameBytesMax = frameBytesMax
}

// flow sends all messages that wait.
func (c *calls) flow() {
	if c.wire == nil || c.flowing {
		return
	}
	c.flowing = true
	waiting := append(c.again, c.queue...)
	c.again, c.queue, c.queueBytes = nil, nil, 0
	for _, call := range waiting {
		if c.tooLarge(call) {
			c.failTooLarge(call)
		} else {
			c.write(call)
		}
	}
}

// lost says that the connection is gone, and with it the answers.
func (c *calls) lost() {
	c.wire = nil
	c.flowing = false
	var kept []*pendingCall
	for _, call := range c.inOrder() {
		if call.once {
			call.alarm.stop()
			kept = append(kept, call)
		} else {
			c.finish(call, nil, newError(CodeConnectionLost, "the connection was lost before the answer came"))
		}
	}
	c.pending = map[string]*pendingCall{}
	c.again = append(kept, c.again...)
}

// failAll says that the client is closed.
func (c *calls) failAll(err *Error) {
	c.wire = nil
	c.flowing = false
	waiting := append(append(c.inOrder(), c.again...), c.queue...)
	for call := range c.resting {
		waiting = append(waiting, call)
	}
	for _, call := range waiting {
		c.finish(call, nil, err)
	}
}

func (c *calls) tooLarge(call *pendingCall) bool {
	return c.frameBytesMax > 0 && len(call.text) > c.frameBytesMax
}

func (c *calls) failTooLarge(call *pendingCall) {
	c.finish(call, nil, newError(CodeTooLarge, "the frame has %d bytes, and the server takes %d", len(call.text), c.frameBytesMax))
}

func (c *calls) write(call *pendingCall) {
	c.pending[call.id] = call
	c.written++
	call.number = c.written
	c.wire.send(call)
}

// leaves says that the frame of a call is written now. It returns false if nobody waits for its answer any more.
func (c *calls) leaves(call *pendingCall) bool {
	if c.pending[call.id] != call {
		return false
	}
	if call.alarm == nil || call.alarm.stopped {
		call.alarm = c.after(c.options.AnswerTimeout, func() {
			c.finish(call, nil, newError(CodeTimeout, "no answer came within %s", c.options.AnswerTimeout))
		})
	}
	return true
}

// inOrder returns the calls that wait for an answer, in the order in which they were written.
func (c *calls) inOrder() []*pendingCall {
	return slices.SortedFunc(maps.Values(c.pending), func(a, b *pendingCall) int {
		return cmp.Compare(a.number, b.number)
	})
}

func (c *calls) rest(call *pendingCall, wait time.Duration) {
	call.alarm.stop()
	delete(c.pending, call.id)
	c.resting[call] = struct{}{}
	call.alarm = c.after(wait, func() {
		delete(c.resting, call)
		if c.flowing {
			c.write(call)
		} else {
			c.again = append(c.again, call)
		}
	})
}

func (c *calls) finish(call *pendingCall, ack *ackPayload, err *Error) {
	if call.done {
		return
	}
	call.done = true
	c.remove(call)
	call.answered(ack, err)
}

func (c *calls) remove(call *pendingCall) {
	call.alarm.stop()
	delete(c.pending, call.id)
	delete(c.resting, call)
	before := len(c.queue)
	c.queue = without(c.queue, call)
	if len(c.queue) < before {
		c.queueBytes -= len(call.text)
	}
	c.again = without(c.again, call)
}

// without returns the list without an item.
func without[T comparable](list []T, item T) []T {
	for i, other := range list {
		if other == item {
			return append(append([]T{}, list[:i]...), list[i+1:]...)
		}
	}
	return list
}
