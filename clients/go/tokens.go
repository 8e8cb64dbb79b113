package client

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// tokenFailure tells that a token callback failed. final: it need not be called again.
type tokenFailure struct {
	err   *Error
	final bool
}

// tokens is a token that the application gave, or the callback that fetches one. The callback never runs twice at the same time.
type tokens struct {
	scheduler
	timeout time.Duration
	token   string
	fetch   func(context.Context) (string, error)
	running *fetching
}

// fetching is a callback that runs.
type fetching struct {
	done      chan struct{}
	cancel    context.CancelFunc
	cancelled bool
	failure   *tokenFailure
}

// forget says that the token is worth nothing any more, or soon. Without a callback there is no other. The caller holds the lock.
func (t *tokens) forget() {
	if t.fetch != nil {
		t.token = ""
	}
}

// missing tells whether the callback must be called first. The caller holds the lock.
func (t *tokens) missing() bool {
	return t.token == "" && t.fetch != nil
}

// stop ends a callback that runs. The caller holds the lock.
func (t *tokens) stop() {
	if t.running != nil {
		t.running.cancelled = true
		t.running.cancel()
	}
}

// get returns the token; empty if the client has none. The caller does not hold the lock.
func (t *tokens) get(ctx context.Context) (string, *tokenFailure) {
	for {
		t.mu.Lock()
		if !t.missing() {
			defer t.mu.Unlock()
			return t.token, nil
		}
		if t.running == nil {
			t.start()
		}
		running, wanted := t.running, !t.running.cancelled
		expired := make(chan struct{})
		limit := t.after(t.timeout, func() { close(expired) })
		t.mu.Unlock()

		var failure *tokenFailure
		select {
		case <-running.done:
			failure = running.failure
			if wanted && running.cancelled {
				failure = retryLater("the token is not needed any more")
			}
		case <-expired:
			failure = retryLater("the token callback took longer than %s", t.timeout)
			running.cancel()
		case <-ctx.Done():
			failure = retryLater("%s", ctx.Err())
		}
		t.mu.Lock()
		limit.stop()
		t.mu.Unlock()
		if failure != nil {
			return "", failure
		}
	}
}

func (t *tokens) start() {
	ctx, cancel := context.WithCancel(context.Background())
	running := &fetching{done: make(chan struct{}), cancel: cancel}
	t.running = running
	go func() {
		defer cancel()
		token, err := call(ctx, t.fetch)
		t.mu.Lock()
		defer t.mu.Unlock()
		t.running = nil
		switch {
		case running.cancelled:
		case err == nil:
			t.token = token
		case errors.Is(err, ErrTokenDenied):
			running.failure = &tokenFailure{newError(CodeUnauthorized, "%s", err), true}
		default:
			running.failure = retryLater("the token callback failed: %s", err)
		}
		close(running.done)
	}()
}

func call(ctx context.Context, fetch func(context.Context) (string, error)) (token string, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("it panicked: %v", cause)
		}
	}()
	token, err = fetch(ctx)
	if err == nil && token == "" {
		err = errors.New("it returned an empty token")
	}
	return token, err
}

func retryLater(format string, values ...any) *tokenFailure {
	return &tokenFailure{newError(CodeTokenFailed, format, values...), false}
}
