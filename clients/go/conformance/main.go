// The driver of clients/conformance/README.md for the Go client.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"signalbox/client"
)

type command struct {
	N       int             `json:"n"`
	Do      string          `json:"do"`
	URL     string          `json:"url"`
	UserID  string          `json:"userId"`
	Token   string          `json:"token"`
	Tokens  []*string       `json:"tokens"`
	Options options         `json:"options"`
	Room    string          `json:"room"`
	Last    int             `json:"last"`
	Users   bool            `json:"presence"`
	Type    string          `json:"type"`
	Payload json.RawMessage `json:"payload"`
	To      string          `json:"to"`
	Once    bool            `json:"once"`
	Before  int64           `json:"before"`
	Limit   int             `json:"limit"`
}

type options struct {
	ConnectTimeoutMs, BackoffMinMs, BackoffMaxMs, StableAfterMs, AnswerTimeoutMs, HeartbeatMs, HeartbeatTimeoutMs float64
	Offline                                                                                                       string
	QueueMax, QueueBytesMax                                                                                       int
	Fallback                                                                                                      bool
	WebSocketAgainMs                                                                                              float64
}

type fields map[string]any

// driver has one client, and carries out the commands for it.
type driver struct {
	client  *client.Client
	mu      sync.Mutex
	watched map[string]bool
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	d := &driver{watched: map[string]bool{}}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			return err
		}
		if c.Do == "open" {
			d.answer(c, nil, d.open(c))
			continue
		}
		d.start(c)
	}
	if d.client != nil {
		d.client.Close()
	}
	return lines.Err()
}

// waiting is a context that notices when a call begins to wait, which is after it took its place in the order of calls.
type waiting struct {
	context.Context
	begun func()
}

func (w waiting) Done() <-chan struct{} {
	w.begun()
	return w.Context.Done()
}

// start carries out a command, and returns when it waits for its result.
func (d *driver) start(c command) {
	begun := make(chan struct{})
	ctx := waiting{context.Background(), sync.OnceFunc(func() { close(begun) })}
	go func() {
		defer ctx.begun()
		value, err := d.do(ctx, c)
		d.answer(c, value, err)
	}()
	<-begun
}

func (d *driver) do(ctx context.Context, c command) (any, error) {
	switch c.Do {
	case "connect":
		d.client.Connect()
	case "close":
		d.client.Close()
	case "join":
		return d.join(ctx, c)
	case "leave":
		return nil, d.client.Leave(ctx, c.Room)
	case "send":
		answer, err := d.client.SendMessage(ctx, client.Outgoing{Type: c.Type, Payload: payload(c), To: c.To, Room: c.Room, Once: c.Once})
		return fields{"status": answer.Status, "duplicate": answer.Duplicate, "data": answer.Data}, err
	case "request":
		data, err := d.client.Request(ctx, c.Type, payload(c))
		return json.RawMessage(data), err
	case "history":
		return d.history(ctx, c)
	case "presence":
		return presence(d.client.Room(c.Room).Presence()), nil
	case "state":
		return fields{"state": d.client.State(), "rooms": d.client.JoinedRooms(), "queued": d.client.Queued()}, nil
	default:
		return nil, fmt.Errorf("unknown command %q", c.Do)
	}
	return nil, nil
}

func (d *driver) open(c command) error {
	o := client.Options{
		UserID:            c.UserID,
		Token:             c.Token,
		ConnectTimeout:    milliseconds(c.Options.ConnectTimeoutMs),
		BackoffMin:        milliseconds(c.Options.BackoffMinMs),
		BackoffMax:        milliseconds(c.Options.BackoffMaxMs),
		StableAfter:       milliseconds(c.Options.StableAfterMs),
		AnswerTimeout:     milliseconds(c.Options.AnswerTimeoutMs),
		HeartbeatInterval: milliseconds(c.Options.HeartbeatMs),
		HeartbeatTimeout:  milliseconds(c.Options.HeartbeatTimeoutMs),
		FailOffline:       c.Options.Offline == "error",
		QueueMax:          c.Options.QueueMax,
		QueueBytesMax:     c.Options.QueueBytesMax,
		NoFallback:        !c.Options.Fallback,
		WebSocketAgain:    milliseconds(c.Options.WebSocketAgainMs),
	}
	if c.Tokens != nil {
		next := tokenCallback(c.Tokens)
		o.GetToken = func(context.Context) (string, error) { return next("") }
	}
	opened, err := client.New(c.URL, o)
	if err != nil {
		return err
	}
	opened.On("*", onMessage)
	opened.OnState(onState)
	opened.OnError(func(err *client.Error) { write(fields{"event": "error", "code": err.Code}) })
	opened.OnRecovery(func(r client.Recovery) { write(recovery(r)) })
	d.client = opened
	opened.Connect()
	return nil
}

func (d *driver) join(ctx context.Context, c command) (any, error) {
	room := d.client.Room(c.Room)
	d.watch(room)
	o := client.JoinOptions{Last: c.Last, Presence: c.Users, Token: c.Token}
	if c.Tokens != nil {
		next := tokenCallback(c.Tokens)
		o.GetToken = func(_ context.Context, room string) (string, error) { return next(room) }
	}
	if err := room.Join(ctx, o); err != nil {
		return nil, err
	}
	if recovered, known := room.Recovered(); known {
		return fields{"recovered": recovered}, nil
	}
	return fields{"recovered": nil}, nil
}

// watch reports the events of a room.
func (d *driver) watch(room *client.Room) {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := room.Name()
	if d.watched[name] {
		return
	}
	d.watched[name] = true
	room.OnRecovery(func(r client.Recovery) {
		event := recovery(r)
		event["room"] = name
		write(event)
	})
	room.OnPresence(func(users client.Presence) {
		event := presence(users)
		event["event"], event["room"] = "presence", name
		write(event)
	})
	room.OnLeft(func(err *client.Error) { write(fields{"event": "left", "room": name, "code": err.Code}) })
}

func (d *driver) history(ctx context.Context, c command) (any, error) {
	page, err := d.client.History(ctx, c.Room, c.Before, c.Limit)
	offsets := []int64{}
	for _, message := range page.Messages {
		offsets = append(offsets, message.Offset)
	}
	return fields{"messages": offsets, "hasOlder": page.HasOlder}, err
}

func (d *driver) answer(c command, value any, err error) {
	if err == nil {
		write(fields{"n": c.N, "ok": value})
		return
	}
	var failed *client.Error
	if !errors.As(err, &failed) {
		failed = &client.Error{Code: "driver", Message: err.Error()}
	}
	answer := fields{"code": failed.Code, "retryable": failed.Retryable}
	if failed.Plugin != "" {
		answer["plugin"] = failed.Plugin
	}
	write(fields{"n": c.N, "error": answer})
}

// tokenCallback gives the tokens one after another, of a room if it gets one; nil: it fails.
func tokenCallback(tokens []*string) func(room string) (string, error) {
	return func(room string) (string, error) {
		event := fields{"event": "token"}
		if room != "" {
			event["room"] = room
		}
		write(event)
		token := tokens[0]
		if len(tokens) > 1 {
			tokens = tokens[1:]
		}
		switch {
		case token == nil:
			return "", errors.New("no token now")
		case *token == "final":
			return "", client.ErrTokenDenied
		}
		return *token, nil
	}
}

func onMessage(m client.Message) {
	event := fields{"event": "message", "type": m.Type, "payload": m.Payload, "sender": m.Sender}
	if m.Room != "" {
		event["room"] = m.Room
	}
	if m.Offset != 0 {
		event["offset"] = m.Offset
	}
	write(event)
}

func onState(change client.StateChange) {
	event := fields{"event": "state", "state": change.State}
	if change.Code != 0 {
		event["code"] = change.Code
	}
	if change.Status != 0 {
		event["status"] = change.Status
	}
	if change.Reason != "" {
		event["reason"] = change.Reason
	}
	if change.Transport == client.SSE {
		event["transport"] = change.Transport
	}
	if change.State == client.Disconnected {
		event["retryInMs"] = change.RetryIn.Milliseconds()
	}
	write(event)
}

func recovery(r client.Recovery) fields {
	event := fields{"event": "recovered", "recovered": r.Recovered}
	if r.Reason != "" {
		event["reason"] = r.Reason
	}
	return event
}

func presence(users client.Presence) fields {
	if users.Members == nil {
		return fields{"total": users.Total, "members": nil}
	}
	names := []string{}
	for name := range users.Members {
		names = append(names, name)
	}
	slices.Sort(names)
	return fields{"total": users.Total, "members": names}
}

func payload(c command) any {
	if c.Payload == nil {
		return nil
	}
	return c.Payload
}

func milliseconds(value float64) time.Duration {
	return time.Duration(value * float64(time.Millisecond))
}

var writing sync.Mutex

func write(line fields) {
	writing.Lock()
	defer writing.Unlock()
	text, err := json.Marshal(line)
	if err != nil {
		text = []byte(`{"event":"error","code":"driver"}`)
	}
	fmt.Println(string(text))
}
