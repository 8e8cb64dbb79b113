package client

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The client follows no longer Retry-After.
const retryAfterMax = time.Minute

// following is what the client does after the end of an attempt or a connection.
type following int

const (
	reconnect following = iota
	newToken
	giveUp
)

// ending tells how an attempt or a connection ended.
type ending struct {
	reason string
	// code is the close code of the server; 0 if there was none.
	code int
	// status is that of a refused upgrade; 0 if there was none.
	status int
	// retryAfter is the least time until the next attempt.
	retryAfter time.Duration
	// unsupported: the server does not speak the protocol.
	unsupported bool
	// denied: there will be no token.
	denied bool
	// answered: the server itself ended it, rather than the network or a proxy.
	answered bool
	// doubtful: the status may be that of a proxy, so that it does not close the client yet.
	doubtful bool
	// paired: the wait is short, because the next attempt uses server-sent events after one with a WebSocket.
	paired bool
}

// next tells what the client does now.
func (e ending) next() following {
	switch {
	case e.doubtful:
		return reconnect
	case e.unsupported, e.denied:
		return giveUp
	case e.code == 4500, e.code == 4504, e.status == 401:
		return newToken
	case e.code >= 4501 && e.code <= 4999:
		return giveUp
	}
	switch e.code {
	case 1002, 1003, 1007, 1008, 1009, 1010:
		return giveUp
	}
	switch e.status {
	case 400, 403, 404, 405, 410, 426:
		return giveUp
	}
	return reconnect
}

// The most bytes that are read of a refusal.
const refusalBytesMax = 16 << 10

// endingOf returns the end of an attempt that got this answer.
func endingOf(response *http.Response) *ending {
	end := &ending{
		reason:     response.Status,
		status:     response.StatusCode,
		retryAfter: retryAfter(response.Header.Get("Retry-After")),
		answered:   response.StatusCode == http.StatusUnauthorized,
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, refusalBytesMax))
	var failed struct {
		Error struct{ Code, Message string }
	}
	if err != nil || json.Unmarshal(body, &failed) != nil {
		return end
	}
	if failed.Error.Message != "" {
		end.reason = failed.Error.Message
	}
	switch failed.Error.Code {
	case "", "not_an_upgrade", "websocket_version", "websocket_key":
		// A proxy took the header fields of WebSockets out of the request, or it answered itself.
	default:
		end.answered = true
	}
	return end
}

// retryAfter returns the time in a Retry-After header, at most a minute; 0 if there is none.
func retryAfter(header string) time.Duration {
	seconds, err := strconv.ParseUint(strings.TrimSpace(header), 10, 31)
	if err != nil {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, retryAfterMax)
}
