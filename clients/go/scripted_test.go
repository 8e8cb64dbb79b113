package client

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
)

// patience is the longest time for anything that a test waits for; no outcome depends on a time.
const patience = 20 * time.Second

// refusal is the answer to an upgrade.
type refusal struct {
	status int
	header map[string]string
	body   string
}

// world has a server, a client, its clock, and the events of the client in order.
type world struct {
	t      *testing.T
	clock  *fakeClock
	client *Client
	server *httptest.Server
	peers  chan *peer
	served []*peer
	// done ends the connections of the server.
	done chan struct{}

	mu       sync.Mutex
	refusals []refusal
	upgrades int
	plain    bool
	// blocked: each upgrade gets 502.
	blocked bool
	// paths are those of all attempts.
	paths []string
	// streams are the answers to the next requests for events.
	streams []refusal
	// current is the last peer with server-sent events.
	current *peer
	events  []string
	changed chan struct{}
}

func (w *world) serve(writer http.ResponseWriter, request *http.Request) {
	if request.Method == http.MethodPost {
		w.servePost(writer, request)
		return
	}
	w.mu.Lock()
	w.paths = append(w.paths, request.URL.RequestURI())
	if request.Header.Get("Upgrade") == "" {
		w.mu.Unlock()
		w.serveStream(writer, request)
		return
	}
	w.upgrades++
	var refused *refusal
	if len(w.refusals) > 0 {
		refused = &w.refusals[0]
		w.refusals = w.refusals[1:]
	} else if w.blocked {
		refused = &refusal{status: http.StatusBadGateway}
	}
	plain := w.plain
	w.mu.Unlock()
	if refused != nil {
		refused.write(writer)
		return
	}
	options := &websocket.AcceptOptions{Subprotocols: []string{subprotocol}}
	if plain {
		options.Subprotocols = nil
	}
	conn, err := websocket.Accept(writer, request, options)
	if err != nil {
		return
	}
	p := &peer{t: w.t, conn: conn, path: request.URL.RequestURI(), header: request.Header}
	w.peers <- p
	<-w.done
	_ = conn.CloseNow()
}

func (r refusal) write(writer http.ResponseWriter) {
	for name, value := range r.header {
		writer.Header().Set(name, value)
	}
	writer.WriteHeader(r.status)
	_, _ = writer.Write([]byte(r.body))
}

// play runs a scene with a server, a client and a clock. The client must leave nothing behind.
func play(t *testing.T, options Options, scene func(w *world)) {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	w := &world{
		t:       t,
		clock:   &fakeClock{now: time.Unix(1_000_000, 0), timers: map[*fakeTimer]struct{}{}},
		peers:   make(chan *peer, 100),
		changed: make(chan struct{}),
		done:    make(chan struct{}),
	}
	w.server = httptest.NewServer(http.HandlerFunc(w.serve))
	options.clock = w.clock
	options.random = func() float64 { return 1 }
	if options.Token == "" && options.GetToken == nil {
		options.UserID = "ann"
	}
	created, err := New("ws"+strings.TrimPrefix(w.server.URL, "http")+"/ws", options)
	if err != nil {
		t.Fatal(err)
	}
	w.client = created
	w.record()
	scene(w)
	for _, p := range w.served {
		// It answers the close frame of the client.
		go p.closedWith()
	}
	w.client.Close()
	if left := w.clock.pending(); len(left) > 0 {
		t.Errorf("a closed client holds timers: %v", left)
	}
	w.server.CloseClientConnections()
	close(w.done)
	w.server.Close()
	if err := goleak.Find(leaks); err != nil {
		t.Error(err)
	}
}

func (w *world) record() {
	w.client.On("*", func(m Message) { w.add("message %s %s %d", m.Payload, m.Room, m.Offset) })
	w.client.OnState(func(c StateChange) { w.add("state %s %d %s", c.State, c.Code+c.Status, c.RetryIn) })
	w.client.OnError(func(err *Error) { w.add("error %s", err.Code) })
	w.client.OnRecovery(func(r Recovery) { w.add("recovered - %t %s", r.Recovered, r.Reason) })
}

func (w *world) watch(name string) {
	room := w.client.Room(name)
	room.OnRecovery(func(r Recovery) { w.add("recovered %s %t %s", name, r.Recovered, r.Reason) })
	room.OnLeft(func(err *Error) { w.add("left %s %s", name, err.Code) })
	room.OnPresence(func(p Presence) {
		w.add("presence %d %v", p.Total, slices.Sorted(maps.Keys(p.Members)))
	})
}

func (w *world) add(format string, values ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, strings.TrimSpace(fmt.Sprintf(format, values...)))
	close(w.changed)
	w.changed = make(chan struct{})
}

// of returns the events of a kind.
func (w *world) of(kind string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []string
	for _, event := range w.events {
		if rest, ok := strings.CutPrefix(event, kind+" "); ok {
			found = append(found, rest)
		}
	}
	return found
}

// until returns the count-th event that begins with start.
func (w *world) until(start string, count int) string {
	w.t.Helper()
	limit := time.After(patience)
	for {
		w.mu.Lock()
		var found []string
		for _, event := range w.events {
			if strings.HasPrefix(event, start) {
				found = append(found, event)
			}
		}
		changed, events := w.changed, w.events
		w.mu.Unlock()
		if len(found) >= count {
			return found[count-1]
		}
		select {
		case <-changed:
		case <-limit:
			w.t.Fatalf("no %q in %q", start, events)
		}
	}
}

// accept returns the next connection, without a `welcome`.
func (w *world) acceptSilently() *peer {
	w.t.Helper()
	select {
	case p := <-w.peers:
		w.served = append(w.served, p)
		return p
	case <-time.After(patience):
		w.t.Fatal("no attempt came")
		return nil
	}
}

// accepted accepts an attempt, and returns the server's end once the client is connected.
func (w *world) accepted(extra ...frame) *peer {
	w.t.Helper()
	before := len(w.of("state connected"))
	p := w.acceptSilently()
	payload := frame{"connectionId": "c", "heartbeatIntervalMs": 25000, "limits": frame{"frameBytesMax": 65536}}
	for _, fields := range extra {
		maps.Copy(payload, fields)
	}
	if p.stream != nil {
		payload["sendKey"] = "k3y"
		p.stream.begin()
	}
	p.send("welcome", payload)
	w.until("state connected", before+1)
	return p
}

// connected connects, and returns the server's end.
func (w *world) connected(extra ...frame) *peer {
	w.t.Helper()
	w.client.Connect()
	return w.accepted(extra...)
}

// reconnected lets the backoff pass, and returns the server's end of the new connection.
func (w *world) reconnected(extra ...frame) *peer {
	w.t.Helper()
	w.passBackoff(max(len(w.of("state connected")), len(w.of("state disconnected"))))
	return w.accepted(extra...)
}

// passBackoff lets the time until the next attempt pass after the count-th loss, and no more: the attempt has timers too.
func (w *world) passBackoff(count int) {
	w.t.Helper()
	event := w.until("state disconnected", count)
	delay, err := time.ParseDuration(event[strings.LastIndex(event, " ")+1:])
	if err != nil {
		w.t.Fatal(err)
	}
	w.clock.advance(delay)
}

func (w *world) eventually(what string, condition func() bool) {
	w.t.Helper()
	for end := time.Now().Add(patience); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			w.t.Fatalf("never: %s", what)
		}
	}
}

func (w *world) wait(by time.Duration) {
	w.t.Helper()
	w.eventually(fmt.Sprint("a timer of ", by), func() bool { return slices.Contains(w.clock.pending(), by) })
	w.clock.advance(by)
}

// join begins to join a room.
func (w *world) join(name string, options JoinOptions) chan error {
	done := make(chan error, 1)
	begun := make(chan struct{})
	go func() {
		_, err := w.client.Join(beginning(begun), name, options)
		done <- err
	}()
	<-begun
	return done
}

type outcome struct {
	answer Answer
	err    error
}

// start begins a call.
func (w *world) start(message Outgoing) chan outcome {
	done := make(chan outcome, 1)
	begun := make(chan struct{})
	message.Type = "note"
	go func() {
		answer, err := w.client.SendMessage(beginning(begun), message)
		done <- outcome{answer, err}
	}()
	select {
	case <-begun:
	case failed := <-done:
		done <- failed
	}
	return done
}

// begun notices when a call begins to wait.
type begun struct {
	context.Context
	once func()
}

func (b begun) Done() <-chan struct{} {
	b.once()
	return b.Context.Done()
}

func beginning(waits chan struct{}) context.Context {
	return begun{context.Background(), sync.OnceFunc(func() { close(waits) })}
}

func (w *world) codeOf(call chan outcome) string {
	w.t.Helper()
	select {
	case failed := <-call:
		return CodeOf(failed.err)
	case <-time.After(patience):
		w.t.Fatal("the call does not end")
		return ""
	}
}

func equal[T any](t *testing.T, got, want T) {
	t.Helper()
	if g, w := fmt.Sprintf("%#v", got), fmt.Sprintf("%#v", want); g != w {
		t.Fatalf("got %s, want %s", g, w)
	}
}
