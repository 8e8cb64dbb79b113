package client

import (
	"net/http"
	"time"
)

// So many attempts must fail before a client leaves a WebSocket that worked.
const failuresMax = 3

// fallback decides which transport each attempt uses: section 12 of clients/SPEC.md. Attempts change between the transports
// until one of them reaches the server. All methods need the lock.
type fallback struct {
	off   bool
	again time.Duration
	clock clock
	// next is the transport of the next attempt.
	next Transport
	// worked is the transport of the last connection; empty before the first.
	worked Transport
	// tried is when the last attempt with a WebSocket began.
	tried time.Time
	// failures counts the failed attempts in a row that the server itself did not answer.
	failures int
	// doubted is the transport of the last attempt, if a status ended it that may be that of a proxy.
	doubted Transport
}

// start says that a series of attempts begins.
func (f *fallback) start() {
	f.failures, f.doubted = 0, ""
	f.next = WebSocket
	if f.worked == SSE && f.clock.Now().Sub(f.tried) < f.again {
		f.next = SSE
	}
}

// begin returns the transport of the attempt that begins.
func (f *fallback) begin() Transport {
	if f.next == WebSocket {
		f.tried = f.clock.Now()
	}
	return f.next
}

// connected says that the attempt led to a connection.
func (f *fallback) connected() {
	f.worked = f.next
}

// failed says that the attempt has failed. It adds to the end what follows from the choice of the transport.
func (f *fallback) failed(end *ending) {
	if f.off {
		return
	}
	used := f.next
	answered := end.answered && !(used == SSE && isAbsent(end.status))
	doubtful := !answered && end.status != 0 && end.next() == giveUp
	confirmed := f.doubted != "" && f.doubted != used
	f.doubted = ""
	if doubtful {
		f.doubted = used
		end.doubtful = !confirmed
	}
	f.failures++
	if answered {
		f.failures = 0
	}
	if answered || f.worked == WebSocket && f.failures < failuresMax {
		return
	}
	f.next = SSE
	if used == SSE {
		f.next = WebSocket
	}
	end.paired = f.next == SSE
}

// isAbsent tells that a server, or a proxy, has no server-sent events.
func isAbsent(status int) bool {
	switch status {
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusGone:
		return true
	}
	return false
}
