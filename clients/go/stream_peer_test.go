package client

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

// streamEnd is the server's end of a stream of events.
type streamEnd struct {
	writer http.ResponseWriter
	// pieces are sent in order; an empty one is the head.
	pieces chan string
	// dropped ends the answer as a killed server does, finished as a server that closes the connection.
	dropped, finished chan struct{}
	// gone is closed when the client has ended the request.
	gone <-chan struct{}
	// frames are the bodies of the POSTs, and posts the requests.
	frames chan []byte
	posts  chan *http.Request
	// answers are those to the next POSTs, after which each gets 202. A status of 0 is no answer.
	answers chan refusal
}

func (s *streamEnd) begin() {
	s.pieces <- ""
}

func (s *streamEnd) send(text string) {
	s.pieces <- text
}

// end sends an event `close`, and ends the answer.
func (s *streamEnd) end(code int, reason string) {
	s.send(fmt.Sprintf("event: close\ndata: {\"code\":%d,\"reason\":%q}\n\n", code, reason))
	close(s.finished)
}

func (w *world) serveStream(writer http.ResponseWriter, request *http.Request) {
	w.mu.Lock()
	if len(w.streams) > 0 {
		refused := w.streams[0]
		w.streams = w.streams[1:]
		w.mu.Unlock()
		refused.write(writer)
		return
	}
	s := &streamEnd{
		writer:   writer,
		pieces:   make(chan string, 100),
		dropped:  make(chan struct{}),
		finished: make(chan struct{}),
		gone:     request.Context().Done(),
		frames:   make(chan []byte, 2000),
		posts:    make(chan *http.Request, 2000),
		answers:  make(chan refusal, 100),
	}
	w.current = &peer{t: w.t, path: request.URL.RequestURI(), header: request.Header, stream: s}
	w.peers <- w.current
	w.mu.Unlock()
	s.serve(w.done)
}

func (s *streamEnd) serve(done <-chan struct{}) {
	for {
		select {
		case text := <-s.pieces:
			s.write(text)
			continue
		default:
		}
		select {
		case text := <-s.pieces:
			s.write(text)
		case <-s.finished:
			return
		case <-s.dropped:
			panic(http.ErrAbortHandler)
		case <-s.gone:
			return
		case <-done:
			return
		}
	}
}

func (s *streamEnd) write(text string) {
	if text == "" {
		s.writer.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		s.writer.WriteHeader(http.StatusOK)
	}
	_, _ = io.WriteString(s.writer, text)
	s.writer.(http.Flusher).Flush()
}

func (w *world) servePost(writer http.ResponseWriter, request *http.Request) {
	text, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	w.mu.Lock()
	s := w.current.stream
	w.mu.Unlock()
	answer := refusal{status: http.StatusAccepted}
	select {
	case answer = <-s.answers:
	default:
	}
	s.posts <- request
	s.frames <- text
	if answer.status == 0 {
		select {
		case <-request.Context().Done():
		case <-w.done:
		}
		return
	}
	answer.write(writer)
}

// streaming connects after a WebSocket was refused, and returns the server's end.
func (w *world) streaming(extra ...frame) *peer {
	w.t.Helper()
	w.mu.Lock()
	w.blocked = true
	w.mu.Unlock()
	w.client.Connect()
	w.passBackoff(1)
	return w.accepted(extra...)
}

// streamedAgain lets the backoff pass after the loss of a stream, and returns the server's end of the new one.
func (w *world) streamedAgain(extra ...frame) *peer {
	w.t.Helper()
	// The WebSocket before the first stream has failed too.
	w.passBackoff(len(w.of("state connected")) + 1)
	return w.accepted(extra...)
}

// attempts returns "ws" or "sse" for each attempt.
func (w *world) attempts() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var all string
	for _, path := range w.paths {
		all += path[1:len(path)-len("?userId=ann")] + " "
	}
	return all
}

// isGone fails unless the client ends the request for the events.
func (p *peer) isGone(t *testing.T) {
	t.Helper()
	select {
	case <-p.stream.gone:
	case <-time.After(patience):
		t.Fatal("the client does not end its request")
	}
}
