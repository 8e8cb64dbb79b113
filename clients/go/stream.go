package client

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

const (
	// The bytes that are read at once.
	pieceSize = 4 << 10
	// Proxies close idle connections, often after a few seconds; a POST must not meet that moment.
	idleTimeout = 5 * time.Second
)

// stream is a wire over server-sent events: frames come in one long answer, and each frame of the client is a POST. Those go
// one at a time, in order, by a goroutine that exists only while some wait.
type stream struct {
	scheduler
	options Options
	client  *http.Client
	// own is the transport of the client; nil if the application gave one.
	own *http.Transport
	// ctx ends with the connection.
	ctx    context.Context
	cancel context.CancelFunc
	body   io.ReadCloser

	// These belong to the goroutine that receives.
	parser eventParser
	frames [][]byte
	piece  []byte
	closed *ending

	// target and header are those of each POST.
	target string
	header http.Header
	poster sync.WaitGroup

	// These need the lock.
	heard    func()
	calls    *calls
	outbox   []*pendingCall
	waiting  int
	posting  bool
	released bool
	// lost is why this side gave the connection up; nil if it did not.
	lost *ending
}

// openStream asks for the events. begun is called when the head of the answer has come. ctx bounds the attempt only.
func openStream(ctx context.Context, s scheduler, address string, options Options, token string, begun func()) (*stream, *ending) {
	events, posts, err := streamURLs(address)
	if err != nil {
		return nil, &ending{reason: err.Error()}
	}
	opened := &stream{scheduler: s, options: options, target: posts, heard: func() {}}
	opened.parser.max = options.ReceiveBytesMax
	opened.ctx, opened.cancel = context.WithCancel(context.Background())
	opened.client, opened.own = streamClient(options)
	stop := context.AfterFunc(ctx, opened.cancel)
	defer stop()
	end := opened.get(events, token)
	if end != nil {
		opened.release()
		return nil, end
	}
	begun()
	return opened, nil
}

// get makes the request for the events.
func (s *stream) get(address, token string) *ending {
	request, err := http.NewRequestWithContext(s.ctx, http.MethodGet, address, nil)
	if err != nil {
		return &ending{reason: err.Error()}
	}
	request.Header = http.Header{
		"Accept":          {"text/event-stream"},
		"Accept-Encoding": {"identity"},
		"Cache-Control":   {"no-store"},
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := s.client.Do(request)
	if err != nil {
		return &ending{reason: err.Error()}
	}
	s.body = response.Body
	kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
	encoding := response.Header.Get("Content-Encoding")
	switch {
	case response.StatusCode != http.StatusOK:
		return endingOf(response)
	case kind != "text/event-stream", encoding != "" && encoding != "identity":
		return &ending{reason: "the answer to GET is no event stream", status: response.StatusCode}
	}
	return nil
}

func (s *stream) transport() Transport {
	return SSE
}

func (s *stream) welcomed(payload welcomePayload) *ending {
	if payload.ConnectionID == "" || payload.SendKey == "" {
		return &ending{reason: "`welcome` has no `sendKey`"}
	}
	s.target += "/" + url.PathEscape(payload.ConnectionID)
	s.header = http.Header{
		"Authorization": {"Bearer " + payload.SendKey},
		"Content-Type":  {"application/json"},
	}
	return nil
}

func (s *stream) listen(heard func(), calls *calls) {
	s.heard, s.calls = heard, calls
}

func (s *stream) receive() ([]byte, *ending) {
	for len(s.frames) == 0 {
		if s.closed != nil {
			return nil, s.closed
		}
		if err := s.read(); err != nil {
			s.closed = s.ended(err)
		}
	}
	next := s.frames[0]
	s.frames[0] = nil
	s.frames = s.frames[1:]
	return next, nil
}

// read takes the events of the next bytes.
func (s *stream) read() error {
	if s.piece == nil {
		s.piece = make([]byte, pieceSize)
	}
	count, err := s.body.Read(s.piece)
	if count > 0 {
		s.mu.Lock()
		s.heard()
		s.mu.Unlock()
	}
	events, tooLarge := s.parser.feed(s.piece[:count])
	for _, event := range events {
		s.take(event)
	}
	if tooLarge != nil {
		return tooLarge
	}
	return err
}

func (s *stream) take(event event) {
	switch {
	case s.closed != nil:
	case event.name == "" || event.name == "message":
		s.frames = append(s.frames, event.data)
	case event.name == "close":
		var payload struct {
			Code   int
			Reason string
		}
		s.closed = &ending{answered: true}
		if json.Unmarshal(event.data, &payload) == nil {
			s.closed.code, s.closed.reason = payload.Code, payload.Reason
		}
	}
}

// ended returns the end of a connection that cannot be read any more.
func (s *stream) ended(err error) *ending {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed != nil:
		return s.closed
	case s.lost != nil:
		return s.lost
	case err == io.EOF:
		return &ending{reason: "the answer has ended without an event `close`"}
	}
	return &ending{reason: err.Error()}
}

func (s *stream) done() <-chan struct{} {
	return s.ctx.Done()
}

func (s *stream) abort() {
	s.cancel()
}

func (s *stream) release() {
	s.cancel()
	s.mu.Lock()
	s.released = true
	s.mu.Unlock()
	s.poster.Wait()
	if s.body != nil {
		_ = s.body.Close()
	}
	if s.own != nil {
		s.own.CloseIdleConnections()
	}
}

// close ends the requests: the server notices it.
func (s *stream) close() {
	s.cancel()
}

// streamClient returns a client for requests without redirects, and its transport if it is not that of the application.
func streamClient(options Options) (*http.Client, *http.Transport) {
	direct := http.Client{}
	var own *http.Transport
	if options.HTTPClient != nil {
		direct = *options.HTTPClient
		// An answer with events has no end.
		direct.Timeout = 0
	} else {
		// One connection for the events, and one for the POSTs. Both end with the stream.
		own = &http.Transport{
			Proxy:           http.ProxyFromEnvironment,
			IdleConnTimeout: idleTimeout,
			// HTTP/2 would put both on one connection, which outlives them.
			TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{},
		}
		direct.Transport = own
	}
	direct.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &direct, own
}

// streamURLs returns the URLs of the events and of POSTs, for that of a WebSocket.
func streamURLs(address string) (events, posts string, err error) {
	parsed, err := url.Parse(address)
	if err != nil {
		return "", "", err
	}
	parsed.Scheme = strings.Replace(parsed.Scheme, "ws", "http", 1)
	parsed.Path = parsed.Path[:strings.LastIndexByte(parsed.Path, '/')+1] + "sse"
	if !strings.HasPrefix(parsed.Path, "/") {
		parsed.Path = "/" + parsed.Path
	}
	parsed.RawPath = ""
	events = parsed.String()
	parsed.RawQuery = ""
	return events, parsed.String(), nil
}
