package client

import (
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
}

// next tells what the client does now.
func (e ending) next() following {
	switch {
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

// retryAfter returns the time in a Retry-After header, at most a minute; 0 if there is none.
func retryAfter(header string) time.Duration {
	seconds, err := strconv.ParseUint(strings.TrimSpace(header), 10, 31)
	if err != nil {
		return 0
	}
	return min(time.Duration(seconds)*time.Second, retryAfterMax)
}
