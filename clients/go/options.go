package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"
)

// Options are those of a client. One of UserID, Token and GetToken is needed. The zero value of every other field stands for
// its default.
type Options struct {
	// UserID is the user, for auth.mode = "none".
	UserID string
	// Token never changes.
	Token string
	// GetToken returns a token. It is called before the first attempt, and when the token expires or is refused, never twice at
	// the same time. An error that wraps ErrTokenDenied closes the client; after others it is called again.
	GetToken func(ctx context.Context) (string, error)

	// ConnectTimeout is the longest time for the TCP connection, the upgrade and `welcome` together, and for the answer to a
	// POST; 10 s.
	ConnectTimeout time.Duration
	// BackoffMin and BackoffMax: the wait before attempt n is random, from 0 to min(BackoffMax, BackoffMin * 2^n); 500 ms, 20 s.
	BackoffMin, BackoffMax time.Duration
	// StableAfter is how long a connection must last for the backoff to start again; 5 s.
	StableAfter time.Duration
	// AnswerTimeout is how long a call waits for its answer; 10 s.
	AnswerTimeout time.Duration
	// HeartbeatInterval is the silence after which the client asks for a sign of life; as `welcome` says.
	HeartbeatInterval time.Duration
	// HeartbeatTimeout is how long it waits for one; 10 s.
	HeartbeatTimeout time.Duration
	// TokenTimeout is how long a token callback may take; 30 s.
	TokenTimeout time.Duration
	// FailOffline makes messages fail with CodeOffline instead of waiting for the connection.
	FailOffline bool
	// QueueMax and QueueBytesMax bound the messages that wait for the connection; 100, and 256 KiB.
	QueueMax, QueueBytesMax int
	// CallbacksMax bounds the events that wait for callbacks; the client reads no more until some are done. 1,000.
	CallbacksMax int
	// ReceiveBytesMax is the largest frame that it accepts from the server; 16 MiB.
	ReceiveBytesMax int64
	// NoFallback makes the client use WebSockets alone. Without it, it uses server-sent events if WebSockets do not get through.
	NoFallback bool
	// WebSocketAgain is how long it stays with server-sent events before it tries a WebSocket again, at the next reconnect;
	// 10 min.
	WebSocketAgain time.Duration
	// HTTPClient makes the upgrade, and the requests of the fallback, for other proxies and certificates.
	HTTPClient *http.Client

	random func() float64
	clock  clock
}

var errCredentials = errors.New("give one of UserID, Token and GetToken")

// checked returns the options with their defaults.
func (o Options) checked(address string) (Options, error) {
	parsed, err := url.Parse(address)
	if err != nil {
		return o, err
	}
	if parsed.Scheme != "ws" && parsed.Scheme != "wss" {
		return o, errors.New("the URL must begin with ws:// or wss://")
	}
	given := 0
	for _, is := range []bool{o.UserID != "", o.Token != "", o.GetToken != nil} {
		if is {
			given++
		}
	}
	if given != 1 {
		return o, errCredentials
	}
	standard(&o.ConnectTimeout, 10*time.Second)
	standard(&o.BackoffMin, 500*time.Millisecond)
	standard(&o.BackoffMax, 20*time.Second)
	standard(&o.StableAfter, 5*time.Second)
	standard(&o.AnswerTimeout, 10*time.Second)
	standard(&o.HeartbeatTimeout, 10*time.Second)
	standard(&o.TokenTimeout, 30*time.Second)
	standard(&o.QueueMax, 100)
	standard(&o.QueueBytesMax, 256<<10)
	standard(&o.CallbacksMax, 1000)
	standard(&o.ReceiveBytesMax, 16<<20)
	standard(&o.WebSocketAgain, 10*time.Minute)
	if o.random == nil {
		o.random = rand.Float64
	}
	if o.clock == nil {
		o.clock = systemClock{}
	}
	return o, nil
}

func standard[T comparable](value *T, otherwise T) {
	var zero T
	if *value == zero {
		*value = otherwise
	}
}
