package client

import (
	"errors"
	"fmt"
)

// The codes of errors that the client itself makes.
const (
	// CodeOffline: there is no connection, and messages do not wait for one.
	CodeOffline = "offline"
	// CodeQueueFull: too many messages wait.
	CodeQueueFull = "queue_full"
	// CodeConnectionLost: the message may have been delivered, or not.
	CodeConnectionLost = "connection_lost"
	// CodeTimeout: no answer came.
	CodeTimeout = "timeout"
	// CodeClosed: the client is closed.
	CodeClosed = "closed"
	// CodeTooLarge: the frame is larger than the server takes.
	CodeTooLarge = "too_large"
	// CodeUnauthorized: there is no token that the server accepts.
	CodeUnauthorized = "unauthorized"
	// CodeUnsupportedProtocol: the server does not speak signalbox.v1.
	CodeUnsupportedProtocol = "unsupported_protocol"
	// CodeRefused: the server ended the connection for good.
	CodeRefused = "refused"
	// CodeInvalidFrame: a frame of the server is not one of the protocol.
	CodeInvalidFrame = "invalid_frame"
	// CodeCallbackFailed: a callback of the application panicked.
	CodeCallbackFailed = "callback_failed"
	// CodeTokenFailed: a token callback failed, and is called again.
	CodeTokenFailed = "token_failed"
	// CodeBuffered: a proxy holds back the server-sent events.
	CodeBuffered = "buffered"
)

// ErrTokenDenied is wrapped by the error of a token callback if there will be no token: the client is closed, or leaves the
// room, instead of asking again.
var ErrTokenDenied = errors.New("no token")

// Error says why a call, a join or a connection failed.
type Error struct {
	// Code is one of the server (docs/protocol.md), of a plugin, or of this package.
	Code string
	// Message is for people.
	Message string
	// Retryable tells whether the same call may succeed later.
	Retryable bool
	// Plugin is the plugin that refused or failed; empty if none did.
	Plugin string
	// Status is the HTTP status of a refused upgrade; 0 if there was none.
	Status int
	// CloseCode ended the connection for good; 0 if there was none.
	CloseCode int
}

// Error returns the code and the message.
func (e *Error) Error() string {
	return e.Code + ": " + e.Message
}

// CodeOf returns the code of err; empty if it is not an *Error.
func CodeOf(err error) string {
	var failed *Error
	if errors.As(err, &failed) {
		return failed.Code
	}
	return ""
}

func newError(code, format string, values ...any) *Error {
	retryable := false
	switch code {
	case CodeOffline, CodeQueueFull, CodeConnectionLost, CodeTimeout, CodeTokenFailed, CodeBuffered:
		retryable = true
	}
	return &Error{Code: code, Message: fmt.Sprintf(format, values...), Retryable: retryable}
}

func errClosed() *Error {
	return newError(CodeClosed, "the client is closed")
}
