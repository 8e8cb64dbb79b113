package client

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	// The shortest wait before the client repeats a frame for which there was no room.
	fullWaitMin = time.Second
	// The most frames that wait for their turn.
	outboxMax = 1000
)

func (s *stream) send(call *pendingCall) {
	if s.released {
		return
	}
	if len(s.outbox) >= outboxMax {
		s.calls.refuse(call.id, newError(CodeQueueFull, "too many frames wait for their turn"))
		return
	}
	s.outbox = append(s.outbox, call)
	s.waiting += len(call.text)
	if !s.posting {
		s.posting = true
		s.poster.Add(1)
		go s.post()
	}
}

func (s *stream) waitingBytes() int {
	return s.waiting
}

// post sends the frames that wait.
func (s *stream) post() {
	defer s.poster.Done()
	for {
		s.mu.Lock()
		call := s.first()
		s.mu.Unlock()
		if call == nil {
			return
		}
		s.deliver(call)
	}
}

// first returns the next frame for whose answer somebody waits; nil if there is none.
func (s *stream) first() *pendingCall {
	for len(s.outbox) > 0 && s.ctx.Err() == nil {
		if call := s.outbox[0]; s.calls.leaves(call) {
			return call
		}
		s.drop()
	}
	s.outbox, s.waiting, s.posting = nil, 0, false
	return nil
}

func (s *stream) drop() {
	s.waiting -= len(s.outbox[0].text)
	s.outbox[0] = nil
	s.outbox = s.outbox[1:]
}

// deliver sends a frame, and waits as long as the server asks to.
func (s *stream) deliver(call *pendingCall) {
	status, wait, err := s.exchange(call.text)
	s.mu.Lock()
	switch {
	case err != nil:
		s.lose(err.Error())
	case status == http.StatusTooManyRequests:
		wait = max(wait, fullWaitMin)
	case status == http.StatusServiceUnavailable:
		s.drop()
		s.calls.refuse(call.id, newError(CodeConnectionLost, "the server did not answer in time: the message may have arrived"))
	case status == http.StatusRequestEntityTooLarge:
		s.drop()
		s.calls.refuse(call.id, newError(CodeTooLarge, "the frame is larger than the server takes"))
	case status == http.StatusAccepted:
		s.drop()
		wait = 0
	default:
		s.lose(fmt.Sprintf("a POST was answered with HTTP %d", status))
	}
	s.mu.Unlock()
	s.sleep(wait)
}

// lose gives the connection up. The caller holds the lock.
func (s *stream) lose(reason string) {
	if s.lost == nil {
		s.lost = &ending{reason: reason}
	}
	s.cancel()
}

// exchange makes a POST, and returns its status and the time of `Retry-After`.
func (s *stream) exchange(text []byte) (status int, wait time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	s.mu.Lock()
	limit := s.after(s.options.ConnectTimeout, func() {
		cancel(fmt.Errorf("a POST had no answer within %s", s.options.ConnectTimeout))
	})
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		limit.stop()
	}()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.target, bytes.NewReader(text))
	if err != nil {
		return 0, 0, err
	}
	request.Header = s.header.Clone()
	response, err := s.client.Do(request)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return 0, 0, err
	}
	defer response.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(response.Body, refusalBytesMax))
	return response.StatusCode, retryAfter(response.Header.Get("Retry-After")), err
}

// sleep waits, at most until the end of the connection. The caller does not hold the lock.
func (s *stream) sleep(wait time.Duration) {
	if wait <= 0 {
		return
	}
	over := make(chan struct{})
	s.mu.Lock()
	timer := s.after(wait, func() { close(over) })
	s.mu.Unlock()
	select {
	case <-over:
	case <-s.ctx.Done():
	}
	s.mu.Lock()
	timer.stop()
	s.mu.Unlock()
}
