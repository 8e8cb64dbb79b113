package client

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

const (
	subprotocol = "signalbox.v1"
	// How long the client waits for the close frame of the server.
	closeTimeout = 2 * time.Second
)

// upgrades makes the upgrades of all clients. It keeps no connections of refused ones.
var upgrades = &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true}}

// socket is a wire over a WebSocket. Frames are written in the order of send, by a goroutine that exists only while some wait.
type socket struct {
	scheduler
	conn *websocket.Conn
	// ctx ends with the connection.
	ctx     context.Context
	cancel  context.CancelFunc
	heard   func()
	calls   *calls
	outbox  [][]byte
	writing bool
	// waiting is the number of bytes that wait to be written.
	waiting int
}

// openSocket connects and upgrades. ctx bounds the attempt only.
func openSocket(ctx context.Context, s scheduler, address string, options Options, token string) (*socket, *ending) {
	opened := &socket{scheduler: s, heard: func() {}}
	opened.ctx, opened.cancel = context.WithCancel(context.Background())
	client := options.HTTPClient
	if client == nil {
		client = upgrades
	}
	direct := *client
	direct.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	header := http.Header{}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	conn, response, err := websocket.Dial(ctx, address, &websocket.DialOptions{
		HTTPClient:   &direct,
		HTTPHeader:   header,
		Subprotocols: []string{subprotocol},
		OnPingReceived: func(context.Context, []byte) bool {
			opened.mu.Lock()
			defer opened.mu.Unlock()
			opened.heard()
			return true
		},
	})
	if err != nil {
		opened.cancel()
		return nil, refused(response, err)
	}
	if conn.Subprotocol() != subprotocol {
		opened.cancel()
		_ = conn.Close(websocket.StatusNormalClosure, CodeUnsupportedProtocol)
		return nil, unsupported()
	}
	conn.SetReadLimit(options.ReceiveBytesMax)
	opened.conn = conn
	return opened, nil
}

func (s *socket) transport() Transport {
	return WebSocket
}

func (s *socket) welcomed(welcomePayload) *ending {
	return nil
}

func (s *socket) listen(heard func(), calls *calls) {
	s.heard, s.calls = heard, calls
}

func (s *socket) send(call *pendingCall) {
	s.calls.leaves(call)
	s.outbox = append(s.outbox, call.text)
	s.waiting += len(call.text)
	if !s.writing {
		s.writing = true
		go s.write()
	}
}

func (s *socket) waitingBytes() int {
	return s.waiting
}

func (s *socket) write() {
	for {
		s.mu.Lock()
		if len(s.outbox) == 0 || s.ctx.Err() != nil {
			s.outbox, s.waiting, s.writing = nil, 0, false
			s.mu.Unlock()
			return
		}
		text := s.outbox[0]
		s.outbox[0] = nil
		s.outbox = s.outbox[1:]
		s.mu.Unlock()
		// The reader learns of a failure too, and why.
		_ = s.conn.Write(s.ctx, websocket.MessageText, text)
		s.mu.Lock()
		s.waiting -= len(text)
		s.mu.Unlock()
	}
}

func (s *socket) receive() ([]byte, *ending) {
	_, text, err := s.conn.Read(s.ctx)
	if err == nil {
		return text, nil
	}
	var closed websocket.CloseError
	if !errors.As(err, &closed) {
		return nil, &ending{reason: err.Error()}
	}
	code := int(closed.Code)
	if closed.Code == websocket.StatusNoStatusRcvd {
		code = 0
	}
	return nil, &ending{reason: closed.Reason, code: code, answered: true}
}

func (s *socket) done() <-chan struct{} {
	return s.ctx.Done()
}

// abort makes no close handshake.
func (s *socket) abort() {
	s.cancel()
}

func (s *socket) release() {
	s.cancel()
	_ = s.conn.CloseNow()
}

// close sends 1000.
func (s *socket) close() {
	limit := time.AfterFunc(closeTimeout, s.cancel)
	defer limit.Stop()
	_ = s.conn.Close(websocket.StatusNormalClosure, "")
	s.cancel()
}

func unsupported() *ending {
	return &ending{reason: "the server did not accept the subprotocol signalbox.v1", unsupported: true}
}

// refused reads why an upgrade failed.
func refused(response *http.Response, err error) *ending {
	if response == nil {
		return &ending{reason: err.Error()}
	}
	if response.StatusCode == http.StatusSwitchingProtocols {
		if other := response.Header.Get("Sec-WebSocket-Protocol"); other != "" && other != subprotocol {
			return unsupported()
		}
		return &ending{reason: err.Error()}
	}
	return endingOf(response)
}
